"""Whether the best trial lies at the edge of the search space, so that something better may lie beyond it.

The space is read as a profile's file has it, so that a dashboard can ask without the catalogue of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.values import Scalar, number


@dataclass(frozen=True, slots=True)
class Axis:
    """One searched parameter whose values have an order: a range, or a list of numbers."""

    name: str
    low: float
    high: float
    log: bool
    values: tuple[float, ...] | None
    """All values of a list in order; None for a range."""

    @property
    def whole(self) -> bool:
        """Whether it is written in whole numbers from 1 on, as ranks and batches are."""
        return self.low >= 1 and all(v.is_integer() for v in self.values or (self.low, self.high))


@dataclass(frozen=True, slots=True)
class Judged:
    """A trial with its settings and its `value`, of which the lower is better; None where it has none.

    `best`: it is the winner or as good as the winner (a tie).
    """

    trial: int
    settings: Mapping[str, Scalar]
    value: float | None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """The best trial has the lowest or highest value of `name` that was tried, and nothing as good lies further in."""

    name: str
    side: Literal["low", "high"]
    trial: int
    value: float
    widen_to: float
    """A value further out to try."""
    text: str


def ordered_axes(space: Mapping[str, object]) -> tuple[Axis, ...]:
    """The parameters of a space that have an order; choices without one are left out, as is what cannot be read.

    An entry is a list of values, or a range: a mapping or an object with `low`, `high` and maybe `scale`.
    """
    found = (_axis(name, entry) for name, entry in space.items())
    return tuple(axis for axis in found if axis is not None)


def find_edges(space: Mapping[str, object], trials: Sequence[Judged]) -> tuple[Edge, ...]:
    """The edges at which the best trials lie; `trials` are all that were tried, those that diverged too. Of the best
    the first is named.

    Silent about a parameter of which fewer than two values were tried, where a trial that is as good lies further in,
    and where a trial further out diverged or did worse: then the edge of the space is not where the good values end.
    """
    best = [t for t in trials if t.best and t.value is not None]
    if not best:
        return ()
    edges = (_edge(axis, best, trials) for axis in ordered_axes(space))
    return tuple(edge for edge in edges if edge is not None)


def numeric(value: object) -> float | None:
    """A setting as a number; None for text and switches."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def further(axis: Axis, side: Literal["low", "high"], value: float) -> float | None:
    """A value beyond `value` to try: three times as far for rates and other log ranges, the next of a row of values,
    half a range more for linear ones; of whole numbers never below half of it. None where nothing lies beyond (below
    zero, below a whole number of 1, above a share of one), or where the axis itself goes as far."""
    up = side == "high"
    if axis.values is not None:
        beyond = _continued(axis.values if up else axis.values[::-1])
    elif axis.log:
        beyond = nice(value * 3 if up else value / 3)
    else:
        step = (axis.high - axis.low) / 2
        beyond = float(f"{value + step if up else value - step:.6g}")
    if axis.whole:
        beyond = float(round(beyond) if up else math.floor(max(beyond, value / 2)))
        if beyond < 1:
            return None
    beyond = max(0.0, beyond)
    share = axis.low >= 0 and axis.high <= 1 and beyond >= 1
    inside = beyond <= axis.high * (1 + 1e-9) if up else beyond >= axis.low * (1 - 1e-9)
    return None if share or inside else beyond


def nice(value: float) -> float:
    """The nearest of 1, 2, 3, 5 times a power of ten, as people write rates."""
    if value <= 0:
        return value
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1.0, 2.0, 3.0, 5.0, 10.0)
    step = min(steps, key=lambda s: abs(math.log(value / (s * power))))
    return float(f"{step * power:.0e}")


def _axis(name: str, entry: object) -> Axis | None:
    if isinstance(entry, list | tuple):
        values = [numeric(v) for v in entry]
        known = sorted({v for v in values if v is not None})
        if len(known) < 2 or any(v is None for v in values):
            return None
        return Axis(
            name, known[0], known[-1], known[0] > 0 and known[-1] >= 8 * known[0], tuple(known)
        )
    low, high = numeric(_field(entry, "low")), numeric(_field(entry, "high"))
    if low is None or high is None or low >= high:
        return None
    return Axis(name, low, high, _field(entry, "scale") == "log" and low > 0, None)


def _field(entry: object, name: str) -> object:
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)


def _edge(axis: Axis, best: Sequence[Judged], trials: Sequence[Judged]) -> Edge | None:
    tried = {t.trial: numeric(t.settings.get(axis.name)) for t in trials}
    values = sorted({v for v in tried.values() if v is not None})
    at = [(t, v) for t in best if (v := tried.get(t.trial)) is not None]
    if len(values) < 2 or len(at) < len(best):
        return None
    for side, outermost in (("high", values[-1]), ("low", values[0])):
        if any(v != outermost for _, v in at) or not _outside(axis, side, outermost):
            continue
        return _make(axis, "high" if side == "high" else "low", at[0][0], outermost, trials)
    return None


def _outside(axis: Axis, side: str, value: float) -> bool:
    """Whether `value` is in the outer quarter of the axis, of a list at its end: the end of what was tried may be far
    from the space's."""
    if axis.values is not None:
        return value == (axis.high if side == "high" else axis.low)
    low, high, at = axis.low, axis.high, value
    if axis.log:
        if value <= 0:
            return False
        low, high, at = math.log(low), math.log(high), math.log(value)
    share = (at - low) / (high - low)
    return share >= 0.75 if side == "high" else share <= 0.25


def _make(
    axis: Axis,
    side: Literal["low", "high"],
    winner: Judged,
    value: float,
    trials: Sequence[Judged],
) -> Edge | None:
    beyond = further(axis, side, value)
    if beyond is None or winner.value is None:
        return None
    inner = [
        (t.value, v)
        for t in trials
        if t.value is not None
        and (v := numeric(t.settings.get(axis.name))) is not None
        and v != value
    ]
    if not inner:
        return None
    worse, nearest = min(inner)
    where = "highest" if side == "high" else "lowest"
    text = (
        f"the best, trial {winner.trial}, has the {where} {axis.name} tried ({number(value)}); the best of all others, "
        f"with {number(nearest)}, is {number(float(f'{worse - winner.value:.3g}'))} worse: widen to {number(beyond)}?"
    )
    return Edge(axis.name, side, winner.trial, value, beyond, text)


def _continued(values: Sequence[float]) -> float:
    """The next number of a row: of equal ratios (8, 16, 32), else of equal steps."""
    last, before = values[-1], values[-2]
    if before > 0 and last > 0:
        ratio = last / before
        even = len(values) < 3 or (values[-3] > 0 and abs(before / values[-3] / ratio - 1) < 0.2)
        if even and (ratio >= 1.5 or ratio <= 1 / 1.5):
            return last * ratio if all(v.is_integer() for v in values) else nice(last * ratio)
    return float(f"{last + (last - before):.12g}")
