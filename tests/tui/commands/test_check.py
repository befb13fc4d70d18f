"""`tunedeck check` looks at the first rows of the data, and so does what starts a training."""

import json
from pathlib import Path

import pytest

from tui.cli import main

PROFILE = (
    '[model]\nmodel_name_or_path = "demo"\n[method]\nstage = "{}"\n[data]\ndataset = "rows.json"\n'
)
PAIR = {"instruction": "Say hello", "chosen": "hello", "rejected": "no"}


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text("".join(json.dumps(PAIR) + "\n" for _ in range(3)))
    file = tmp_path / "mine.toml"
    file.write_text(PROFILE.format("sft"))
    return file


def test_data_of_another_stage_is_told_with_file_row_field_and_fix(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(profile)]) == 1
    told = capsys.readouterr().err
    assert f"data.dataset: {profile.parent / 'rows.json'}, row 1: has chosen and rejected" in told
    assert 'set method.stage = "dpo"' in told
    assert main(["check", str(profile), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["key"] == "data.dataset" and "row 1" in problem["wrong"]
    profile.write_text(PROFILE.format("dpo"))
    assert main(["check", str(profile)]) == 0
    assert "fine" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "train"])
def test_nothing_is_started_on_data_of_another_stage(
    command: str, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(profile.parent.iterdir())
    assert main([command, str(profile), "--headless", "--study", "s"]) == 1
    assert "row 1: has chosen and rejected answers" in capsys.readouterr().err
    assert sorted(profile.parent.iterdir()) == before
