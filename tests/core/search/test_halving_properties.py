"""What holds for any course that a search can take: random curves, failures, pauses and late comers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.search.halving import (
    Decision,
    Entrant,
    EntrantState,
    HalvingSettings,
    decide,
    decide_asha,
    first_look,
    first_until,
    rungs,
)

Rule = Callable[[HalvingSettings, Sequence[Entrant], int], Decision | None]


@dataclass(frozen=True)
class Plan:
    """What happens to a trial: values at the first look, each rung and the end; None: it fails on the way there."""

    values: tuple[float | None, ...]
    rate: float | None
    late: bool
    """Added by a person when the search seems to be over."""
    paused: bool
    """Paused by a person once, and resumed when the search seems to be over."""


@dataclass
class Course:
    """A trial on its way through a search."""

    number: int
    plan: Plan
    until: float
    state: EntrantState = "open"
    curve: list[tuple[float, float]] = field(default_factory=list)
    failed: bool = False

    def entrant(self) -> Entrant:
        return Entrant(self.number, self.until, self.state, tuple(self.curve), self.plan.rate)

    def advance(self, places: Sequence[float]) -> None:
        for place, value in zip(places, self.plan.values, strict=True):
            if place > self.until:
                break
            if self.curve and place <= self.curve[-1][0]:
                continue
            if value is None:
                self.state, self.failed = "out", True
                return
            self.curve.append((place, value))
        self.state = "done" if self.until == 1.0 else "rung"


@dataclass
class Search:
    """Drives a rule until nothing is left to run or to decide."""

    rule: Rule
    knobs: HalvingSettings
    courses: list[Course]
    decisions: list[Decision] = field(default_factory=list)

    def run(self, pick: Callable[[int], int]) -> None:
        places = (first_look(self.knobs), *rungs(self.knobs), 1.0)
        here = [c for c in self.courses if not c.plan.late]
        pausing = [c for c in self.courses if c.plan.paused]
        while True:
            running = [c for c in here if c.state == "open"]
            if running:
                course = running[pick(len(running))]
                if course in pausing and course.state == "open":
                    pausing.remove(course)
                    course.state = "out"
                else:
                    course.advance(places)
            decision = self.rule(self.knobs, [c.entrant() for c in here], 0)
            if decision is not None:
                self.apply(decision)
            elif not any(c.state == "open" for c in here):
                assert not any(c.state == "rung" for c in here), "trials wait for nothing"
                resumed = [c for c in here if c.state == "out" and not c.failed]
                added = [c for c in self.courses if c not in here]
                if not resumed and not added:
                    return
                for course in resumed:
                    course.state = "open"
                here += added

    def apply(self, decision: Decision) -> None:
        assert decision.kept or decision.dropped
        self.decisions.append(decision)
        for number, until in decision.kept.items():
            course = self.courses[number]
            assert course.state in ("rung", "pruned")
            assert until > course.until, "a trial is only ever sent further"
            course.state, course.until = "open", until
        for number, reason in decision.dropped.items():
            course = self.courses[number]
            assert course.state == "rung"
            assert reason
            course.state = "pruned"


KNOBS = st.builds(
    HalvingSettings,
    first_rung=st.sampled_from([0.02, 0.06, 0.1, 0.4, 0.75, 0.9]),
    reduction=st.sampled_from([1.1, 2.0, 3.0, 10.0]),
    finalists=st.integers(1, 4),
    pace=st.sampled_from([0.0, 0.25, 1.0]),
)


@st.composite
def searches(draw: st.DrawFn, rule: Rule) -> Search:
    knobs = draw(KNOBS)
    value = st.floats(0, 5) | st.sampled_from([1.0, 2.0])
    values = st.tuples(
        *[value | st.none() if draw(st.booleans()) else value] * (len(rungs(knobs)) + 2)
    )
    plan = st.builds(
        Plan, values, st.none() | st.sampled_from([1e-5, 1e-4, 1e-3]), st.booleans(), st.booleans()
    )
    plans = draw(st.lists(plan, min_size=1, max_size=12))
    return Search(rule, knobs, [Course(n, p, first_until(knobs)) for n, p in enumerate(plans)])


@pytest.mark.parametrize("rule", [decide, decide_asha])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_search_comes_to_its_end_with_its_finalists(rule: Rule, data: st.DataObject) -> None:
    search = data.draw(searches(rule))
    search.run(lambda count: data.draw(st.integers(0, count - 1)))
    survivors = sum(None not in c.plan.values for c in search.courses)
    finished = sum(c.state == "done" for c in search.courses)
    assert finished >= min(search.knobs.finalists, survivors)


@pytest.mark.parametrize("rule", [decide, decide_asha])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_decision_follows_from_the_trials_alone(rule: Rule, data: st.DataObject) -> None:
    search = data.draw(searches(rule))

    def twice(
        knobs: HalvingSettings, entrants: Sequence[Entrant], expected: int
    ) -> Decision | None:
        shuffled = data.draw(st.permutations(entrants))
        found = rule(knobs, entrants, expected)
        assert rule(knobs, shuffled, expected) == found
        return found

    Search(twice, search.knobs, search.courses).run(
        lambda count: data.draw(st.integers(0, count - 1))
    )


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(0, 5), min_size=3, max_size=30, unique=True),
    knobs=KNOBS,
)
def test_those_that_go_on_hold_the_best_of_the_rung(
    values: list[float], knobs: HalvingSettings
) -> None:
    at = first_until(knobs)
    field_ = [Entrant(n, at, "rung", ((at / 3, 5.0), (at, v))) for n, v in enumerate(values)]
    found = decide(knobs, field_, 0)
    assert found is not None
    assert set(found.kept) | set(found.dropped) == set(range(len(values)))
    leading = max(knobs.finalists, int(len(values) / knobs.reduction))
    assert {values.index(v) for v in sorted(values)[:leading]} <= set(found.kept)
