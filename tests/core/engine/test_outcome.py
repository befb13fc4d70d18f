from typing import Any

import msgspec
import pytest

from core.engine.outcome import summary
from core.study.state import StudyState, Trial, TrialStatus


def study(*trials: Trial, **more: Any) -> StudyState:
    state = StudyState(created=1.0, rank_by="eval_loss", trials={t.number: t for t in trials})
    for name, value in more.items():
        setattr(state, name, value)
    return state


def trial(number: int, status: TrialStatus, **more: Any) -> Trial:
    rate = more.pop("rate", number * 1e-3)
    made = Trial(number, {} if rate is None else {"learning_rate": rate}, status=status)
    return msgspec.structs.replace(made, **more)


class TestWinner:
    def test_it_is_named_with_its_value(self) -> None:
        state = study(trial(1, "completed", value=2.5), trial(2, "completed", value=1.23456))
        assert summary(state) == "best: trial 2, eval_loss 1.235"

    def test_who_is_as_good_is_named_too(self) -> None:
        state = study(
            trial(1, "completed", value=1.5),
            trial(2, "completed", value=1.5005),
            trial(3, "completed", value=1.4999),
            trial(4, "completed", value=1.8),
        )
        assert summary(state) == "best: trial 1, eval_loss 1.5, tied with trials 2, 3"

    def test_a_confirmed_value_is_a_mean(self) -> None:
        state = study(
            trial(1, "completed", value=1.0),
            trial(2, "completed", value=2.0),
            trial(3, "completed", value=1.5, source="confirm", parent=1),
        )
        assert summary(state).startswith("best: trial 1, eval_loss 1.25 (mean of 2 seeds)")

    def test_a_metric_that_is_to_be_high(self) -> None:
        state = study(
            trial(1, "completed", value=0.5),
            trial(2, "completed", value=0.75),
            rank_by="eval_accuracy",
            direction="max",
        )
        assert summary(state) == "best: trial 2, eval_accuracy 0.75"

    def test_a_study_without_probes_names_its_full_training(self) -> None:
        assert summary(study(trial(1, "completed", kind="full", value=1.0))).startswith(
            "best: trial 1"
        )


class TestNoWinner:
    def test_reasons_are_told_together_and_no_winner_is_invented(self) -> None:
        state = study(
            *(trial(n, "diverged", value=0.1, eval_loss=0.1) for n in range(1, 9)),
            trial(9, "oom"),
            trial(10, "oom"),
            trial(11, "pruned", value=0.5),
        )
        assert summary(state) == (
            "no trial completed: 8 diverged at learning rates ≥ 0.001, 2 ran out of memory, "
            "1 was dropped at a rung"
        )

    def test_one_rate_is_one_rate(self) -> None:
        state = study(trial(1, "diverged", rate=0.01), trial(2, "stopped"))
        assert (
            summary(state) == "no trial completed: 1 diverged at learning rate 0.01, 1 was stopped"
        )

    def test_without_rates_none_are_named(self) -> None:
        state = study(trial(1, "diverged", rate=None), trial(2, "diverged"))
        assert summary(state) == "no trial completed: 2 diverged"

    def test_the_commonest_reasons_of_failures_are_told(self) -> None:
        reasons = ["no such file", "another", "no such file", "a third", "a fourth"]
        state = study(*(trial(n, "failed", reason=r) for n, r in enumerate(reasons, 1)))
        assert summary(state) == (
            "no trial completed: 5 failed (2 of them: no such file; 1 of them: another; "
            "1 of them: a third; 1 more reason)"
        )

    def test_trials_that_never_logged_what_decides_completed_all_the_same(self) -> None:
        state = study(
            trial(1, "completed"), trial(2, "diverged"), rank_by="eval_accuracy", direction="max"
        )
        assert summary(state) == (
            "no winner: 1 completed without a value of eval_accuracy, 1 diverged at learning rate 0.002"
        )

    @pytest.mark.parametrize(
        ("status", "words"),
        [("skipped", "none fits its GPU"), ("oom", "all ran out of memory")],
    )
    def test_all_alike_in_memory(self, status: TrialStatus, words: str) -> None:
        assert summary(study(trial(1, status), trial(2, status))) == f"no trial completed: {words}"

    def test_full_trainings_are_not_counted_among_probes(self) -> None:
        state = study(trial(1, "diverged"), trial(2, "completed", kind="full", value=1.0))
        assert summary(state) == "no trial completed: 1 diverged at learning rate 0.001"

    def test_a_study_without_trials(self) -> None:
        assert summary(study()) == "no trial completed"


class TestRange:
    def test_its_end_is_told(self) -> None:
        state = study(trial(1, "completed", kind="range", step=80))
        assert summary(state) == "the range test ended at update 80"

    def test_its_failure_is_told(self) -> None:
        state = study(trial(1, "failed", kind="range", reason="no model"))
        assert summary(state) == "the range test failed: no model"
