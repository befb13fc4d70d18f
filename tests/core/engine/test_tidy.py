from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.engine.tidy import after_end, after_study
from core.study.state import StudyState, Trial, TrialStatus
from core.study.store import StudyFolder

LAST = "checkpoints/checkpoint-9"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    study = StudyFolder(tmp_path)
    for number in (1, 2):
        for step in (3, 6, 9):
            (study.trial(number).checkpoints / f"checkpoint-{step}").mkdir(parents=True)
            (study.trial(number).checkpoints / f"checkpoint-{step}" / "model").write_text("x")
    return study


def trial(status: TrialStatus, **more: Any) -> Trial:
    return msgspec.structs.replace(Trial(1, {}, status=status, resume_from=LAST), **more)


def left(folder: StudyFolder, number: int = 1) -> list[str]:
    checkpoints = folder.trial(number).checkpoints
    return sorted(p.name for p in checkpoints.iterdir()) if checkpoints.exists() else []


@pytest.mark.parametrize("status", ["rung", "paused", "stopped", "failed", "completed"])
def test_the_last_checkpoint_is_kept_and_older_ones_go(
    folder: StudyFolder, status: TrialStatus
) -> None:
    after_end(folder, trial(status))
    assert left(folder) == ["checkpoint-9"]


@pytest.mark.parametrize(
    "ended",
    [trial("completed", resume_from=None), trial("diverged")],
    ids=["completed", "diverged"],
)
def test_what_nothing_goes_on_from_is_removed(folder: StudyFolder, ended: Trial) -> None:
    after_end(folder, ended)
    assert left(folder) == []


@pytest.mark.parametrize(
    "other",
    [trial("completed", kind="full"), trial("running"), trial("queued")],
    ids=["full", "running", "queued"],
)
def test_what_may_still_be_written_or_belongs_to_a_person_is_not_touched(
    folder: StudyFolder, other: Trial
) -> None:
    after_end(folder, other)
    assert len(left(folder)) == 3


def test_a_trial_without_checkpoints_has_nothing_to_remove(tmp_path: Path) -> None:
    after_end(StudyFolder(tmp_path), trial("completed"))
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_the_study_removes_those_of_dropped_trials(folder: StudyFolder) -> None:
    kept = msgspec.structs.replace(trial("completed"), number=2)
    after_study(folder, StudyState(trials={1: trial("pruned"), 2: kept}))
    assert (left(folder), left(folder, 2)) == ([], ["checkpoint-9"])
