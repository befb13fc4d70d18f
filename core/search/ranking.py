"""Orders a study's trials by what it ranks by; what noise can explain is a tie, and ties prefer the lower rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.search.metric import Metric, find

TIE_TOLERANCE = 0.002
"""Losses within 0.2 % of the best of their group are ties: 0.004 nats at a loss of 2, about what
two equally good settings differ by (90th percentile of the regret of a fixed good learning rate
over published LoRA runs)."""

CURVE_NOISE_CAP = 5.0
"""What a single curve says of its own noise widens a tie to so many times the tolerance at most: one run's word."""

SEED_NOISE_CAP = 25.0
"""What was measured between seeds widens it to so many times the tolerance at most, 5 % of a loss: settings that do so
badly with another seed are not as good as the best, however much their own two runs differ. The same bounds the error
of a share of rows, which follows from their number and is no one run's word either: 25 % of a share."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial as ranking sees it; `value` in the metric's own direction.

    `ending` may say, for a trial that did not complete, how it ended ("diverged").
    """

    trial: int
    completed: bool
    value: float | None
    learning_rate: float | None
    ending: str | None = None
    share: float | None = None
    """The share of the probe at which it waits or was dropped, and `value` was measured; None for others."""
    noise: float | None = None
    """How far off its value may be by chance, as its own curve tells; None where that is not known."""
    confirms: int | None = None
    """The trial that it repeats with another seed."""
    eval_loss: float | None = None
    """What tells equals apart where they are ranked by a share of rows; lower is better."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A trial's place: from 1 upwards, or None with the `reason` why it has none.

    `tied` marks trials whose values do not differ enough to tell them apart.
    """

    trial: int
    place: int | None
    value: float | None
    """The mean over the trial and its confirmations; at its rung for one that was dropped or waits there."""
    tied: bool
    reason: str | None
    group: int | None = None
    """Ties share it, from 1: who is in group 1 is as good as the winner."""
    runs: int = 1
    """How many runs the value is the mean of."""
    spread: float | None = None
    """Standard deviation between those runs; None where there is one."""
    share: float | None = None
    """The share of the probe at which its value was measured, where it did not come to the end."""


class _Placed(NamedTuple):
    candidate: Candidate
    value: float
    """Lower is better."""
    runs: int
    spread: float | None


def rank(
    candidates: Iterable[Candidate], metric: Metric | str, tolerance: float | None = None
) -> list[Ranked]:
    """All candidates but confirmations, best first.

    Behind those with a place come those that were dropped at a rung or wait there (the further they came the earlier,
    the better first) and then all others, in the order of their numbers. A confirmation counts in the mean of the trial
    that it confirms; one that diverged takes that trial's place away, since its settings are not safe.

    A tie is a group of values no further above the group's best than chance explains (a chain of near-ties does not
    grow without end): the larger of `tolerance` × the best and one standard error. That error is sqrt(1/n + 1/m) times
    the standard deviation between seeds, pooled over all confirmed trials of n and m runs, at most `SEED_NOISE_CAP`
    tolerances; where none is confirmed, what the best one's own curve jitters by, at most `CURVE_NOISE_CAP`, or the
    error of a share of so few rows (`Metric.counted`), at most `SEED_NOISE_CAP`. (The rule
    of one standard error: of what is no worse than the best by more than that, take the most careful; Breiman et al.,
    CART, 1984, section 3.4.3.)
    Within a tie confirmed trials come first and then the lower learning rate: short probes favour rates that are too
    high for a full training. Shares of rows (`Metric.counted`) tell less than the loss that they were counted at: there
    the lower evaluation loss (left out where losses are no measures of each other, `metric.losses_compare`) comes
    before the lower rate, which may just have learnt next to nothing.
    """
    asked = find(metric) if isinstance(metric, str) else metric
    share = asked.tolerance if tolerance is None else tolerance
    given = list(candidates)
    repeats: dict[int, list[Candidate]] = {}
    for candidate in given:
        if candidate.confirms is not None:
            repeats.setdefault(candidate.confirms, []).append(candidate)
    placed: list[_Placed] = []
    unplaced: list[Ranked] = []
    for candidate in given:
        if candidate.confirms is not None:
            continue
        entry = _place(candidate, repeats.get(candidate.trial, ()), asked)
        if isinstance(entry, _Placed):
            placed.append(entry)
        else:
            unplaced.append(entry)
    placed.sort(key=lambda entry: (entry.value, entry.candidate.trial))
    return _in_order(placed, asked, share) + sorted(unplaced, key=lambda e: _behind(e, asked))


def seed_noise(runs: Iterable[Sequence[float]]) -> float | None:
    """The standard deviation between runs of the same settings, pooled over all groups of two runs and more."""
    squares, freedom = 0.0, 0
    for values in runs:
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares += math.fsum((v - mean) ** 2 for v in values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _place(candidate: Candidate, repeats: Sequence[Candidate], metric: Metric) -> _Placed | Ranked:
    reason = _obstacle(candidate, metric)
    diverged = [c for c in repeats if c.ending == "diverged"]
    if reason is None and diverged:
        reason = f"diverged with another seed (trial {diverged[0].trial})"
    if reason is not None or candidate.value is None:
        value = candidate.value if candidate.value is not None else None
        return Ranked(candidate.trial, None, value, False, reason, share=candidate.share)
    done = [c.value for c in repeats if _obstacle(c, metric) is None and c.value is not None]
    values = [candidate.value, *done]
    mean = math.fsum(values) / len(values)
    return _Placed(candidate, metric.signed(mean), len(values), seed_noise([values]))


def _obstacle(candidate: Candidate, metric: Metric) -> str | None:
    what = metric.label
    if not candidate.completed:
        if candidate.share is not None and candidate.ending in ("pruned", "rung"):
            at = f"{100 * candidate.share:.3g} %"
            return f"dropped at {at}" if candidate.ending == "pruned" else f"waits at {at}"
        return candidate.ending or "did not finish"
    if candidate.value is None:
        return f"has no {what}"
    if not math.isfinite(candidate.value):
        return f"its {what} is not a finite number ({candidate.value})"
    return None


def _in_order(placed: Sequence[_Placed], metric: Metric, tolerance: float) -> list[Ranked]:
    seeds = _pooled(placed)
    ranked: list[Ranked] = []
    cap = SEED_NOISE_CAP if metric.counted else CURVE_NOISE_CAP
    for number, group in enumerate(_groups(placed, tolerance, seeds, cap), 1):
        group.sort(key=lambda entry: _preference(entry, counted=metric.counted))
        ranked += [
            Ranked(
                trial=entry.candidate.trial,
                place=len(ranked) + at,
                value=metric.signed(entry.value),
                tied=len(group) > 1,
                reason=None,
                group=number,
                runs=entry.runs,
                spread=entry.spread,
            )
            for at, entry in enumerate(group, 1)
        ]
    return ranked


def _pooled(placed: Sequence[_Placed]) -> float | None:
    freedom = sum(e.runs - 1 for e in placed)
    if not freedom:
        return None
    squares = math.fsum((e.spread or 0.0) ** 2 * (e.runs - 1) for e in placed)
    return math.sqrt(squares / freedom)


def _groups(
    placed: Sequence[_Placed], tolerance: float, seeds: float | None, cap: float
) -> list[list[_Placed]]:
    groups: list[list[_Placed]] = []
    for entry in placed:
        best = groups[-1][0] if groups else None
        if best is not None and entry.value - best.value <= _margin(
            best, entry, tolerance, seeds, cap
        ):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def _margin(
    best: _Placed, entry: _Placed, tolerance: float, seeds: float | None, cap: float
) -> float:
    """How much worse than `best` a value may be by chance; `cap`: tolerances that the best one's own noise may be."""
    floor = tolerance * abs(best.value)
    if seeds is not None:
        error = seeds * math.sqrt(1 / best.runs + 1 / entry.runs)
        return max(floor, min(error, SEED_NOISE_CAP * floor))
    return max(floor, min(best.candidate.noise or 0.0, cap * floor))


def _preference(entry: _Placed, *, counted: bool) -> tuple[bool, float, float, float, int]:
    rate, loss = entry.candidate.learning_rate, entry.candidate.eval_loss
    number = entry.candidate.trial
    by_loss = math.inf if loss is None or not counted else loss
    return (entry.runs == 1, by_loss, math.inf if rate is None else rate, entry.value, number)


def _behind(entry: Ranked, metric: Metric) -> tuple[float, float, int]:
    """Sorts those without a place."""
    value = entry.value
    known = value is not None and math.isfinite(value)
    if entry.share is None:
        return (math.inf, 0.0, entry.trial)
    return (
        -entry.share,
        metric.signed(value) if known and value is not None else math.inf,
        entry.trial,
    )


def by_trial(ranked: Iterable[Ranked]) -> Mapping[int, Ranked]:
    """Each trial's place."""
    return {r.trial: r for r in ranked}
