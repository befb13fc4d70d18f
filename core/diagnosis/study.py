"""What a study's trials say together: which parameters matter, which rates are safe, what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.search.edges import Edge, Judged, find_edges, nice, numeric, ordered_axes
from core.search.importance import FEWEST_TRIALS, Importance, importances
from core.search.metric import Metric
from core.values import Scalar, number

RUINED = 2.0
"""A loss so many times that of the worst finisher, at a rung, is no slow start."""
SAFE_FACTOR = 2.0
"""Rates stay this far below the lowest that diverged: a longer run meets more bad batches than a probe."""

IDLE = 0.05
"""A parameter that explains less than this share of the trials' order makes no difference."""

RATE = "learning_rate"


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """A trial of the search as the doctor sees it; confirmations are part of the trial that they confirm."""

    trial: int
    settings: Mapping[str, Scalar]
    """Every searched parameter and its value, and the learning rate even where it is not searched."""
    status: str
    """How it stands: "completed", "pruned", "diverged", …"""
    value: float | None
    """Of the metric, in its own direction; at its rung for one that was dropped there."""
    share: float = 1.0
    """The share of the probe that `value` is of."""
    place: int | None = None
    best: bool = False
    """Whether it is the winner or as good as the winner (a tie)."""
    runs: int = 1
    """How many runs `value` is the mean of."""
    rungs: tuple[tuple[float, float], ...] = ()
    """(share, value) at each rung that it came to."""
    rate: float | None = None
    """The learning rate that it trained at, where that is not its setting (it may be scaled with the batch)."""
    open: bool = False
    """Whether it, or a run that confirms it, has not ended yet."""

    @property
    def trained_at(self) -> float | None:
        """The learning rate that it trained at; None where that is not known."""
        return numeric(self.settings.get(RATE)) if self.rate is None else self.rate


@dataclass(frozen=True, slots=True)
class RateBand:
    """Learning rates that are safe by what was seen."""

    low: float
    """The lowest rate tried."""
    high: float
    """Half the lowest rate that diverged, to two digits."""
    diverged: float
    """The lowest rate that diverged."""
    text: str


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something to try, in a sentence, and as changes to the profile."""

    text: str
    space: Mapping[str, object] = field(default_factory=dict)
    """Parameter → what to search in place of what was searched: a list, or a range as a mapping."""
    search: Mapping[str, Scalar] = field(default_factory=dict)
    """Parameters of [search] and their new values."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What can be said of a study; empty where too little is known."""

    importances: tuple[Importance, ...]
    """The largest first; those that are not known have no share."""
    band: RateBand | None
    edges: tuple[Edge, ...]
    next_steps: tuple[NextStep, ...]
    """The most useful first."""
    remarks: tuple[str, ...] = ()
    """What else is worth knowing, in sentences: what could not be told, and why."""


def examine(
    trials: Sequence[TrialFacts], space: Mapping[str, object], metric: Metric
) -> Examination:
    """Examine the trials of a search; `space` is the profile's [search.space] as its file has it."""
    judged = [t for t in trials if t.status in ("completed", "pruned", "rung", "diverged")]
    judged.sort(key=lambda t: math.inf if t.place is None else t.place)
    found = importances(_scored(judged, metric), list(space)) if judged else ()
    band, remark = _band(judged, metric)
    edges = _edges(judged, space, metric, found)
    steps = tuple(_steps(trials, judged, space, metric, found, edges, band))
    remarks = [text for text in (remark, _unheld(space, metric)) if text]
    if space and 0 < len(judged) < FEWEST_TRIALS:
        few = f"{len(judged)} trials are" if len(judged) > 1 else "1 trial is"
        remarks.append(
            f"{few} too few to tell which parameter matters: {FEWEST_TRIALS} or more would."
        )
    return Examination(found, band, edges, steps, tuple(remarks))


def _unheld(space: Mapping[str, object], metric: Metric) -> str:
    """Of ppo: a search that its reward alone decides, and that is free to let go of the reference."""
    held = next((name for name in ("ppo_kl_coef", "ppo_target") if name in space), None)
    if held is None or metric.name not in ("reward", "eval_reward"):
        return ""
    return (
        f"{held} is searched and {metric.name} decides: the trial that is held least to the reference may win by what "
        "fools the reward model. Compare eval_kl too and read some answers before you take it, or do not search "
        f"{held}."
    )


def _edges(
    judged: Sequence[TrialFacts],
    space: Mapping[str, object],
    metric: Metric,
    found: Sequence[Importance],
) -> tuple[Edge, ...]:
    """The edges worth widening: not of what makes no difference, and no higher rates where one was too high already."""
    idle = {i.name for i in _idle(judged, found)}
    lost = any(t.status == "diverged" for t in judged)
    return tuple(
        edge
        for edge in find_edges(space, [_judged(t, metric) for t in judged])
        if edge.name not in idle and not (lost and edge.name == RATE and edge.side == "high")
    )


def _judged(trial: TrialFacts, metric: Metric) -> Judged:
    done = trial.status == "completed" and trial.value is not None and math.isfinite(trial.value)
    value = metric.signed(trial.value) if done and trial.value is not None else None
    return Judged(trial.trial, trial.settings, value, trial.best)


def _scored(
    trials: Sequence[TrialFacts], metric: Metric
) -> list[tuple[Mapping[str, Scalar], float]]:
    """Settings with a number of which only the order counts: finishers by value, then those that were dropped, the
    further they came the better, then those that diverged, all alike."""

    def key(trial: TrialFacts) -> tuple[int, float, float]:
        if trial.status == "diverged":
            return (2, 0.0, 0.0)
        value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
        if value is None:
            return (1, -trial.share, math.inf)
        return (0 if trial.status == "completed" else 1, -trial.share, metric.signed(value))

    order = {k: float(i) for i, k in enumerate(sorted({key(t) for t in trials}))}
    return [(t.settings, order[key(t)]) for t in trials]


def _ruined(trials: Sequence[TrialFacts], metric: Metric) -> set[int]:
    """Trials that were dropped with a loss so far above that of every finisher that their rate must have been too
    high, although no guard had stopped them yet."""
    done = [t.value for t in trials if t.status == "completed" and t.value is not None]
    if metric.direction == "max" or not done or min(done) <= 0:
        return set()
    bound = RUINED * max(done)
    return {t.trial for t in trials if t.status == "pruned" and (t.value or 0.0) > bound}


def _band(trials: Sequence[TrialFacts], metric: Metric) -> tuple[RateBand | None, str]:
    """The safe rates, or why they cannot be told (empty where nothing diverged)."""
    rates = [(rate, t) for t in trials if (rate := t.trained_at) is not None]
    ruined = _ruined(trials, metric)
    lost = sorted(rate for rate, t in rates if t.status == "diverged" or t.trial in ruined)
    if not lost or len({rate for rate, _ in rates}) < 2:
        return None, ""
    lowest = lost[0]
    low, high = min(rate for rate, _ in rates), float(f"{lowest / SAFE_FACTOR:.2g}")
    above = [t for rate, t in rates if rate >= lowest]
    survived = [t for t in above if t.status == "completed"]
    if survived:
        safe = f" Rates up to {number(high)} are safe with all." if low <= high else ""
        return None, (
            f"Of {len(above)} trials at a rate of {number(lowest)} or more {len(lost)} diverged and {len(survived)} "
            f"did not: it is not the rate alone that decides.{safe}"
        )
    if low > high:
        return None, (
            f"A rate of {number(lowest)} diverged, and all others are within a factor of two of it or above: "
            f"try rates up to {number(high)}."
        )
    how = "diverged" if not ruined else "diverged or were ruined"
    if len(lost) == 1:
        trial = next(t for _, t in rates if t.status == "diverged" or t.trial in ruined)
        how = "was dropped with a ruined loss" if trial.trial in ruined else "diverged"
        seen = f"trial {trial.trial} {how} at {number(lowest)}"
    else:
        seen = f"{len(lost)} trials {how}, at {number(lowest)} and above"
    inside = [t for rate, t in rates if high < rate < lowest and t.place == 1]
    close = f" The best, trial {inside[0].trial}, is closer to it than that." if inside else ""
    text = f"Rates up to {number(high)} are safe: {seen}, and twice below that is a safe distance.{close}"
    return RateBand(low, high, lowest, text), ""


def _steps(
    trials: Sequence[TrialFacts],
    judged: Sequence[TrialFacts],
    space: Mapping[str, object],
    metric: Metric,
    found: Sequence[Importance],
    edges: Sequence[Edge],
    band: RateBand | None,
) -> list[NextStep]:
    ranked = [t for t in judged if t.place is not None]
    if not ranked:
        return _none_finished(trials, judged, space)
    steps = [_widen(edge, space) for edge in edges]
    best = [t for t in ranked if t.best]
    single = [t for t in best if t.runs == 1]
    if len(best) > 1 and single and not any(t.open for t in trials):
        names = ", ".join(str(t.trial) for t in best[:5]) + (" …" if len(best) > 5 else "")
        steps.append(
            NextStep(
                f"{len(best)} trials cannot be told apart ({names}): run them again with another seed (confirm = "
                f"{min(len(best), 4)}), or take {_preferred(best)}.",
                search={"confirm": min(len(best), 4)},
            )
        )
    steps += _unsettled(judged, metric)
    if not edges:
        steps += _narrow(ranked, space, found, band)
    steps += _pointless(judged, found)
    return steps


def _preferred(best: Sequence[TrialFacts]) -> str:
    """The first of those that are as good, and why it is the first: it was confirmed, or its rate is the lowest."""
    first = best[0]
    if first.runs > 1:
        return f"trial {first.trial}, which ran {first.runs} times"
    rates = [math.inf if t.trained_at is None else t.trained_at for t in best]
    if rates[0] < min(rates[1:]):
        return f"the one with the lowest rate, trial {first.trial}"
    return f"the first, trial {first.trial}"


def _none_finished(
    trials: Sequence[TrialFacts], judged: Sequence[TrialFacts], space: Mapping[str, object]
) -> list[NextStep]:
    """What to do where no trial has a place."""
    lost = [t for t in judged if t.status == "diverged"]
    ended = [t for t in trials if t.status in ("diverged", "oom", "failed", "lost", "skipped")]
    rates = sorted(r for t in lost if (r := numeric(t.settings.get(RATE))) is not None)
    if not lost or len(ended) < len(trials) or not rates:
        return []
    high = nice(rates[0] / SAFE_FACTOR)
    low = nice(high / 30)
    text = (
        f"All {len(lost)} trials that trained diverged, the lowest rate among them {number(rates[0])}: search "
        f"{number(low)} to {number(high)}."
    )
    entry = {"low": low, "high": high, "scale": "log"}
    return [NextStep(text, space={RATE: entry})]


def _widen(edge: Edge, space: Mapping[str, object]) -> NextStep:
    entry = space[edge.name]
    text = f"{edge.text[:1].upper()}{edge.text[1:]}"
    return NextStep(text, space={edge.name: _with(entry, edge.side, edge.widen_to)})


def _with(entry: object, side: str, value: float) -> object:
    """An entry of the space with its end moved to `value`."""
    if isinstance(entry, list | tuple):
        whole = all(isinstance(v, int) for v in entry) and value.is_integer()
        more = [int(value) if whole else value]
        return [*entry, *more] if side == "high" else [*more, *entry]
    names = ("low", "high", "scale", "step")
    kept = (
        dict(entry)
        if isinstance(entry, Mapping)
        else {n: v for n in names if (v := getattr(entry, n, None)) is not None}
    )
    return {**kept, side: value}


def _unsettled(judged: Sequence[TrialFacts], metric: Metric) -> list[NextStep]:
    """A longer probe, where the order still changed between the last two moments at which trials were compared."""
    pairs: dict[float, list[tuple[float, float]]] = {}
    for t in judged:
        marks = [*t.rungs]
        if t.status == "completed" and t.value is not None:
            marks.append((1.0, t.value))
        if len(marks) >= 2 and marks[-1][0] == 1.0:
            pairs.setdefault(marks[-2][0], []).append(
                (metric.signed(marks[-2][1]), metric.signed(marks[-1][1]))
            )
    if not pairs:
        return []
    at, values = max(pairs.items(), key=lambda item: len(item[1]))
    if len(values) < 4:
        return []
    couples = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
    changed = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in couples)
    if changed <= 0.35 * len(couples):
        return []
    text = (
        f"Of the {len(values)} trials that ran to the end {changed} of {len(couples)} pairs changed their order after "
        f"{100 * at:.3g} % of the probe: a probe twice as long would be surer."
    )
    return [NextStep(text)]


def _narrow(
    ranked: Sequence[TrialFacts],
    space: Mapping[str, object],
    found: Sequence[Importance],
    band: RateBand | None,
) -> list[NextStep]:
    """A narrower range for a parameter that matters, where the best quarter of the trials lie close together; of rates
    none that is not safe."""
    clear = {i.name for i in found if i.clear}
    top = ranked[: max(3, math.ceil(len(ranked) / 4))]
    steps = []
    for axis in ordered_axes(space):
        values = [v for t in top if (v := numeric(t.settings.get(axis.name))) is not None]
        if axis.name not in clear or not axis.log or axis.values is not None or len(ranked) < 8:
            continue
        low, high = min(values), max(values)
        width = math.log(high / low) / math.log(axis.high / axis.low)
        if width > 1 / 3:
            continue
        low, high = max(axis.low, nice(low / 1.5)), min(axis.high, nice(high * 1.5))
        if band is not None and axis.name == RATE:
            high = min(high, band.high)
            if high < max(values):
                continue
        if math.log(high / low) < 0.7 * math.log(axis.high / axis.low):
            entry = {"low": low, "high": high, "scale": "log"}
            text = (
                f"The best {len(top)} of {len(ranked)} lie at {axis.name} {number(min(values))} to "
                f"{number(max(values))}: narrow it to {number(low)} – {number(high)}."
            )
            steps.append(NextStep(text, space={axis.name: entry}))
    return steps


def _idle(judged: Sequence[TrialFacts], found: Sequence[Importance]) -> list[Importance]:
    """What makes no difference, where something else clearly does."""
    if len(judged) < 2 * FEWEST_TRIALS or not any(i.clear for i in found):
        return []
    return [i for i in found if i.share is not None and not i.clear and i.share < IDLE]


def _pointless(judged: Sequence[TrialFacts], found: Sequence[Importance]) -> list[NextStep]:
    """Leave out what makes no difference."""
    idle = _idle(judged, found)
    if not idle:
        return []
    main = next(i for i in found if i.clear)
    one = len(idle) == 1
    leave = "it as the profile has it" if one else "them as the profile has them"
    most = _percent(max(idle, key=lambda i: i.share or 0))
    return [
        NextStep(
            f"{_listed([i.name for i in idle])} made no difference that chance does not explain "
            f"({most if one else f'at most {most} each'} of the trials' order, {main.name} {_percent(main)}): leave "
            f"{leave}."
        )
    ]


def _percent(importance: Importance) -> str:
    return f"{100 * (importance.share or 0):.0f} %"


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`"""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
