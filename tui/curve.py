"""A trial's metrics digested for the screen, a few points at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.study.files import RunInfo, TrialForecast
from core.study.metrics import Point

if TYPE_CHECKING:
    from core.doctor import Finding

Points = tuple[tuple[float, float], ...]
SPARK_CELLS = 48
_MEASURES = (
    "loss", "eval_loss", "tokens_per_s", "lr", "grad_norm", "utilisation", "loss_smoothed",
)  # fmt: skip
LOSS = "loss"
_DRAWN_LAST = ("loss_smoothed", "grad_norm", "lr", "tokens_per_s", "utilisation")
"""What every stage logs besides its losses; in a choice of what to draw it comes after the stage's own measures."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What the screens need of one trial's metrics. `train` and `evals` are (step, value) of the measure that is drawn:
    nats per token of a loss."""

    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    """The last training loss; may be NaN or infinite."""
    eval_loss: float | None = None
    peak_memory: int | None = None
    """Bytes."""
    tokens_per_s: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    steps_per_s: float | None = None
    """Speed of the present attempt; None before its second point."""
    last_t: float | None = None
    """When the last point was written, seconds since the epoch."""
    spark: tuple[float, ...] = ()
    """The loss over equal shares of the steps so far."""
    train: Points | None = None
    """All points; None where they were not asked for."""
    evals: Points | None = None
    measure: str = LOSS
    """What `train` and `evals` are of."""
    logged: Mapping[str, float] = field(default_factory=dict)
    """The last value of everything that the stage logs besides the losses, by name."""
    run: RunInfo | None = None
    forecast: TrialForecast | None = None
    """What its memory was forecast to be; None where it was not."""
    peaks: Points | None = None
    """(step, bytes): the most held up to there; None where it was not asked for."""
    reserved: Points | None = None
    """(step, bytes): what the allocator has taken from the GPU; empty on the CPU."""
    finding: "Finding | None" = None
    """What the doctor says of it; None where it is healthy, too short to say, or was not looked at."""

    @property
    def own_measures(self) -> tuple[tuple[str, float], ...]:
        """The last values of what its stage alone logs, by name."""
        return tuple((n, v) for n, v in self.logged.items() if n not in _DRAWN_LAST)

    @property
    def measures(self) -> tuple[str, ...]:
        """What can be drawn of it: the loss, the stage's own measures, and what every stage logs."""
        own = dict.fromkeys(name.removeprefix("eval_") for name in self.logged)
        return (
            LOSS,
            *(n for n in own if n not in _DRAWN_LAST),
            *(n for n in _DRAWN_LAST if n in own),
        )


class CurveBuilder:
    """Takes up a trial's points as they come; `digest` says what they come to.

    A later attempt overrides the points at and after its first step, as `core.study.metrics.merge`
    has it.
    """

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._buckets: list[float | None] = []
        self._bucket_steps = 1
        self._first_of_attempt: Point | None = None
        self._latest: dict[str, float] = {}

    @property
    def points(self) -> Sequence[Point]:
        """Everything that was taken up, points of earlier attempts that were overridden left out."""
        return self._points

    @property
    def empty(self) -> bool:
        return not self._points

    def add(self, points: Iterable[Point]) -> None:
        """Take up points in the order in which they stand in the file."""
        for point in points:
            before = self._points[-1] if self._points else None
            if before is None or point.attempt > before.attempt:
                self._first_of_attempt = point
                if before is not None:
                    self._cut(point.step)
            self._points.append(point)
            self._put(point)

    def digest(
        self,
        run: RunInfo | None,
        *,
        whole: bool,
        forecast: TrialForecast | None = None,
        memory: bool = False,
        measure: str = LOSS,
    ) -> Curve:
        """The present curve; with all points of `measure` if `whole`, and with those of the memory if `memory`."""
        if not self._points:
            none: Points | None = () if whole else None
            held: Points | None = () if memory else None
            return Curve(
                total_steps=run.total_steps if run else None,
                run=run,
                forecast=forecast,
                train=none,
                evals=none,
                measure=measure,
                peaks=held,
                reserved=held,
            )
        last = self._points[-1]
        return Curve(
            step=max(last.step, 0),
            total_steps=run.total_steps if run else None,
            loss=self._latest.get("loss"),
            eval_loss=self._latest.get("eval_loss"),
            peak_memory=max((p.mem_peak for p in self._points[-3:] if p.mem_peak), default=None),
            tokens_per_s=self._latest.get("tokens_per_s"),
            learning_rate=self._latest.get("lr"),
            grad_norm=self._latest.get("grad_norm"),
            steps_per_s=self._speed(last),
            last_t=last.t,
            spark=tuple(v for v in self._buckets if v is not None),
            train=_series(self._points, measure) if whole else None,
            evals=_series(self._points, f"eval_{measure}") if whole else None,
            measure=measure,
            logged={n: v for n, v in self._latest.items() if n not in (LOSS, "eval_loss")},
            run=run,
            forecast=forecast,
            peaks=_series(self._points, "mem_peak") if memory else None,
            reserved=_series(self._points, "mem_reserved") if memory else None,
        )

    def _speed(self, last: Point) -> float | None:
        first = self._first_of_attempt
        if first is None or last.step <= first.step or last.t <= first.t:
            return None
        return (last.step - first.step) / (last.t - first.t)

    def _cut(self, step: int) -> None:
        while self._points and self._points[-1].step >= step:
            self._points.pop()
        self._buckets, self._bucket_steps, self._latest = [], 1, {}
        for point in self._points:
            self._put(point)

    def _put(self, point: Point) -> None:
        for name in _MEASURES:
            value = getattr(point, name)
            if value is not None:
                self._latest[name] = value
        self._latest.update(point.more or {})
        if point.loss is None:
            return
        while point.step // self._bucket_steps >= SPARK_CELLS:
            self._halve()
        place = max(0, point.step // self._bucket_steps)
        self._buckets.extend([None] * (place + 1 - len(self._buckets)))
        self._buckets[place] = point.loss

    def _halve(self) -> None:
        pairs = zip(self._buckets[::2], [*self._buckets[1::2], None], strict=False)
        self._buckets = [late if late is not None else early for early, late in pairs]
        self._bucket_steps *= 2


def _series(points: list[Point], name: str) -> Points:
    pairs = ((float(p.step), _value(p, name)) for p in points)
    return tuple((step, value) for step, value in pairs if value is not None)


def _value(point: Point, name: str) -> float | None:
    """A measure of a point, be it one that every stage logs or a stage's own."""
    if point.more is not None and name in point.more:
        return point.more[name]
    value: float | None = getattr(point, name, None)
    return value
