"""What a loss curve shows, in words and numbers, and what to do; and the same of a whole study.

The doctor is calm. It says nothing of a healthy run, one thing of any other, and does not take back what it said when a
few more points come: a sign must show at several moments before it is told, and be gone for longer before it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from core.diagnosis.curve import Curve, make_curve
from core.diagnosis.finding import Finding, Kind, RunFacts, Severity
from core.diagnosis.signs import HOLD, SIGNS
from core.diagnosis.study import Examination, NextStep, RateBand, TrialFacts, examine
from core.search.metric import Logged

__all__ = [
    "Examination", "Finding", "Kind", "NextStep", "RateBand", "RunFacts", "Severity", "TrialFacts",
    "diagnose", "examine",
]  # fmt: skip

PATIENCE = 3
"""Moments in a row at which a sign must show before it is told; what is broken for good is told at once."""

FORGETTING = 8
"""Moments in a row without a sign before it is not told any more."""

_ORDER: tuple[Kind, ...] = tuple(SIGNS)
_BOLDER: frozenset[Kind] = frozenset({"chance", "too_slow", "plateau"})
"""What is answered with a higher rate, or with less care."""
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "advice")


def diagnose(points: Sequence[Logged], run: RunFacts) -> Finding | None:
    """What a run's points show, None while nothing is wrong or too little is known to say.

    A pure function of the points: it goes through the run's moments (at most a hundred, fixed by its planned length)
    from the first, so that with more points it says what it said before and goes on from there. A finding gives way
    only to a more serious one, or to none; after advice to be more careful it never advises to be bolder.
    """
    curve = make_curve(points, run.total_steps, run.warmup_steps, ended=run.ended)
    running = replace(run, diverged="")
    state = _State()
    for count in range(1, len(curve.stretches) + 1):
        state = _step(state, curve.until(count), running)
    held = state.held
    if run.diverged and (held is None or held.kind != "not_learning"):
        return SIGNS["not_learning"](curve, run, 1.0) or SIGNS["diverging"](curve, run, 1.0)
    return held


@dataclass(frozen=True, slots=True)
class _State:
    """What the doctor thinks at a moment."""

    held: Finding | None = None
    gone: int = 0
    """Moments in a row at which the held sign did not show."""
    shown: Mapping[Kind, int] = field(default_factory=dict)
    """For each sign the moments in a row at which it showed."""
    careful: bool = False
    """Whether it has advised to be more careful."""


def _step(state: _State, curve: Curve, run: RunFacts) -> _State:
    """What it thinks a moment later, `curve` being all up to then."""
    held, gone = state.held, 0
    if held is not None:
        again = SIGNS[held.kind](curve, run, HOLD)
        gone = 0 if again is not None else state.gone + 1
        if again is not None:
            held = replace(again, step=held.step, severity=_worse(held, again))
        elif gone >= FORGETTING:
            held = None
    shown: dict[Kind, int] = {}
    for kind in _ORDER:
        if held is not None and _ORDER.index(kind) >= _ORDER.index(held.kind):
            break
        finding = None if state.careful and kind in _BOLDER else SIGNS[kind](curve, run, 1.0)
        if finding is None:
            continue
        shown[kind] = state.shown.get(kind, 0) + 1
        if finding.severity == "error" or shown[kind] >= PATIENCE:
            held, gone = finding, 0
            break
    careful = state.careful or (held is not None and held.kind not in _BOLDER)
    return _State(held, gone, shown, careful)


def _worse(one: Finding, other: Finding) -> Severity:
    return min(one.severity, other.severity, key=_SEVERITIES.index)
