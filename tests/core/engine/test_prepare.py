from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from core.engine.prepare import creation, prepare, range_creation
from core.engine.scheduler import Start
from core.profile import ProfileError, load
from core.search.choice import choose
from core.search.halving import first_look, profile_settings, rungs
from core.study.events import StudyCreated, TrialAdded, Warned
from core.study.files import RangeTest, TrialTask, read_record
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
        cache="../../cache",
        save_model=False,
        threads=4,
        own_batch=profile.effective_batch(),
    )


def test_each_gpu_of_a_trial_gets_a_process(folder: TrialFolder, profile_of) -> None:
    start = replace(START, gpus=("GPU-a", "GPU-b"))
    prepare(folder, Trial(1, {}), profile_of({}, {}), start, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.gpus, task.processes) == (("GPU-a", "GPU-b"), 2)


def test_a_full_training_runs_to_its_end_and_is_saved(folder: TrialFolder, profile_of) -> None:
    prepare(folder, Trial(1, {}, kind="full"), profile_of({}, {}), START, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.kind, task.budget, task.save_model) == ("full", 1.0, True)


def test_a_probe_is_told_of_its_rung_its_budget_and_its_schedule(
    folder: TrialFolder, profile_of
) -> None:
    profile = profile_of(
        {},
        {"per_device_train_batch_size": [1, 2]},
        search={"budget_tokens": 5000, "probe_schedule": "full", "keep_checkpoints": True},
        train={"max_steps": 100, "gradient_accumulation_steps": 4},
    )
    trial = Trial(1, {"per_device_train_batch_size": 2}, until=0.3)
    prepare(folder, trial, profile, START, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.until, task.budget_tokens, task.schedule, task.keep_checkpoint) == (
        0.3,
        5000,
        "full",
        True,
    )
    # Of the study's own batch, so that every trial runs as many rows.
    assert (task.full_rows, task.own_batch) == (400, 4)
    second = msgspec.structs.replace(trial, source="confirm", until=1.0)
    prepare(folder, second, profile, START, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert not task.keep_checkpoint


def test_a_full_training_has_no_rung_and_no_budget(folder: TrialFolder, profile_of) -> None:
    profile = profile_of(
        {},
        {"lora_rank": [4]},
        search={"budget_tokens": 5000, "probe_schedule": "full", "keep_checkpoints": True},
        train={"max_steps": 100},
    )
    kept = "trials/0003/checkpoints/checkpoint-5"
    prepare(folder, Trial(1, {}, kind="full", until=0.3, continues=kept), profile, START, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.until, task.budget, task.budget_tokens) == (1.0, 1.0, None)
    assert not task.keep_checkpoint
    assert task.continues == f"../../{kept}"
    assert (folder.path / task.continues).resolve() == folder.path.parents[1] / kept


@pytest.mark.parametrize("until", [0.1, 1.0])
def test_a_trial_that_is_compared_is_evaluated_at_every_rung(
    folder: TrialFolder, profile_of, until: float
) -> None:
    profile = profile_of({}, {"lora_rank": [4]}, search={"first_rung": 0.1})

    def looks(trial: Trial, stopping: Any) -> tuple[float, ...]:
        prepare(folder, trial, profile, START, None, stopping=stopping)
        task = read_record(folder.task, TrialTask)
        assert task is not None
        return task.looks

    probe = Trial(1, {}, until=until)
    settings = profile_settings(profile)
    assert looks(probe, "halving") == (first_look(settings), *rungs(settings))
    assert looks(probe, "none") == ()
    assert looks(Trial(1, {}, source="confirm", parent=2), "halving") == ()
    assert looks(Trial(1, {}, kind="full"), "halving") == ()


def test_a_range_test_is_told_its_rates(folder: TrialFolder, profile_of) -> None:
    test = RangeTest(1e-6, 0.5, 60)
    created, added = range_creation(profile_of({}, {"lora_rank": [4, 8]}), 7.0, test)
    assert isinstance(created, StudyCreated)
    assert (created.planned, created.rank_by) == (1, "loss")
    assert "from 1e-06 to 0.5 over 60 updates" in created.choice
    assert isinstance(added, TrialAdded)
    assert (added.kind, added.settings) == ("range", {})
    prepare(folder, Trial(1, {}, kind="range"), profile_of({}, {}), START, None, test)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.kind, task.range_low, task.range_high, task.range_steps) == (
        "range",
        1e-6,
        0.5,
        60,
    )
    assert not task.save_model


def test_a_training_that_continues_knows_its_probe_s_schedule_and_length(
    folder: TrialFolder, profile_of
) -> None:
    settings = {"max_steps": 30, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    profile = profile_of(
        {}, {"learning_rate": [1e-4, 1e-3]}, search={"probe_schedule": "full"}, train=settings
    )
    trial = Trial(
        1, {"per_device_train_batch_size": 4}, kind="full", continues="trials/0001/checkpoints/checkpoint-3"
    )  # fmt: skip
    prepare(folder, trial, profile, START, None)
    task = read_record(folder.task, TrialTask)
    assert task is not None
    assert (task.schedule, task.full_rows, task.own_batch) == ("full", 180, 6)
    assert task.continues == "../../trials/0001/checkpoints/checkpoint-3"


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
    profile = profile_of({}, {"lora_rank": [4, 8]}, search={"trials": 2})
    created, *trials = creation(profile, 7.0)
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


class TestChoice:
    def added(self, *events: object) -> list[TrialAdded]:
        return [e for e in events if isinstance(e, TrialAdded)]

    SPACE: ClassVar[dict[str, Any]] = {
        "learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"},
        "lora_rank": [4, 8],
    }

    @pytest.mark.parametrize("gpus", [None, 1, 8])
    def test_what_was_chosen_for_these_gpus_and_why_is_written_down(
        self, profile_of, gpus: int | None
    ) -> None:
        search = {"strategy": "auto", "stopping": "auto", "trials": 40}
        profile = profile_of({}, self.SPACE, search=search)
        created, *rest = creation(profile, 7.0, gpus)
        choice = choose(profile, gpus=gpus)
        assert isinstance(created, StudyCreated)
        assert (created.strategy, created.stopping, created.choice) == (
            choice.strategy,
            choice.stopping,
            choice.why,
        )
        assert len(self.added(*rest)) == created.planned == 40 or created.strategy == "bayesian"

    def test_a_search_that_learns_begins_with_some_of_its_trials(self, profile_of) -> None:
        search = {"strategy": "bayesian", "stopping": "halving", "trials": 12, "first_rung": 0.1}
        created, *rest = creation(profile_of({}, self.SPACE, search=search), 7.0)
        assert isinstance(created, StudyCreated)
        trials = self.added(*rest)
        assert 0 < len(trials) < created.planned == 12
        assert {t.until for t in trials} == {0.1}
        assert all(t.sampled for t in trials)

    def test_what_is_held_is_set_beside_what_is_drawn(self, profile_of) -> None:
        profile = profile_of({}, {"lora_rank": [4, 8]}, method={"lora_rank": 8, "lora_alpha": 16})
        trials = self.added(*creation(profile, 7.0))
        assert [t.sampled for t in trials] == [{"lora_rank": 4}, {"lora_rank": 8}]
        assert [t.settings["lora_alpha"] for t in trials] == [8, 16]

    def test_without_stopping_all_run_to_their_end(self, profile_of) -> None:
        profile = profile_of({}, {"lora_rank": [1, 2, 4, 8, 16]}, search={"stopping": "none"})
        assert {t.until for t in self.added(*creation(profile, 7.0))} == {1.0}

    def test_the_metric_and_its_direction_are_written_down(self, profile_of) -> None:
        profile = profile_of({}, {"lora_rank": [4, 8]}, search={"rank_by": "tokens_per_s"})
        created = creation(profile, 7.0)[0]
        assert isinstance(created, StudyCreated)
        assert (created.rank_by, created.direction) == ("tokens_per_s", "max")

    def test_one_training_has_nothing_to_choose(self, profile_of) -> None:
        created, trial = creation(profile_of({}, {}), 7.0)
        assert isinstance(created, StudyCreated)
        assert (created.stopping, created.choice) == ("none", "")
        assert isinstance(trial, TrialAdded)
        assert (trial.kind, trial.until) == ("full", 1.0)
