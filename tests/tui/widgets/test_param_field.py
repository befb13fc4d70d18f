"""Completing a path that is typed."""

from pathlib import Path

import pytest

from tui.widgets.param_field import PathSuggester, complete_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("")
    (tmp_path / "data" / "rows.log").write_text("")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_folders_and_files_of_the_right_kind_are_proposed(folder: Path) -> None:
    assert complete_path("da", folder, (".jsonl",)) == "data/"
    assert complete_path("data/r", folder, (".jsonl",)) == "data/rows.jsonl"
    assert complete_path(f"{folder}/data/r", Path("/"), (".jsonl",)) == f"{folder}/data/rows.jsonl"
    assert complete_path("no", folder, (".jsonl",)) is None


def test_nothing_is_proposed_where_nothing_was_typed_or_found(folder: Path) -> None:
    assert complete_path("", folder, (".jsonl",)) is None
    assert complete_path("data/", folder, (".jsonl",)) is None
    assert complete_path("none/r", folder, (".jsonl",)) is None
    assert complete_path('["da', folder, (".jsonl",)) is None


async def test_the_suggester_looks_in_its_folder(folder: Path) -> None:
    assert await PathSuggester(folder, (".jsonl",)).get_suggestion("data/ro") == "data/rows.jsonl"
