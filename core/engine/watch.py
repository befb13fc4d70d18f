"""Follows one live attempt: its metrics, read as they come, the divergence guard, its silence, and its memory against
its limit."""

import math
from collections.abc import Collection

from core.engine.silence import PATIENCE, Silence, evaluation_updates
from core.memory.creep import Creep
from core.params import TrainTable
from core.search.guard import Guard, Verdict
from core.study.files import RunInfo, TrialForecast, TrialTask, read_record
from core.study.metrics import MetricsTail, Point, merge
from core.study.store import TrialFolder, now


class Watch:
    """One attempt, from its start (or its adoption by a new daemon) to its end."""

    def __init__(
        self,
        folder: TrialFolder,
        attempt: int,
        train: TrainTable,
        *,
        guarded: bool,
        resumed: bool,
        stalled: bool = False,
        patience: float = PATIENCE,
        stage: str = "sft",
        kl_target: float | None = None,
        decided: Collection[str] = (),
    ) -> None:
        """`resumed`: the attempt goes on from a checkpoint (after a pause or a rung), so what earlier attempts logged
        belongs to its curve. `stalled`: the journal says that it had stalled when an earlier daemon looked last.
        `patience`: seconds without a log after which it may count as stalled. `stage` and `kl_target` are the
        guard's. `decided`: the parameters, by full key, in which the study has decided that the trial is other than its
        profile: a change of these from one attempt to the next is known."""
        self.folder = folder
        self.attempt = attempt
        self._train = train
        self._guarded = guarded
        self._stage = stage
        self._kl_target = kl_target
        self._decided = frozenset(decided)
        self._resumed = resumed
        self._tail = MetricsTail(folder.metrics)
        self._earlier: list[Point] = []
        self._guard: Guard | None = None
        self._creep: Creep | None = None
        self._outside = 0
        self._since = now()
        self._silence = Silence(folder, stalled=stalled, patience=patience)
        self.started = False
        """Whether the attempt has trained."""
        self.asked_at: float | None = None
        """When it was seen first that it was asked to pause, seconds of the monotonic clock."""
        self.told_slow = False

    def poll(self) -> list[Verdict]:
        """Read what was logged since the last call; what the guard says to it, in order."""
        said: list[Verdict] = []
        for point in self._tail.poll():
            if point.attempt != self.attempt:
                if self._resumed and point.attempt < self.attempt:
                    merge(self._earlier, (point,))
                continue
            if not self.started:
                self.started = True
                changed = self._begin(point.step)
                if changed is not None and not self._told_before(point):
                    said.append(Verdict("warn", changed, point.step))
            self._silence.heard(point)
            heard = (self._observe(point), self._mind_memory(point))
            said.extend(verdict for verdict in heard if verdict is not None)
        return said

    def stalled(self, now: float) -> str | None:
        """What is to be recorded of the attempt's silence: why it counts as stalled, once; the empty text once it logs
        again; None while nothing has changed.

        To be called at every look, after `poll`. `now` is in seconds of the monotonic clock.
        """
        return None if self.asked_at is not None else self._silence.look(now)

    def _begin(self, first_step: int) -> str | None:
        """Make what judges the attempt, at its first point: the worker has told the trial's length by then.

        Returns what is to be said of settings that were changed by hand since its checkpoint.
        """
        run = read_record(self.folder.run, RunInfo)
        task = read_record(self.folder.task, TrialTask)
        self._silence.evaluation = evaluation_updates(run)
        self._creep = self._make_creep()
        # A range test is meant to diverge.
        if self._guarded and (task is None or task.kind != "range"):
            self._guard = self._make_guard(first_step, run, task)
        changed = run.changed if run is not None and run.attempt == self.attempt else {}
        by_hand = [text for key, text in changed.items() if key not in self._decided]
        if not by_hand:
            return None
        return (
            f"it goes on from a checkpoint that was made with other settings: {', '.join(by_hand)}"
        )

    def _observe(self, point: Point) -> Verdict | None:
        if self._guard is None or (point.loss is None and point.grad_norm is None):
            return None
        verdict = _observed(self._guard, point)
        if verdict is not None and verdict.action == "warn" and self._told_before(point):
            return None
        return verdict

    def _mind_memory(self, point: Point) -> Verdict | None:
        held = max(point.mem_reserved or 0, point.mem_peak or 0)
        if self._creep is None or held == 0:
            return None
        if point.mem_reserved is None:
            # Of a process on the CPU the resident set is known, which is more than its allocations.
            held = max(0, held - self._outside)
        text = self._creep.observe(point.step, held, point.mem_peak)
        if text is None or self._told_before(point):
            return None
        return Verdict("warn", text, point.step)

    def _told_before(self, point: Point) -> bool:
        """Whether it was for an earlier daemon to tell what there is to tell of `point`."""
        return point.t < self._since

    def _make_creep(self) -> Creep:
        forecast = read_record(self.folder.forecast, TrialForecast)
        if forecast is None or forecast.attempt != self.attempt:
            return Creep(0)
        self._outside = forecast.context
        return Creep(forecast.capacity)

    def _make_guard(self, first_step: int, run: RunInfo | None, task: TrialTask | None) -> Guard:
        guard = Guard(
            warmup_steps=_warmup(self._train, run, task) if run else 0,
            loss_scaling=run is not None and run.precision == "fp16",
            stage=self._stage,
            kl_target=self._kl_target,
        )
        for point in self._earlier:
            if point.step < first_step:
                _observed(guard, point)
        self._earlier = []
        return guard


def _observed(guard: Guard, point: Point) -> Verdict | None:
    kl = (point.more or {}).get("kl")
    return guard.observe(point.step, point.loss, point.grad_norm, kl)


def _warmup(train: TrainTable, run: RunInfo, task: TrialTask | None) -> int:
    """Updates in which the rate rises: a probe takes its share of what is given in updates, unless its schedule is the
    first part of the full training's."""
    if run.warmup_steps is not None:
        return run.warmup_steps
    whole = task is not None and task.schedule == "full"
    span = run.full_steps if whole else run.total_steps
    if train.warmup_steps is None:
        return math.ceil(train.warmup_ratio * span)
    return math.ceil(train.warmup_steps * span / max(1, run.full_steps))
