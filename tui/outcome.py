"""What a study found, as frozen values that the Results screen draws: places, pictures' coordinates, cost. Pure.

It is worked out in the reading thread and only while somebody looks at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.search.ranking import Ranked
from core.study.events import TrialKind
from core.study.state import Trial, TrialStatus
from tui.dimension import Dimension, dimensions
from tui.findings import NOTHING, Findings, examined

Kind = Literal["placed", "dropped", "open", "out"]
"""`placed`: it ran its whole probe. `dropped`: a rung ended it. `open`: it has come to a rung and goes on. `out`: it
ended without a value that counts."""
Direction = Literal["min", "max"]
PROBES: tuple[TrialKind, ...] = ("probe",)
_GROUPS: tuple[TrialStatus, ...] = ("diverged", "oom", "failed", "lost", "skipped", "stopped")
"""The order in which those without a place stand: what says most about the space first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a trial came out; values in the unit of the study's metric."""

    trial: int
    kind: Kind
    status: TrialStatus
    place: int | None = None
    """From 1, the best."""
    tied: bool = False
    as_good: bool = False
    """Whether it is the best or cannot be told apart from it."""
    value: float | None = None
    """The mean over its runs for a confirmed trial; for one that was dropped what it had come to at its last rung."""
    gap: float | None = None
    """How far the value lies from that of the first place; None where they cannot be compared."""
    runs: int = 1
    """How many runs the value is the mean of: 1 and its confirmations."""
    spread: float | None = None
    """The standard deviation over those runs; None for a single one."""
    share: float = 1.0
    """The share of the probe at which the value was measured."""
    reason: str = ""
    """Why it has no place."""
    rank: float | None = None
    """From 0, the best, to 1, the worst of those that have a value; None without one. For those that go on only where
    no other has a value."""
    at: tuple[float | None, ...] = ()
    """Where it lies on each of the outcome's dimensions, from 0 to 1; None where it has no such parameter."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the search took so far."""

    share: float | None
    """Of running all planned trials to the end of their probe; None before any trial has run."""
    seconds: float
    """Time that its trials ran, all together; a trial on several GPUs counts for each."""
    on_gpu: bool
    confirmations: int
    """How many of the trials ran only to confirm another."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the search found so far."""

    metric: str
    direction: Direction
    standings: tuple[Standing, ...] = ()
    """Best first; then those that were dropped, latest rung first; then those without a value, by how they ended."""
    open: tuple[Standing, ...] = ()
    """Trials that have come to a rung and are not done: the furthest first, then the better."""
    dimensions: tuple[Dimension, ...] = ()
    cost: Cost = Cost(None, 0.0, False, 0)
    findings: Findings = NOTHING

    @property
    def best(self) -> Standing | None:
        first = self.standings[0] if self.standings else None
        return first if first is not None and first.place == 1 else None

    @property
    def ties(self) -> int:
        """How many trials cannot be told apart from the best."""
        return max(0, sum(1 for s in self.standings if s.as_good) - 1)

    def count(self, *statuses: TrialStatus) -> int:
        """How many of the standings ended so."""
        return sum(1 for s in self.standings if s.status in statuses)


def outcome(
    trials: Sequence[Trial],
    ranked: Sequence[Ranked],
    *,
    metric: str,
    direction: Direction,
    planned: int,
    space: Mapping[str, Any],
    profile: Mapping[str, Any],
) -> Outcome:
    """The outcome of a study.

    `ranked` holds its probes best first, those without a place last; `planned` is how many trials
    the search runs at most; `space` and `profile` are raw values by parameter name.
    """
    # Only who looks at the results pays for it.
    from core.engine.judgement import ran_with

    by_number = {t.number: t for t in trials}
    probes = [t for t in trials if t.kind in PROBES and t.source != "confirm"]
    settings = {t.number: ran_with(t, space, profile) for t in probes}
    axes = dimensions(list(settings.values()), space)
    best = next((r.value for r in ranked if r.place == 1), None)
    found = [_standing(by_number[r.trial], r, best) for r in ranked if r.trial in by_number]
    found.sort(key=_order)
    waiting = [
        _open(t) for t in probes if not t.ended and t.rungs and t.rungs[-1].value is not None
    ]
    waiting.sort(key=lambda s: _goes_on(s, direction))
    # Where nobody has a place yet, those that wait are compared among themselves.
    ranks = _ranks(found) or _ranks(waiting)
    at = {
        n: tuple(axis.at(chosen.get(axis.name)) for axis in axes) for n, chosen in settings.items()
    }
    return Outcome(
        metric=metric,
        direction=direction,
        standings=tuple(_placed(s, ranks, at) for s in found),
        open=tuple(_placed(s, ranks, at) for s in waiting),
        dimensions=axes,
        cost=cost(trials, planned),
        findings=examined(trials, space, metric, direction, profile),
    )


def cost(trials: Sequence[Trial], planned: int) -> Cost:
    """What the probes of a study took, as a share of running all that were planned whole, and in time."""
    probes = [t for t in trials if t.kind in PROBES]
    confirming = sum(1 for t in probes if t.source == "confirm")
    ran = [t.step / t.total_steps for t in probes if t.total_steps > 0 and t.step > 0]
    whole = max(planned, len(probes) - confirming)
    return Cost(
        share=sum(min(1.0, share) for share in ran) / whole if ran and whole else None,
        seconds=sum(t.seconds * _gpus(t) for t in probes),
        on_gpu=any(t.attempt is not None and t.attempt.device == "cuda" for t in probes),
        confirmations=confirming,
    )


def _gpus(trial: Trial) -> int:
    return max(1, len(trial.attempt.gpus)) if trial.attempt is not None else 1


def _standing(trial: Trial, entry: Ranked, best: float | None) -> Standing:
    kind: Kind = "out"
    if entry.place is not None:
        kind = "placed"
    elif trial.status == "pruned":
        kind = "dropped"
    value = _finite(entry.value) if kind != "out" else None
    gap = None
    if kind == "placed" and entry.place != 1 and value is not None and best is not None:
        gap = value - best
    return Standing(
        trial.number,
        kind,
        trial.status,
        place=entry.place,
        tied=entry.tied,
        as_good=entry.group == 1,
        value=value,
        gap=gap,
        runs=entry.runs,
        spread=entry.spread,
        share=1.0 if entry.share is None else entry.share,
        reason=entry.reason or "",
    )


def _order(standing: Standing) -> int:
    """Sorts by kind alone, and those without a value by how they ended: the ranking's own order stays within."""
    kinds: tuple[Kind, ...] = ("placed", "dropped", "open", "out")
    known = standing.kind == "out" and standing.status in _GROUPS
    return kinds.index(standing.kind) * 10 + (_GROUPS.index(standing.status) if known else 0)


def _open(trial: Trial) -> Standing:
    last = trial.rungs[-1]
    return Standing(trial.number, "open", trial.status, value=_finite(last.value), share=last.at)


def _goes_on(standing: Standing, direction: Direction) -> tuple[float, float]:
    """Sorts those that are not done: who has come further first, then the better."""
    value = math.inf if standing.value is None else standing.value
    return -standing.share, value if direction == "min" else -value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _ranks(found: Sequence[Standing]) -> dict[int, float]:
    """By trial, how far down it stands, 0 … 1: in the order of the table, which a later rung leads."""
    valued = [s.trial for s in found if s.value is not None]
    last = max(1, len(valued) - 1)
    return {number: place / last for place, number in enumerate(valued)}


def _placed(
    standing: Standing, ranks: Mapping[int, float], at: Mapping[int, tuple[float | None, ...]]
) -> Standing:
    number = standing.trial
    return replace(standing, rank=ranks.get(number), at=at.get(number, ()))
