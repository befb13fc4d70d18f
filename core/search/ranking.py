"""Orders a study's trials by their loss, near-ties in favour of the lower learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

RankBy = str

TIE_TOLERANCE = 0.002
"""Losses within 0.2 % of the best of their group are ties: 0.004 nats at a loss of 2, about what
two equally good settings differ by (90th percentile of the regret of a fixed good learning rate
over published LoRA runs)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial as ranking sees it; losses in nats per token, `loss` the smoothed training loss.

    `ending` may say, for a trial that did not complete, how it ended ("diverged").
    """

    trial: int
    completed: bool
    eval_loss: float | None
    loss: float | None
    learning_rate: float | None
    ending: str | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A trial's place: from 1 upwards, or None with the `reason` why it has none.

    `tied` marks trials whose values do not differ enough to tell them apart.
    """

    trial: int
    place: int | None
    value: float | None
    tied: bool
    reason: str | None


def rank(
    candidates: Iterable[Candidate], rank_by: RankBy, tolerance: float = TIE_TOLERANCE
) -> list[Ranked]:
    """All candidates, best first, those without a place last in the order of their numbers.

    A tie is a group of values no further than `tolerance` × the group's best above that best (a
    chain of near-ties does not grow without end). Within it the lower learning rate comes first:
    short probes favour rates that are too high for a full training.
    """
    placed: list[tuple[float, Candidate]] = []
    unplaced: list[Ranked] = []
    for candidate in candidates:
        value = candidate.eval_loss if rank_by == "eval_loss" else candidate.loss
        reason = _obstacle(candidate, value, rank_by)
        if reason is None and value is not None:
            placed.append((value, candidate))
        else:
            unplaced.append(Ranked(candidate.trial, None, value, False, reason))
    placed.sort(key=lambda entry: (entry[0], entry[1].trial))
    ranked: list[Ranked] = []
    for group in _groups(placed, tolerance):
        group.sort(key=_preference)
        for value, candidate in group:
            tied = len(group) > 1
            ranked.append(Ranked(candidate.trial, len(ranked) + 1, value, tied, None))
    return ranked + sorted(unplaced, key=lambda entry: entry.trial)


def _obstacle(candidate: Candidate, value: float | None, rank_by: RankBy) -> str | None:
    what = "evaluation loss" if rank_by == "eval_loss" else "training loss"
    if not candidate.completed:
        return candidate.ending or "did not finish"
    if value is None:
        return f"has no {what}"
    if not math.isfinite(value):
        return f"its {what} is not a finite number ({value})"
    return None


def _groups(
    placed: list[tuple[float, Candidate]], tolerance: float
) -> list[list[tuple[float, Candidate]]]:
    groups: list[list[tuple[float, Candidate]]] = []
    for entry in placed:
        best = groups[-1][0][0] if groups else None
        if best is not None and entry[0] - best <= tolerance * abs(best):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def _preference(entry: tuple[float, Candidate]) -> tuple[float, float, int]:
    value, candidate = entry
    rate = candidate.learning_rate
    return (math.inf if rate is None else rate, value, candidate.trial)
