"""A run's points, thinned to at most a hundred or so stretches of equal length, and what signs are measured by.

The stretches are fixed by the run's planned length, not by how many points there are: as points are added, the earlier
stretches stay as they are, and so does what was concluded from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.search.metric import Logged
from core.search.smoothing import jitter

MOST_STRETCHES = 100

_OF_ROUNDS = ("reward", "kl")
"""What stage ppo measures once a round, and logs with each of its updates."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some consecutive updates: the last of them, and the means of what was logged."""

    step: int
    loss: float
    """Mean training loss, nats; infinite where one of them was not finite."""
    grad_norm: float | None
    """The largest; None where none was logged."""
    rate: float | None
    """The last learning rate."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A run up to some moment."""

    stretches: tuple[Stretch, ...]
    evals: tuple[tuple[int, float], ...]
    """(update, evaluation loss), finite."""
    warm: int
    """Index of the first stretch after the warm-up; the number of stretches where it is not over."""
    total_steps: int
    """Updates planned; 0 where that is not known."""
    bad: int | None
    """The first update with a loss that is not finite."""
    measures: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    """What the stage logs besides, by name: (update, value), finite. In stage ppo the updates of a round log the same,
    which counts once."""

    @property
    def step(self) -> int:
        return self.stretches[-1].step if self.stretches else 0

    @property
    def done(self) -> float:
        """The share of the planned updates; 0 where that is not known."""
        return self.step / self.total_steps if self.total_steps else 0.0

    @property
    def losses(self) -> tuple[float, ...]:
        return tuple(s.loss for s in self.stretches)

    def until(self, count: int) -> Curve:
        """The curve as it was after `count` stretches."""
        kept = self.stretches[:count]
        last = kept[-1].step if kept else 0
        evals = tuple(e for e in self.evals if e[0] <= last)
        bad = self.bad if self.bad is not None and self.bad <= last else None
        measures = {
            name: tuple(v for v in values if v[0] <= last) for name, values in self.measures.items()
        }
        return Curve(kept, evals, min(self.warm, count), self.total_steps, bad, measures)

    def measured(self, name: str) -> tuple[float, ...]:
        """The values of a measure, in order; none where it is not logged."""
        return tuple(value for _, value in self.measures.get(name, ()))


def make_curve(
    points: Sequence[Logged], total_steps: int, warmup_steps: int | None, *, ended: bool
) -> Curve:
    """The curve of a run; its last stretch is left out until it is whole, unless the run has `ended`."""
    logs = [p for p in points if p.loss is not None]
    last = logs[-1].step if logs else 0
    width = _width(total_steps, last)
    heaps: list[list[Logged]] = []
    at = -1
    for point in logs:
        place = (point.step - 1) // width
        if place != at:
            heaps.append([])
            at = place
        heaps[-1].append(point)
    if heaps and not ended and last < (at + 1) * width:
        heaps.pop()
    stretches = tuple(_stretch(heap) for heap in heaps)
    evals = tuple(
        (p.step, p.eval_loss)
        for p in points
        if p.eval_loss is not None and math.isfinite(p.eval_loss)
    )
    return Curve(
        stretches,
        evals,
        _warm(stretches, warmup_steps),
        total_steps,
        _bad(points),
        _measures(points),
    )


def mean(values: Iterable[float]) -> float:
    """The mean of at least one value."""
    kept = list(values)
    return math.fsum(kept) / len(kept)


def noise(values: Sequence[float]) -> float:
    """Standard deviation of single values around their trend; of too few to tell, half their span."""
    found = jitter(values)
    if found is None:
        return (max(values) - min(values)) / 2 if values else 0.0
    return found


def shakes(values: Sequence[float]) -> list[float]:
    """How far each of at least three positive values lies from the middle of its neighbours, as a share of its height
    and in standard deviations of single values: a straight rise or fall counts nothing."""
    logs = [math.log(v) for v in values]
    triples = zip(logs, logs[1:], logs[2:], strict=False)
    return [abs(b - (a + c) / 2) / math.sqrt(1.5) for a, b, c in triples]


def window_means(values: Sequence[float], size: int) -> list[float]:
    """The mean of each `size` consecutive values."""
    total = math.fsum(values[:size])
    means = [total / size]
    for old, new in zip(values, values[size:], strict=False):
        total += new - old
        means.append(total / size)
    return means


def _width(total_steps: int, last: int) -> int:
    """Updates of a stretch. Where the end is not known a power of two, so that it changes seldom."""
    if total_steps:
        return max(1, math.ceil(total_steps / MOST_STRETCHES))
    return 1 << max(0, (last - 1) // MOST_STRETCHES).bit_length()


def _stretch(heap: Sequence[Logged]) -> Stretch:
    losses = [p.loss for p in heap if p.loss is not None]
    norms = [p.grad_norm for p in heap if p.grad_norm is not None]
    whole = all(math.isfinite(v) for v in losses)
    return Stretch(
        heap[-1].step, mean(losses) if whole else math.inf, max(norms, default=None), heap[-1].lr
    )


def _warm(stretches: Sequence[Stretch], warmup_steps: int | None) -> int:
    if warmup_steps is not None:
        return next((i for i, s in enumerate(stretches) if s.step > warmup_steps), len(stretches))
    rates = [s.rate or 0.0 for s in stretches]
    top = max(rates, default=0.0)
    return next((i for i, rate in enumerate(rates) if rate >= 0.999 * top), 0)


def _measures(points: Sequence[Logged]) -> dict[str, tuple[tuple[int, float], ...]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        for name, value in (point.more or {}).items():
            own = found.setdefault(name, [])
            again = name in _OF_ROUNDS and own and own[-1][1] == value
            if math.isfinite(value) and not again:
                own.append((point.step, value))
    return {name: tuple(values) for name, values in found.items()}


def _bad(points: Sequence[Logged]) -> int | None:
    bad = (p.step for p in points if p.loss is not None and not math.isfinite(p.loss))
    return next(bad, None)
