from pathlib import Path

import msgspec
import pytest

from core.engine.prepare import creation, prepare
from core.engine.scheduler import Start
from core.profile import ProfileError, load
from core.study.events import StudyCreated, TrialAdded, Warned
from core.study.files import TrialTask, read_record
from core.study.state import Trial
from core.study.store import TrialFolder

START = Start(1, 2, "cuda", ("GPU-a",))


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return TrialFolder(tmp_path / "trials" / "0001")


def test_a_worker_finds_its_settings_and_its_task(folder: TrialFolder, profile_of) -> None:
    profile = profile_of({}, {"learning_rate": [1e-4, 1e-3]}, search={"budget": 0.25})
    trial = Trial(1, {"learning_rate": 1e-4}, overrides={"per_device_train_batch_size": 3})
    prepare(folder, trial, profile, START, 4)
    own = load(folder.profile)
    assert (own.train.learning_rate, own.train.per_device_train_batch_size) == (1e-4, 3)
    assert own.search.space == {}
    assert read_record(folder.task, TrialTask) == TrialTask(
        trial=1,
        attempt=2,
        kind="probe",
        budget=0.25,
        device="cuda",
        gpus=("GPU-a",),
        save_model=False,
        threads=4,
    )


def test_a_full_training_runs_to_its_end_and_is_saved(folder: TrialFolder, profile_of) -> None:
    prepare(folder, Trial(1, {}, kind="full"), profile_of({}, {}), START, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.kind, task.budget, task.save_model) == ("full", 1.0, True)


def test_what_an_earlier_attempt_said_of_its_end_is_cleared_away(
    folder: TrialFolder, profile_of
) -> None:
    (folder.checkpoints / "checkpoint-5").mkdir(parents=True)
    for file in (folder.exit, folder.report, folder.run, folder.metrics, folder.log):
        file.write_text("{}")
    trial = Trial(1, {})
    prepare(
        folder,
        msgspec.structs.replace(trial, resume_from="checkpoints/checkpoint-5"),
        profile_of({}, {}),
        START,
        None,
    )
    assert not any(f.exists() for f in (folder.exit, folder.report, folder.run))
    assert folder.metrics.exists()
    assert folder.log.exists()
    assert (folder.checkpoints / "checkpoint-5").exists()
    prepare(folder, trial, profile_of({}, {}), START, None)
    assert not folder.checkpoints.exists()


def test_settings_that_do_not_go_together_are_refused(folder: TrialFolder, profile_of) -> None:
    trial = Trial(1, {"quantization_bit": 4, "finetuning_type": "full"})
    with pytest.raises(ProfileError, match="quantised weights"):
        prepare(folder, trial, profile_of({}, {}), START, None)


def test_a_study_begins_with_itself_and_its_trials(profile_of) -> None:
    created, *trials = creation(profile_of({}, {"lora_rank": [4, 8]}), 7.0)
    assert isinstance(created, StudyCreated)
    assert (created.name, created.planned, created.rank_by) == ("fake", 2, "eval_loss")
    assert all(isinstance(t, TrialAdded) for t in trials)
    assert [(t.trial, t.settings, t.kind) for t in trials] == [
        (1, {"lora_rank": 4}, "probe"),
        (2, {"lora_rank": 8}, "probe"),
    ]


def test_a_grid_that_was_thinned_out_is_told_of(profile_of) -> None:
    *_, last = creation(profile_of({}, {"lora_rank": [4, 8, 16]}, search={"trials": 2}), 7.0)
    assert isinstance(last, Warned)
    assert "3 combinations" in last.text
