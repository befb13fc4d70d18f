from pathlib import Path
from typing import Any

import pytest

from core.engine.prepare import creation
from core.engine.results import trial_profile
from core.engine.standing import best_trial, ranking
from core.profile import Profile, dumps, loads, save
from core.search.choice import choose
from core.study.events import TrialAdded, TrialEnded, TrialQueued, TrialStarting, encode
from core.study.files import RunInfo, write_record
from core.study.journal import JournalWriter
from core.study.store import StudyError, StudyReader

SPACE = {"learning_rate": [1e-4, 1e-3, 1e-2]}


def finish(trial: int, eval_loss: float, **more: Any) -> TrialEnded:
    return TrialEnded(
        t=9.0, trial=trial, attempt=1, ending="completed", step=20, total_steps=20, eval_loss=eval_loss, loss=eval_loss - 0.1,
        peak_memory=3 << 30, **more,
    )  # fmt: skip


@pytest.fixture
def reader(tmp_path: Path, profile_of):
    """Makes a study of three trials whose endings are given."""

    def make(*events: Any, profile: Profile | None = None) -> StudyReader:
        chosen = profile or profile_of({}, SPACE, train={"warmup_steps": 25})
        save(chosen, tmp_path / "profile.toml")
        journal = JournalWriter(tmp_path / "journal.jsonl")
        journal.append(*(encode(e) for e in (*creation(chosen, 1.0), *events)))
        journal.close()
        return StudyReader(tmp_path)

    return make


def run_info(
    reader: StudyReader, number: int, steps: int = 20, full: int = 100, rows: int = 1
) -> None:
    folder = reader.folder.trial(number)
    folder.path.mkdir(parents=True)
    run = RunInfo(
        1, steps, full, 10.0, rows, 1, 0, 1, 1, "bf16", "NVIDIA Fake", {"torch": "2.13.0"}, 0.1
    )
    write_record(folder.run, run)


def test_trials_are_ranked_by_what_the_study_says(reader) -> None:
    made = reader(
        finish(1, 2.0), finish(2, 1.5), TrialEnded(t=9.0, trial=3, attempt=1, ending="diverged")
    )
    assert [(r.trial, r.place, r.reason) for r in ranking(made.state)] == [
        (2, 1, None),
        (1, 2, None),
        (3, None, "diverged"),
    ]
    assert best_trial(made.state).number == 2


def test_of_near_ties_the_lower_rate_is_the_best(reader) -> None:
    made = reader(finish(1, 1.5001), finish(2, 1.5))
    assert best_trial(made.state).number == 1


def test_a_full_training_does_not_compete_with_probes(reader) -> None:
    full = TrialAdded(t=5.0, trial=4, settings={"learning_rate": 1e-3}, kind="full", parent=2)
    made = reader(finish(2, 1.5), full, finish(4, 0.5))
    assert best_trial(made.state).number == 2
    assert 4 not in [r.trial for r in ranking(made.state)]


def test_in_a_study_without_a_search_the_full_training_is_the_best(reader, profile_of) -> None:
    made = reader(finish(1, 1.5), profile=profile_of({}, {}))
    assert best_trial(made.state).number == 1


def test_without_a_completed_trial_there_is_no_best(reader) -> None:
    assert best_trial(reader().state) is None


def test_a_saved_winner_says_how_it_was_found(reader) -> None:
    made = reader(finish(1, 2.0), finish(2, 1.5), finish(3, 1.75))
    run_info(made, 2)
    profile = trial_profile(made, 2)
    tuned = profile.tuned
    assert tuned is not None
    assert (tuned.trial, tuned.metric, tuned.value, tuned.steps) == (2, "eval_loss", 1.5, 20)
    assert (tuned.runner_up, tuned.runner_up_value, tuned.trials) == (3, 1.75, 3)
    assert (tuned.peak_memory_gib, tuned.device, tuned.precision) == (3.0, "NVIDIA Fake", "bf16")
    assert tuned.versions == {"torch": "2.13.0"}
    assert tuned.study == str(made.folder.path)
    assert (profile.train.learning_rate, profile.search.space, profile.train.max_steps) == (
        1e-3,
        {},
        None,
    )
    assert loads(dumps(profile)) == profile


def test_the_runner_up_of_a_trial_that_is_not_the_best_is_the_best(reader) -> None:
    made = reader(finish(1, 2.0), finish(2, 1.5))
    assert trial_profile(made, 1).tuned.runner_up == 2


def test_memory_fixes_belong_to_the_profile(reader) -> None:
    fix = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    started = TrialStarting(t=2.0, trial=1, attempt=1, device="cpu")
    made = reader(
        started, TrialQueued(t=3.0, trial=1, attempt=2, overrides=fix, reason="x"), finish(1, 2.0)
    )
    assert trial_profile(made, 1).train.gradient_checkpointing


def test_as_a_probe_it_is_as_long_as_the_trial_was(reader) -> None:
    made = reader(finish(1, 2.0))
    run_info(made, 1)
    train = trial_profile(made, 1, as_probe=True).train
    assert (train.max_steps, train.warmup_steps) == (20, 5)
    assert trial_profile(made, 1).train.warmup_steps == 25


class TestAnotherBatch:
    """The study's counts of updates are for its own batch of one row; trial 1 has two."""

    def made(self, reader, profile_of, **train: Any) -> StudyReader:
        space = {"per_device_train_batch_size": [2, 4]}
        profile = profile_of({}, space, train={"warmup_steps": 10, "eval_steps": 20, **train})
        return reader(finish(1, 2.0), profile=profile)

    def test_a_full_training_runs_as_many_rows_as_the_study_says(self, reader, profile_of) -> None:
        made = self.made(reader, profile_of, max_steps=100)
        run_info(made, 1, steps=10, full=50, rows=40)
        train = trial_profile(made, 1).train
        assert (train.max_steps, train.warmup_steps, train.eval_steps) == (50, 5, 10)

    def test_with_epochs_the_warm_up_takes_its_share(self, reader, profile_of) -> None:
        made = self.made(reader, profile_of, num_train_epochs=2.0)
        run_info(made, 1, steps=8, full=40, rows=40)
        train = trial_profile(made, 1).train
        assert (train.max_steps, train.warmup_steps) == (None, 5)
        train = trial_profile(made, 1, as_probe=True).train
        assert (train.max_steps, train.warmup_steps) == (8, 1)


def test_a_probe_of_the_full_schedule_cannot_be_made_again_alone(reader, profile_of) -> None:
    made = reader(finish(1, 2.0), profile=profile_of({}, SPACE, search={"probe_schedule": "full"}))
    run_info(made, 1)
    with pytest.raises(StudyError, match="no training of its own reproduces it"):
        trial_profile(made, 1, as_probe=True)
    assert trial_profile(made, 1).train.max_steps is None


def test_a_confirmed_winner_says_of_how_many_seeds(reader, profile_of) -> None:
    second = TrialAdded(t=5.0, trial=4, settings={"seed": 7}, source="confirm", parent=2)
    made = reader(finish(1, 2.0), finish(2, 1.5), second, finish(4, 1.6))
    tuned = trial_profile(made, 2).tuned
    assert tuned is not None
    assert (tuned.value, tuned.seeds) == (pytest.approx(1.55), 2)
    assert (tuned.strategy, tuned.stopping) == ("grid", "none")
    assert trial_profile(made, 2).train.seed != 7


def test_the_length_of_a_trial_that_never_trained_is_not_known(reader) -> None:
    with pytest.raises(StudyError, match="never came to train"):
        trial_profile(reader(), 1, as_probe=True)


def test_a_trial_that_does_not_exist_has_no_profile(reader) -> None:
    with pytest.raises(StudyError, match="no trial 9"):
        trial_profile(reader(), 9)


def test_the_size_of_a_plan(profile_of) -> None:
    assert choose(profile_of({}, SPACE), gpus=None).trials == 3
    assert choose(profile_of({}, SPACE, search={"trials": 2}), gpus=None).trials == 2
    assert choose(profile_of({}, {}), gpus=None).trials == 1
    endless = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}
    assert (
        choose(
            profile_of({}, endless, search={"strategy": "random", "trials": 40}), gpus=None
        ).trials
        == 40
    )
