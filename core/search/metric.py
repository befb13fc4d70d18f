"""What trials can be ranked by: the metrics, which way is good, and their values read off a run's points.

Everything that compares trials inside the search works on values of which the lower is better; `signed` makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from core.logged import usual_metric
from core.search.smoothing import Ema, jitter

Direction = Literal["min", "max"]


class Logged(Protocol):
    """One logged moment of a run, as `core.study.metrics.Point` is; what was not measured is None."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def eval_loss(self) -> float | None: ...
    @property
    def grad_norm(self) -> float | None: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def tokens(self) -> int | None: ...
    @property
    def tokens_per_s(self) -> float | None: ...
    @property
    def mem_peak(self) -> int | None: ...
    @property
    def more(self) -> dict[str, float] | None: ...


class MetricError(ValueError):
    """A metric that no trial of the study logs; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something to rank by. Values that differ by no more than the share `tolerance` of the better one are as good."""

    name: str
    direction: Direction
    label: str
    """For people, as "evaluation loss"."""
    tolerance: float = 0.002
    evaluated: bool = False
    """Whether it is measured on validation data."""
    counted: bool = False
    """Whether it is a share of rows, which moves by whole rows and soon comes to its end: of equals the one with the
    lower evaluation loss has learnt more."""

    def signed(self, value: float) -> float:
        """`value` so that the lower is better."""
        return signed(value, self.direction)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("eval_loss", "min", "evaluation loss", evaluated=True),
        Metric("loss", "min", "training loss"),
        Metric("loss_fall", "max", "fall of the training loss", tolerance=0.02),
        Metric("grad_norm", "min", "gradient norm", tolerance=0.02),
        Metric("tokens_per_s", "max", "tokens per second", tolerance=0.02),
        Metric("mem_peak", "min", "peak memory"),
    )
}
"""What every trial logs. The tolerance of losses is explained in `ranking`; slopes and speeds are known to some percent
at best."""

_ACCURACY = Metric("eval_accuracy", "max", "evaluation accuracy", evaluated=True)
_REWARDS = (
    Metric("reward_accuracy", "max", "reward accuracy", tolerance=0.01, counted=True),
    Metric("reward_margin", "max", "reward margin", tolerance=0.02),
    Metric("reward_chosen", "max", "reward of the chosen", tolerance=0.02),
    Metric("reward_rejected", "min", "reward of the rejected", tolerance=0.02),
    Metric("eval_reward_accuracy", "max", "reward accuracy on validation data", 0.01, True, True),
    Metric("eval_reward_margin", "max", "reward margin on validation data", 0.02, True),
)

STAGE_METRICS: Mapping[str, tuple[Metric, ...]] = {
    "pt": (_ACCURACY, Metric("eval_perplexity", "min", "evaluation perplexity", evaluated=True)),
    "sft": (_ACCURACY,),
    "rm": _REWARDS,
    "dpo": _REWARDS,
    "kto": (
        *_REWARDS,
        Metric("kl", "min", "KL divergence", tolerance=0.02),
        Metric("eval_kl", "min", "KL divergence on validation data", 0.02, True),
    ),
    "ppo": (
        Metric("reward", "max", "mean reward", tolerance=0.02),
        Metric("kl", "min", "KL divergence", tolerance=0.02),
        Metric("entropy", "max", "entropy", tolerance=0.02),
        Metric("clip_fraction", "min", "clipped share", tolerance=0.02),
        Metric("value_loss", "min", "value loss", tolerance=0.02),
        Metric("eval_reward", "max", "mean reward on validation prompts", 0.02, True),
        Metric("eval_kl", "min", "KL divergence on validation prompts", 0.02, True),
    ),
}
"""What the trials of a stage log besides, in `Point.more`. A stage that logs more names it here, with its direction."""

_MORE_IS_BETTER: tuple[str, ...] = ("accuracy", "reward", "margin", "bleu", "rouge", "f1")
"""Parts of a name that say that more is better, for names that are not in the catalogue."""


def resolve(
    rank_by: str,
    direction: Literal["auto", "min", "max"] = "auto",
    has_validation: bool = True,
    stage: str = "sft",
) -> Metric:
    """The metric that a profile ranks by; `auto` is what its stage is usually ranked by.

    Raises:
        MetricError: no trial logs it; the message names the nearest that trials do log.
    """
    name = rank_by
    if name == "auto":
        name = usual_metric(stage, validated=has_validation)
    known = {**METRICS, **{m.name: m for m in STAGE_METRICS.get(stage, ())}}
    if name not in known:
        raise MetricError(_unknown(name, known))
    metric = known[name]
    if metric.evaluated and not has_validation:
        raise MetricError(f"{name} needs validation data, and the profile has none")
    return metric if direction == "auto" else _turned(metric, direction)


def find(name: str, direction: Direction | None = None) -> Metric:
    """The metric called `name`, whatever it is: what a journal ranks by was checked when the study began."""
    everything = [*METRICS.values(), *(m for more in STAGE_METRICS.values() for m in more)]
    metric = next((m for m in everything if m.name == name), None)
    if metric is None:
        usual: Direction = "max" if any(part in name for part in _MORE_IS_BETTER) else "min"
        label, evaluated = name.replace("_", " "), name.startswith("eval_")
        metric = Metric(name, direction or usual, label, evaluated=evaluated)
    return metric if direction is None else _turned(metric, direction)


def signed(value: float, direction: Direction) -> float:
    """`value` so that the lower is better: negated where a large one is good. Undoes itself."""
    return -value if direction == "max" else value


_LOSS_IS_MADE_WITH = (
    "pref_loss", "pref_beta", "pref_ftx", "simpo_gamma", "dpo_label_smoothing", "kto_chosen_weight",
    "kto_rejected_weight",
)  # fmt: skip


def losses_compare(settings: Iterable[Mapping[str, object]]) -> bool:
    """Whether the losses of trials with these settings (what differs from their profile) are measures of each other.

    They are not where the loss itself is made with something else: twice the beta doubles the margin that it sees.
    """
    made = {tuple(given.get(key) for key in _LOSS_IS_MADE_WITH) for given in settings}
    return len(made) <= 1


def value_of(points: Sequence[Logged], metric: Metric) -> float | None:
    """The metric of a run as it stands after `points`, in its own direction; None where it is not known or not finite.

    An evaluation's is the last one. Of the training loss it is the average (`smoothing`), of other logs the median of
    the last five. `loss_fall` is how many nats the loss falls while the tokens (or, where those were not counted, the
    updates) double: the median of the slopes between the means of twelve stretches of the run, each as long on a log
    scale, over its last four doublings, from the end of the warm-up on. (Theil and Sen's estimate, which a quarter of
    outliers cannot move: Sen, JASA 63, 1968.)
    """
    match metric.name:
        case "loss":
            return _last(value for _, value in _averages(points))
        case "loss_fall":
            return _fall(points)
        case "grad_norm" | "tokens_per_s" | "mem_peak":
            values = [value for _, value in _series(points, metric)][-_LAST_LOGS:]
            return _median(values) if values and all(map(math.isfinite, values)) else None
        case _:
            return _last(value for _, value in _series(points, metric))


def noise_of(
    points: Sequence[Logged], metric: Metric, eval_rows: int | None = None
) -> float | None:
    """How far off the final value may be by chance, one standard deviation in its units; None where that is not known.

    For evaluations: how much the last of them go up and down from one to the next, which is about what other seeds and
    another order of the data change (Heineman et al. 2025, arXiv 2508.13144, measure the noise of a run by its last
    checkpoints and find it close to that of seeds). A steady rise or fall counts nothing. For the training loss it is
    not known from one curve: trials of a study see the same batches in the same order, so that most of what a curve
    jitters by is common to all of them. A share p of `eval_rows` rows is off by sqrt(p (1 - p) / rows) at least, the
    standard error of a proportion.
    """
    if not metric.evaluated:
        return None
    values = [value for _, value in _series(points, metric) if math.isfinite(value)]
    moves = jitter(values[-_EVALUATIONS:])
    if not (metric.counted and eval_rows and values):
        return moves
    share = min(1.0, max(0.0, values[-1]))
    return max(moves or 0.0, math.sqrt(share * (1 - share) / eval_rows))


def curve_of(
    points: Sequence[Logged], metric: Metric, total_steps: int
) -> tuple[tuple[float, float], ...]:
    """The metric over the run as (share of `total_steps` in (0, 1], finite value in its own direction), in order.

    Of the training loss it is the average after each log; of `loss_fall` the value at each of some moments, as soon as
    it is known. Empty where `total_steps` is 0.
    """
    if total_steps <= 0:
        return ()
    found: Iterable[tuple[int, float]]
    if metric.name == "loss":
        found = _averages(points)
    elif metric.name == "loss_fall":
        found = _falls(points)
    else:
        found = _series(points, metric)
    shares = ((step / total_steps, value) for step, value in found if math.isfinite(value))
    return tuple((min(1.0, share), value) for share, value in shares if share > 0)


_LAST_LOGS = 5
_EVALUATIONS = 7
_STRETCHES = 12
_DOUBLINGS = 4.0
_FALL_MOMENTS = 20


def _turned(metric: Metric, direction: Direction) -> Metric:
    if metric.direction == direction:
        return metric
    return Metric(metric.name, direction, metric.label, metric.tolerance, metric.evaluated)


def _unknown(name: str, known: Iterable[str]) -> str:
    # Only here: a client would pay some milliseconds for it at its start.
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"no trial logs {name}: {meant}there are {', '.join(known)}"


def _series(points: Iterable[Logged], metric: Metric) -> Iterator[tuple[int, float]]:
    """(step, value) of each point that carries the metric."""
    for point in points:
        own = metric.name in METRICS
        value = getattr(point, metric.name) if own else (point.more or {}).get(metric.name)
        if value is not None:
            yield point.step, float(value)


def _averages(points: Iterable[Logged]) -> Iterator[tuple[int, float]]:
    """(step, average of the training loss); what is not finite appears as itself and does not enter the average."""
    ema = Ema()
    for point in points:
        if point.loss is not None:
            yield point.step, ema.push(point.loss) if math.isfinite(point.loss) else point.loss


def _falls(points: Sequence[Logged]) -> Iterator[tuple[int, float]]:
    logs = [p for p in points if p.loss is not None]
    every = max(1, len(logs) // _FALL_MOMENTS)
    ends = range(len(logs), 0, -every)
    for end in reversed(ends):
        value = _fall(logs[:end])
        if value is not None:
            yield logs[end - 1].step, value


def _fall(points: Sequence[Logged]) -> float | None:
    """Nats per doubling, positive where the loss falls."""
    logs = [p for p in points if p.loss is not None]
    if not logs or not math.isfinite(logs[-1].loss or 0.0):
        return None
    counted = all(p.tokens for p in logs)
    places = [float((p.tokens if counted else p.step) or 0) for p in logs]
    losses = [p.loss if p.loss is not None else math.nan for p in logs]
    run = [(math.log2(x), y) for x, y in zip(places, losses, strict=True) if x > 0]
    run = [(x, y) for x, y in run if math.isfinite(y)]
    if not run:
        return None
    warm = _warm(logs)
    for first in (max(run[-1][0] - _DOUBLINGS, _log2(places[warm])), run[-1][0] - _DOUBLINGS):
        means = _stretches([(x, y) for x, y in run if x >= first])
        if len(means) >= 4:
            slopes = [
                (b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(means) for b in means[i + 1 :]
            ]
            return -_median(slopes)
    return None


def _warm(logs: Sequence[Logged]) -> int:
    """The log at which the learning rate is highest first: before it the loss falls as the rate rises."""
    rates = [p.lr if p.lr is not None and math.isfinite(p.lr) else 0.0 for p in logs]
    top = max(rates)
    return next(i for i, rate in enumerate(rates) if rate >= 0.999 * top)


def _stretches(run: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean place and loss of each of up to twelve stretches that are equally long; empty ones are left out."""
    if len(run) < 2 or run[-1][0] <= run[0][0]:
        return []
    width = (run[-1][0] - run[0][0]) / _STRETCHES
    heaps: dict[int, list[tuple[float, float]]] = {}
    for x, y in run:
        heaps.setdefault(min(_STRETCHES - 1, int((x - run[0][0]) / width)), []).append((x, y))
    return [(_mean(x for x, _ in heap), _mean(y for _, y in heap)) for heap in heaps.values()]


def _last(values: Iterable[float]) -> float | None:
    """The last value where it is finite."""
    found = math.nan
    for value in values:
        found = value
    return found if math.isfinite(found) else None


def _log2(value: float) -> float:
    return math.log2(value) if value > 0 else -math.inf


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return math.fsum(kept) / len(kept)


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
