"""The one way in which losses are smoothed: an exponential moving average without start-up bias."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

ALPHA = 0.2
"""Weight of the newest value. The average then carries a third of the noise of single values
(standard deviation × sqrt(alpha / (2 - alpha))) and forgets a value within ten or so logs, which
suits trials that log some tens of times."""


class Ema:
    """An exponential moving average that is fed one value at a time.

    Its sum of weights starts below 1, and dividing by it removes the pull towards zero that the
    plain recursion has at first (as Adam does; Kingma and Ba, arXiv 1412.6980, section 3).
    """

    def __init__(self, alpha: float = ALPHA) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, not {alpha}")
        self._alpha = alpha
        self._sum = 0.0
        self._remaining = 1.0

    def push(self, value: float) -> float:
        """Add a finite value; returns the average now."""
        self._sum += self._alpha * (value - self._sum)
        self._remaining *= 1 - self._alpha
        return self._sum / (1 - self._remaining)

    @property
    def value(self) -> float | None:
        """The average now, None before the first value."""
        return None if self._remaining == 1 else self._sum / (1 - self._remaining)

    @property
    def variance_factor(self) -> float:
        """Variance of the average relative to that of one independent value (1 at the first)."""
        if self._remaining == 1:
            return 1.0
        alpha = self._alpha
        return alpha / (2 - alpha) * (1 + self._remaining) / (1 - self._remaining)


def smooth(values: Iterable[float | None], alpha: float = ALPHA) -> list[float]:
    """The average after each value, in order; missing values (None) are left out.

    A value that is not finite appears as itself in its place and does not enter the average, so
    that the run's trouble is seen where it happened and what follows stays readable.
    """
    ema = Ema(alpha)
    present = (value for value in values if value is not None)
    return [ema.push(value) if math.isfinite(value) else value for value in present]


JITTER_PER_SIGMA = 1 / math.sqrt(math.pi)
"""Mean distance of the middle one of three normal values from their median, in standard deviations: it is their extreme
in two of three cases, and 3 / (2 sqrt(pi)) away then."""


def jitter(values: Sequence[float]) -> float | None:
    """Standard deviation of single values around their trend; None of fewer than five.

    Only what goes up and comes back, or the other way round, counts: a steady rise or fall is none of it.
    """
    if len(values) < 5:
        return None
    triples = zip(values, values[1:], values[2:], strict=False)
    moves = [abs(b - sorted((a, b, c))[1]) for a, b, c in triples]
    return math.fsum(moves) / len(moves) / JITTER_PER_SIGMA
