"""Where a profile is saved."""

from pathlib import Path

import pytest

from tui.profile_path import path_note, path_problem, profile_path, slug


def test_a_name_becomes_the_name_of_a_file() -> None:
    assert slug("my run: 7B, no. 2") == "my-run-7B-no.-2"
    assert slug("///") == "profile"


def test_the_ending_is_added_where_it_is_missing(tmp_path: Path) -> None:
    assert profile_path(f"{tmp_path}/v1.5") == tmp_path / "v1.5.toml"
    assert profile_path(f" {tmp_path}/a.toml ") == tmp_path / "a.toml"


def test_what_cannot_be_written_is_said_while_it_is_typed(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert path_problem(f"{tmp_path}/a") is None
    assert path_problem(f"{tmp_path}/") == "a file needs a name"
    assert "is a folder" in (path_problem(f"{tmp_path}/folder") or "")
    assert "there is no folder" in (path_problem(f"{tmp_path}/x/a") or "")


def test_what_would_be_replaced_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("")
    assert "would be replaced" in (path_note("a") or "")
    assert "replaced" not in (path_note("b") or "")
    assert path_note(" ") is None
