"""Reads a learning-rate range test: where the loss begins to fall, where it falls fastest, where it diverges.

The test (Smith 2015, arXiv 1506.01186, section 3.3; exponentially rising rates as fastai does it) trains a few dozen
updates, each at a higher rate than the last. It is a first look: the loss answers to all the rates before, and a short
run bears rates that a long one does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.search.smoothing import Ema, jitter
from core.values import number

FEWEST_POINTS = 20
"""With fewer, a slope is as good as a guess."""

SMOOTHED_DECADES = 0.5
"""The average looks back about this far, in powers of ten of the rate."""

SAFE_BELOW_DIVERGENCE = 4.0
"""The suggested range ends this far below the rate at which the loss was lost: twice the distance that is kept from
rates at which whole trials diverged (`core.doctor`), since the test is at each rate for an update or two only."""

SAFE_BELOW_LOWEST = 2.0
"""And this far below the rate of the lowest loss, where harm and progress are in balance already. (fastai suggests a
tenth of it as a rate to train with; a range may reach higher.)"""

START_BELOW_STEEPEST = 3.0
"""The suggested rate is this far below the one at which the loss falls fastest: the test lags behind its rates."""


@dataclass(frozen=True, slots=True)
class RangeReading:
    """What a range test says. Rates that it does not tell are None."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """The smoothed loss at each of `rates`, up to the divergence and a little beyond; finite."""
    steepest: float | None
    """The rate at which the loss fell fastest."""
    lowest: float | None
    """The rate at which the loss was lowest."""
    diverged_at: float | None
    """The lowest rate from which on the loss was lost; None where no rate was too high."""
    low: float | None
    """The suggested range: from where the loss begins to fall …"""
    high: float | None
    """… to a safe distance below the divergence."""
    start: float | None
    """A rate to begin with, in that range."""
    text: str
    """Two lines for people: what was seen, and what is suggested or why nothing is."""

    @property
    def useful(self) -> bool:
        """Whether a range is suggested."""
        return self.low is not None and self.high is not None


def read(points: Sequence[tuple[float, float]]) -> RangeReading:
    """Read a test's points (learning rate, training loss in nats), in the order in which they were logged.

    The loss may be NaN or infinite: that is where it diverged. Points of no positive rate are left out, as is what
    comes after the rate has stopped rising.
    """
    rising = _rising(points)
    if len(rising) < FEWEST_POINTS:
        return _nothing(rising, f"only {len(rising)} updates at rising rates were logged")
    finite = _until_bad(rising)
    if len(finite) < FEWEST_POINTS // 2:
        return _nothing(
            finite,
            f"the loss is lost at once, at {number(rising[len(finite)][0])}",
            "start at lower rates",
        )
    window = _window(rising)
    noise = _noise(finite)
    finite = _without_spikes(finite)
    lost = _lost(finite, window, noise)
    diverged_at = finite[lost][0] if lost is not None else None
    if diverged_at is None and len(finite) < len(rising):
        diverged_at = rising[len(finite)][0]
    kept = finite[:lost]
    if len(kept) < FEWEST_POINTS // 2:
        at = number(_rate(diverged_at or kept[-1][0]))
        return _nothing(
            finite, f"the loss rises almost at once, at {at}", "start at lower rates", diverged_at
        )
    return _judge(kept, _smooth(kept, window), window, noise, diverged_at)


def _judge(
    kept: Sequence[tuple[float, float]],
    smoothed: Sequence[float],
    window: float,
    noise: float,
    diverged_at: float | None,
) -> RangeReading:
    """The reading of the part before the divergence."""
    rates = [rate for rate, _ in kept]
    level = _level(kept, window)
    least = min(range(len(smoothed)), key=lambda i: smoothed[i])
    fall = level - smoothed[least]
    # An average of `window` values, compared with another one.
    error = noise * math.sqrt(2 / window)
    lost = "" if diverged_at is None else f", and is lost at {number(_rate(diverged_at))}"
    if fall <= max(4 * error, 0.005 * abs(level)):
        seen = f"the loss does not fall at any rate from {number(_rate(rates[0]))} to {number(_rate(rates[-1]))}{lost}"
        why = (
            f"its fall of {fall:.2g} is within its noise ({error:.2g})"
            if fall < 4 * error
            else f"it falls by {fall:.2g}"
        )
        hint = "larger batches or more updates would show more"
        return _nothing(kept, seen, f"{why}; {hint}", diverged_at, tuple(smoothed))
    begun = max(0.1 * fall, 2 * error)
    begins = max((i + 1 for i in range(least) if level - smoothed[i] < begun), default=0)
    steep = _steepest(rates, smoothed, (begins, least), window)
    high = rates[least] / SAFE_BELOW_LOWEST if least < len(rates) - 1 else rates[least]
    if diverged_at is not None:
        high = min(high, diverged_at / SAFE_BELOW_DIVERGENCE)
    # What the loss does at a rate shows a little later, at a higher one.
    low = min(rates[begins], rates[steep] / START_BELOW_STEEPEST, high / 3)
    start = min(high, max(low, rates[steep] / START_BELOW_STEEPEST))
    low, high, start = _rate(low), _rate(high), _rate(start)
    seen = (
        f"The loss falls from {number(_rate(rates[begins]))} on, fastest at {number(_rate(rates[steep]))} "
        f"({level:.2f} → {smoothed[least]:.2f} at {number(_rate(rates[least]))})"
    )
    ends = lost if diverged_at is not None else f"; it is not lost up to {number(_rate(rates[-1]))}"
    text = (
        f"{seen}{ends}.\nSuggested: {number(low)} to {number(high)}, starting with {number(start)}."
    )
    return RangeReading(
        tuple(rates),
        tuple(smoothed),
        rates[steep],
        rates[least],
        diverged_at,
        low,
        high,
        start,
        text,
    )


def _nothing(
    points: Sequence[tuple[float, float]],
    seen: str,
    hint: str = "a test of 100 updates shows more",
    diverged_at: float | None = None,
    smoothed: tuple[float, ...] | None = None,
) -> RangeReading:
    shown = tuple(rate for rate, _ in points)
    losses = tuple(loss for _, loss in points) if smoothed is None else smoothed
    finite = [(r, v) for r, v in zip(shown, losses, strict=True) if math.isfinite(v)]
    text = f"Nothing can be read: {seen}.\n{hint[:1].upper()}{hint[1:]}."
    return RangeReading(
        tuple(r for r, _ in finite), tuple(v for _, v in finite),
        None, None, diverged_at, None, None, None, text,
    )  # fmt: skip


def _rising(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for rate, loss in points:
        if rate > 0 and math.isfinite(rate) and (not kept or rate > kept[-1][0]):
            kept.append((rate, loss))
    return kept


def _until_bad(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points before the first loss that is not finite."""
    bad = next((i for i, (_, loss) in enumerate(points) if not math.isfinite(loss)), len(points))
    return list(points[:bad])


def _without_spikes(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The middle loss of each three neighbours: a lone bad batch is no divergence, and no level to fall from."""
    inner = zip(points, points[1:], points[2:], strict=False)
    middles = [(b[0], sorted((a[1], b[1], c[1]))[1]) for a, b, c in inner]
    return [points[0], *middles, points[-1]]


def _window(points: Sequence[tuple[float, float]]) -> float:
    """How many points the average is about as long as."""
    decades = math.log10(points[-1][0] / points[0][0])
    return min(len(points) / 6, max(5.0, SMOOTHED_DECADES * len(points) / max(decades, 0.1)))


def _noise(points: Sequence[tuple[float, float]]) -> float:
    """Standard deviation of single losses, of the first half: the end of a test is wild by itself."""
    half = [loss for _, loss in points[: max(5, len(points) // 2)]]
    return jitter(half) or 0.0


def _lost(points: Sequence[tuple[float, float]], window: float, noise: float) -> int | None:
    """Where the loss rises for good: the first point of the last rise, if the average ends clearly above its lowest.

    Above the level that it started from, or by half of what it had fallen, and by more than noise explains.
    """
    third = [loss for _, loss in points[3 : max(FEWEST_POINTS // 2, len(points) // 3)]]
    if min(third, default=0.0) > 1.3 * abs(points[0][1]):
        # Ruined by the first updates: what comes after may fall and says nothing.
        return 1
    ema = Ema(2 / (window + 1))
    averages = [ema.push(loss) for _, loss in points]
    settled = min(len(points) - 1, round(window))
    level = averages[settled]
    least = min(range(settled, len(points)), key=lambda i: averages[i])
    fallen = max(0.0, level - averages[least])
    margin = max(6 * noise / math.sqrt(window), 0.05 * abs(level), min(0.5 * fallen, 1.0))
    limit = averages[least] + margin
    if averages[-1] <= limit:
        return None
    after = len(points)
    while after > least + 1 and averages[after - 1] > limit:
        after -= 1
    # The average lags: the losses themselves rose up to a window earlier.
    first = max(least, after - round(window))
    return next((i for i in range(first, after) if points[i][1] > limit), after)


def _smooth(points: Sequence[tuple[float, float]], window: float) -> list[float]:
    """The average from both sides, so that it does not lag behind the rates."""
    alpha = 2 / (window + 1)
    ahead, back = Ema(alpha), Ema(alpha)
    forward = [ahead.push(loss) for _, loss in points]
    backward = [back.push(loss) for _, loss in reversed(points)][::-1]
    return [(a + b) / 2 for a, b in zip(forward, backward, strict=True)]


def _level(points: Sequence[tuple[float, float]], window: float) -> float:
    """The loss at the beginning, where rates are too low to change it."""
    first = [loss for _, loss in points[: max(3, round(window), len(points) // 10)]]
    return math.fsum(first) / len(first)


def _steepest(
    rates: Sequence[float], smoothed: Sequence[float], part: tuple[int, int], window: float
) -> int:
    """Where in `part` the smoothed loss falls most per power of ten, over stretches of two windows."""
    half = max(1, round(window))
    best, steepest = part[0], math.inf
    for i in range(part[0], part[1] + 1):
        first, last = max(0, i - half), min(len(rates) - 1, i + half)
        slope = (smoothed[last] - smoothed[first]) / math.log10(rates[last] / rates[first])
        if slope < steepest:
            best, steepest = i, slope
    return best


def _rate(rate: float) -> float:
    """A rate as people write it, to two digits."""
    return float(f"{rate:.1e}")
