from typing import Any

import msgspec
import pytest

from core.engine.costs import probe_seconds, still_to_start
from core.study.state import RungResult, Trial, TrialStatus


def trial(
    number: int, status: TrialStatus, step: int = 0, seconds: float = 0.0, **more: Any
) -> Trial:
    made = Trial(
        number, {}, status=status, step=step, total_steps=100 if step else 0, seconds=seconds
    )
    return msgspec.structs.replace(made, **more)


class TestStillToStart:
    def test_all_that_wait_run_whole_where_nothing_is_stopped_early(self) -> None:
        trials = [trial(1, "completed", 100), trial(2, "running", 50), trial(3, "queued")]
        assert still_to_start(trials, to_come=0) == 1.0

    def test_what_broke_down_takes_nothing_more(self) -> None:
        trials = [trial(1, "diverged", 40), trial(2, "oom"), trial(3, "queued")]
        assert still_to_start(trials, to_come=0) == 1.0

    def test_early_stopping_is_expected(self) -> None:
        waiting = [trial(n, "queued", until=0.1) for n in range(3, 11)]
        trials = [trial(1, "rung", 10, until=0.1), trial(2, "running", until=0.1), *waiting]
        left = still_to_start(trials, to_come=0, expected_share=0.25)
        assert left == pytest.approx(10 * 0.25 - 0.1 - 0.1)

    def test_what_waits_for_a_place_costs_at_least_what_it_is_sent_to(self) -> None:
        trials = [trial(1, "completed", 100), trial(2, "queued", 30, until=0.9)]
        assert still_to_start(trials, to_come=0, expected_share=0.1) == pytest.approx(0.6)

    def test_trials_that_are_to_come_and_second_runs_count(self) -> None:
        assert still_to_start([trial(1, "completed", 100)], to_come=3, confirm=2) == 5.0

    def test_a_finished_search_costs_nothing_more(self) -> None:
        assert still_to_start([trial(1, "completed", 100), trial(2, "pruned", 10)], to_come=0) == 0

    @pytest.mark.parametrize(("status", "left"), [("running", 0.0), ("queued", 1.0)])
    def test_a_second_run_that_is_there_is_not_counted_twice(
        self, status: TrialStatus, left: float
    ) -> None:
        trials = [trial(1, "completed", 100), trial(2, status, source="confirm", parent=1)]
        assert still_to_start(trials, to_come=0, confirm=1) == left

    def test_full_trainings_are_no_probes(self) -> None:
        trials = [trial(1, "completed", 100), trial(2, "queued", kind="full")]
        assert still_to_start(trials, to_come=0) == 0


def test_a_probe_takes_what_those_took_that_ended_or_came_to_a_rung_for_their_shares() -> None:
    pruned = trial(1, "pruned", 10, 8.0, rungs=(RungResult(0.1, 10, 2.0),))
    broken = trial(3, "oom", 1, 30.0)
    trials = [pruned, trial(2, "completed", 100, 58.0), broken]
    assert probe_seconds(trials) == pytest.approx(60.0)
    assert probe_seconds([trial(1, "queued"), broken]) is None
