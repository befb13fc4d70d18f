"""How much each searched parameter matters: the share of the trials' order that it explains by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.search.edges import numeric
from core.values import Scalar

FEWEST_TRIALS = 6
"""With fewer nothing is said: of five trials any parameter explains most of the order by chance."""

MOST_BINS = 4


@dataclass(frozen=True, slots=True)
class Importance:
    """What a parameter explains of the order of the trials, as a share in [0, 1].

    `share` is what is left when chance is taken away; None where the trials are too few, or do not differ in it.
    `clear`: it explains more than chance does in 39 of 40 cases.
    """

    name: str
    share: float | None
    clear: bool
    trials: int


def importances(
    trials: Sequence[tuple[Mapping[str, Scalar], float]], names: Sequence[str]
) -> tuple[Importance, ...]:
    """The importance of the parameters `names`, the largest first; `trials` are settings with values, lower is better.

    The values are replaced by their ranks, so that a diverged trial (give it infinity) counts as the worst and not as a
    million times worse. A parameter's trials are put into groups (its values, or up to four stretches of equally many
    trials for numbers of more values); the share is that of the variance of ranks between groups, as in Kruskal and
    Wallis (JASA 47, 1952). Shuffled ranks would give (k - 1) / (n - 1) for k groups of n trials on average, with a
    spread that Pitman found (Biometrika 29, 1938: a beta distribution); the first is taken away, and what is not two
    such spreads above it is not clear. It says what a parameter does alone: of two that only matter together both come
    out low.
    """
    ranks = _ranks([value for _, value in trials])
    found = [_importance(name, [settings for settings, _ in trials], ranks) for name in names]
    return tuple(sorted(found, key=lambda i: (i.share is None, -(i.share or 0.0), i.name)))


def _importance(
    name: str, settings: Sequence[Mapping[str, Scalar]], ranks: Sequence[float]
) -> Importance:
    pairs = [(s[name], rank) for s, rank in zip(settings, ranks, strict=True) if name in s]
    groups = _groups(pairs)
    n, k = len(pairs), len(groups)
    if n < FEWEST_TRIALS or k < 2 or n - k < 2:
        return Importance(name, None, False, n)
    mean = math.fsum(rank for _, rank in pairs) / n
    total = math.fsum((rank - mean) ** 2 for _, rank in pairs)
    if total == 0:
        return Importance(name, None, False, n)
    between = math.fsum(len(g) * (math.fsum(g) / len(g) - mean) ** 2 for g in groups) / total
    chance = (k - 1) / (n - 1)
    spread = math.sqrt(2 * (k - 1) * (n - k) / ((n - 1) ** 2 * (n + 1)))
    share = max(0.0, (between - chance) / (1 - chance))
    return Importance(name, min(1.0, share), between > chance + 2 * spread, n)


def _groups(pairs: Sequence[tuple[Scalar, float]]) -> list[list[float]]:
    """The ranks of each group of values."""
    different = {value for value, _ in pairs}
    numbers = [numeric(value) for value, _ in pairs]
    if len(different) <= MOST_BINS or any(v is None for v in numbers):
        heaps: dict[Scalar, list[float]] = {}
        for value, rank in pairs:
            heaps.setdefault(value, []).append(rank)
        return list(heaps.values())
    bins = min(MOST_BINS, max(2, len(pairs) // 4))
    ordered = sorted(pairs, key=lambda pair: numeric(pair[0]) or 0.0)
    cuts = [round(i * len(ordered) / bins) for i in range(bins + 1)]
    # Equal values stay together.
    edges = [numeric(ordered[cut][0]) or 0.0 for cut in cuts[1:-1]]
    grouped: list[list[float]] = [[] for _ in range(bins)]
    for value, rank in ordered:
        grouped[sum((numeric(value) or 0.0) >= edge for edge in edges)].append(rank)
    return [g for g in grouped if g]


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs. What is not a number is the worst."""
    keys = [math.inf if math.isnan(v) else v for v in values]
    order = sorted(range(len(keys)), key=lambda i: keys[i])
    ranks = [0.0] * len(keys)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and keys[order[end]] == keys[order[start]]:
            end += 1
        for i in order[start:end]:
            ranks[i] = (start + end + 1) / 2
        start = end
    return ranks
