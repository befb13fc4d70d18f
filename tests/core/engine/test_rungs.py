from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from core.engine import rungs
from core.engine.rungs import Curve, decide_rungs, rung_curve
from core.search.halving import Decision, Entrant, HalvingSettings
from core.search.halving import rungs as rung_shares
from core.study.events import RungDecided
from core.study.metrics import Point
from core.study.state import RungResult, StudyState, Trial, TrialStatus, apply

SETTINGS = HalvingSettings(first_rung=0.1, reduction=3.0, finalists=2)
SECOND = rung_shares(SETTINGS)[1]


def study(*statuses: TrialStatus, until: float = 0.1, **more: Any) -> StudyState:
    trials = {
        n: Trial(n, {"learning_rate": n * 1e-4}, status=s, until=until)
        for n, s in enumerate(statuses, 1)
    }
    state = StudyState(created=1.0, stopping="halving", trials=trials)
    for name, value in more.items():
        setattr(state, name, value)
    return state


def decide(state: StudyState, values: Mapping[int, float] | None = None) -> RungDecided | None:
    """With `values` at 10 % of the probe; by default the first trial is the best."""

    def curve(trial: Trial) -> Curve:
        value = (values or {}).get(trial.number, float(trial.number))
        return ((0.1, value),) if trial.status != "queued" else ()

    return decide_rungs(state, replace(SETTINGS, negated=state.direction == "max"), curve, 9.0)


class TestEquals:
    """Two of four go on, and all have the same share of rows right."""

    def decided(self, betas: tuple[float, ...], **more: Any) -> RungDecided:
        state = study(*["rung"] * 4, rank_by="eval_reward_accuracy", direction="max", **more)
        for n, beta in enumerate(betas, 1):
            trial = state.trials[n]
            settings = {**trial.settings, "pref_beta": beta}
            state.trials[n] = msgspec.structs.replace(trial, settings=settings)
        event = decide_rungs(
            state,
            replace(SETTINGS, negated=True),
            lambda trial: ((0.1, -0.6),),
            9.0,
            lambda trial: ((0.1, 1.0 - trial.number / 10),),
        )
        assert event is not None
        return event

    def test_the_lower_evaluation_loss_goes_on(self) -> None:
        event = self.decided((0.1,) * 4)
        assert set(event.kept) == {3, 4}
        assert event.dropped[1] == "equal to the cut of 0.600 at 10 %, which lower losses passed"

    def test_losses_of_another_beta_are_no_measure_of_each_other(self) -> None:
        event = self.decided((0.1, 0.1, 0.3, 0.3))
        assert set(event.kept) == {1, 2}
        assert event.dropped[3] == "equal to the cut of 0.600 at 10 %, which lower rates passed"

    def test_where_a_smaller_share_is_asked_for_the_loss_says_nothing_as_in_the_ranking(
        self,
    ) -> None:
        state = study(*["rung"] * 4, rank_by="eval_reward_accuracy", direction="min")
        losses = lambda trial: ((0.1, 1.0 - trial.number / 10),)  # noqa: E731
        event = decide_rungs(state, SETTINGS, lambda trial: ((0.1, 0.6),), 9.0, losses)
        assert event is not None and set(event.kept) == {1, 2}


class TestDecision:
    def test_it_is_made_when_all_are_there(self) -> None:
        event = decide(study(*["rung"] * 9))
        assert event is not None
        assert (event.t, event.rung, event.at) == (9.0, 1, 0.1)
        assert event.kept == {1: SECOND, 2: SECOND, 3: SECOND}
        assert sorted(event.dropped) == [4, 5, 6, 7, 8, 9]
        assert all(event.dropped.values())
        assert event.text

    def test_those_of_whom_none_will_be_dropped_run_to_their_end(self) -> None:
        event = decide(study(*["rung"] * 6))
        assert event is not None
        assert event.kept == {1: 1.0, 2: 1.0}
        assert event.text.endswith("no more are dropped")
        more = study(*["rung"] * 6, "completed")
        more.trials[7] = msgspec.structs.replace(more.trials[7], until=1.0)
        event = decide(more)
        assert event is not None
        assert set(event.kept.values()) == {SECOND}

    @pytest.mark.parametrize(
        "status", ["queued", "starting", "running", "pausing", "stopping", "oom"]
    )
    def test_it_waits_for_whoever_is_on_the_way(self, status: TrialStatus) -> None:
        state = study(*["rung"] * 5, status)
        if status == "oom":
            state.trials[6] = msgspec.structs.replace(state.trials[6], advising="fix")
        assert decide(state) is None

    @pytest.mark.parametrize(
        "status", ["diverged", "oom", "failed", "stopped", "lost", "skipped", "paused"]
    )
    def test_it_waits_for_nobody_who_is_out(self, status: TrialStatus) -> None:
        event = decide(study(*["rung"] * 5, status))
        assert event is not None
        assert 6 not in event.kept
        assert 6 not in event.dropped

    def test_it_waits_for_those_that_are_still_to_be_proposed(self) -> None:
        state = study(*["rung"] * 6, strategy="bayesian", planned=7)
        assert decide(state) is None
        state.planned = 6
        assert decide(state) is not None

    def test_second_runs_and_full_trainings_are_not_compared(self) -> None:
        state = study(*["rung"] * 6, "running", "running")
        state.trials[7] = msgspec.structs.replace(state.trials[7], source="confirm", until=1.0)
        state.trials[8] = msgspec.structs.replace(state.trials[8], kind="full", until=1.0)
        event = decide(state)
        assert event is not None
        assert {*event.kept, *event.dropped} == {1, 2, 3, 4, 5, 6}

    def test_a_trial_that_a_person_added_is_compared(self) -> None:
        state = study(*["rung"] * 6)
        state.trials[6] = msgspec.structs.replace(state.trials[6], source="user")
        event = decide(state, {6: 0.0})
        assert event is not None
        assert 6 in event.kept

    def test_nothing_is_decided_where_nobody_waits_or_was_dropped(self) -> None:
        assert decide(study("completed", "completed", "queued")) is None

    def test_the_decision_is_carried_out_by_its_record(self) -> None:
        state = study(*["rung"] * 6)
        for number in state.trials:
            asked = msgspec.structs.replace(
                state.trials[number], asked="pause", asked_by="study", next_attempt=1
            )
            state.trials[number] = asked
        event = decide(state)
        assert event is not None
        apply(state, event)
        assert [t.status for t in state.trials.values()] == ["queued"] * 2 + ["pruned"] * 4
        assert (state.trials[1].until, state.trials[1].asked) == (1.0, None)
        assert state.trials[6].reason == event.dropped[6]
        assert decide(state) is None


class TestWithoutASearch:
    def test_what_waits_runs_to_its_end_when_the_search_was_stopped(self) -> None:
        event = decide(study("rung", "completed", search_on=False))
        assert event is not None
        assert event.kept == {1: 1.0}
        assert event.text == "the search is over: trial 1 runs to the end"

    def test_nobody_is_revived_then(self) -> None:
        assert decide(study("pruned", "diverged", search_on=False)) is None


class TestStuck:
    """Whatever the rule says, a search never waits for nobody."""

    @staticmethod
    def never(settings: object, entrants: list[Entrant], expected: int) -> Decision | None:
        return None

    @staticmethod
    def nonsense(settings: object, entrants: list[Entrant], expected: int) -> Decision | None:
        return Decision(1, 0.1, {2: 1.0, 99: 1.0}, {2: "no"}, "nothing that can be done")

    @pytest.mark.parametrize("rule", ["never", "nonsense"])
    def test_those_that_wait_go_on(self, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
        monkeypatch.setattr(rungs, "decide", getattr(self, rule))
        event = decide(study("rung", "completed", "rung"))
        assert event is not None
        assert event.kept == {1: 1.0, 3: 1.0}

    def test_not_while_anybody_is_on_the_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rungs, "decide", self.never)
        assert decide(study("rung", "running")) is None
        assert decide(study("rung", strategy="bayesian", planned=2)) is None


def test_asha_decides_while_others_are_on_the_way() -> None:
    state = study("rung", "rung", "rung", "running", stopping="asha")
    event = decide(state)
    assert event is not None
    assert event.kept == {1: SECOND}


class TestCurve:
    def points(self, *values: tuple[int, float]) -> list[Point]:
        return [Point(t=float(s), step=s, eval_loss=v) for s, v in values]

    def test_it_is_over_shares_of_the_probe(self) -> None:
        curve = rung_curve(self.points((10, 3.0), (20, 2.0)), "eval_loss", "min", 40, ())
        assert curve == ((0.25, 3.0), (0.5, 2.0))

    def test_what_was_measured_at_a_rung_counts_for_it(self) -> None:
        """Whole updates and the warm-up moved it; what was logged between is no later than it."""
        at = (RungResult(0.1, 8, 2.0),)
        points = self.points((2, 5.0), (6, 4.0), (8, 2.0), (20, 1.0))
        curve = rung_curve(points, "eval_loss", "min", 40, at)
        assert curve == ((0.05, 5.0), (0.1, 2.0), (0.5, 1.0))

    def test_a_metric_that_is_to_be_high_comes_negated(self) -> None:
        points = [Point(t=1.0, step=5, more={"eval_accuracy": 0.75})]
        assert rung_curve(points, "eval_accuracy", "max", 10, ()) == ((0.5, -0.75),)

    def test_without_a_known_length_there_is_none(self) -> None:
        assert rung_curve(self.points((1, 1.0)), "eval_loss", "min", 0, ()) == ()
