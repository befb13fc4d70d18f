"""Which folder a worker takes for its trial's."""

from pathlib import Path

import pytest

from core.train.worker import _here


def test_a_worker_that_starts_in_its_folder_follows_it_when_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "trial"
    trial.mkdir()
    monkeypatch.chdir(trial)
    folder = _here(trial)
    (folder / "before").touch()
    moved = trial.rename(tmp_path / "moved")
    (folder / "after").touch()
    assert sorted(p.name for p in moved.iterdir()) == ["after", "before"]


def test_elsewhere_the_folder_is_the_one_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "trial"
    trial.mkdir()
    monkeypatch.chdir(tmp_path)
    assert _here(Path("trial")) == trial
    assert _here(Path("missing")) == tmp_path / "missing"
