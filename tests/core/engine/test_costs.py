from typing import Any

import msgspec
import pytest

from core.engine.costs import ahead, probe_seconds, spent
from core.study.state import Attempt, StudyState, Trial, TrialStatus


def trial(
    number: int, status: TrialStatus, step: int = 0, seconds: float = 0.0, **more: Any
) -> Trial:
    made = Trial(
        number, {}, status=status, step=step, total_steps=100 if step else 0, seconds=seconds
    )
    return msgspec.structs.replace(made, **more)


def study(*trials: Trial, **more: Any) -> StudyState:
    state = StudyState(created=1.0, trials={t.number: t for t in trials})
    for name, value in more.items():
        setattr(state, name, value)
    return state


class TestSpent:
    def test_all_attempts_count_and_those_that_run(self) -> None:
        live = trial(2, "running", seconds=5.0, attempts=(Attempt(1, started=100.0),))
        assert spent(study(trial(1, "completed", seconds=30.0), live), 110.0).seconds == 45.0

    def test_gpu_time_is_counted_for_each_gpu(self) -> None:
        one = trial(1, "completed", seconds=30.0, attempts=(Attempt(1, "cuda", ("a",)),))
        two = trial(2, "completed", seconds=10.0, attempts=(Attempt(1, "cuda", ("a", "b")),))
        cpu = trial(3, "completed", seconds=7.0, attempts=(Attempt(1),))
        assert spent(study(one, two, cpu), 0.0).gpu_seconds == 50.0

    def test_a_clock_that_was_set_back_takes_nothing_away(self) -> None:
        live = trial(1, "running", attempts=(Attempt(1, started=100.0),))
        assert spent(study(live), 50.0).seconds == 0.0


class TestAhead:
    def test_nothing_is_known_of_time_before_any_has_run(self) -> None:
        left = ahead(study(trial(1, "queued"), trial(2, "queued")))
        assert (left.probes, left.seconds) == (2.0, None)

    def test_time_follows_from_what_trials_took(self) -> None:
        state = study(trial(1, "completed", 100, 60.0), trial(2, "running", 50), trial(3, "queued"))
        assert ahead(state).probes == pytest.approx(1.5)
        assert ahead(state).seconds == pytest.approx(90.0)

    def test_early_stopping_is_expected(self) -> None:
        state = study(
            trial(1, "rung", 10, 6.0, until=0.1),
            *(trial(n, "queued", until=0.1) for n in range(2, 11)),
        )
        left = ahead(state, expected_share=0.25)
        assert left.probes == pytest.approx(10 * 0.25 - 0.1)
        assert left.seconds == pytest.approx(60 * 2.4)

    def test_what_runs_costs_at_least_what_it_is_sent_to(self) -> None:
        state = study(trial(1, "completed", 100, 60.0), trial(2, "running", 30, until=0.9))
        assert ahead(state, expected_share=0.1).probes == pytest.approx(0.6)

    def test_trials_that_are_to_come_and_second_runs_count(self) -> None:
        state = study(trial(1, "completed", 100, 60.0), strategy="bayesian", planned=4)
        assert ahead(state, confirm=2).probes == pytest.approx(5.0)

    def test_a_finished_search_costs_nothing_more(self) -> None:
        state = study(trial(1, "completed", 100, 60.0), trial(2, "pruned", 10, 6.0))
        assert ahead(state).probes == 0.0

    def test_a_second_run_that_is_under_way_is_not_counted_twice(self) -> None:
        state = study(
            trial(1, "completed", 100, 60.0),
            trial(2, "running", 40, source="confirm", parent=1),
        )
        assert ahead(state, confirm=1).probes == pytest.approx(0.6)


def test_a_probe_takes_what_the_trials_took_for_their_shares() -> None:
    state = study(trial(1, "pruned", 10, 8.0), trial(2, "completed", 100, 58.0))
    assert probe_seconds(state) == pytest.approx(60.0)
    assert probe_seconds(study(trial(1, "queued"))) is None
