"""When a run evaluates, saves and ends: at its end, at its rung, when it is asked to, or when it stops improving."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from core.search.metric import Metric
from core.search.smoothing import Ema
from core.train.checkpoints import Keeper
from core.train.plan import Plan
from core.train.signals import Requests

Outcome = Literal["completed", "paused", "rung", "stopped"]

RANGE_RISE = 4.0
"""A range test ends where its smoothed loss is so many times its lowest: what comes after is divergence, whatever it
looks like (as in fastai's finder, and the guard's own limit)."""


class Arrived(Exception):  # noqa: N818 (nothing went wrong)
    """The checkpoint stands where the attempt is to end: there is nothing to train."""


class EarlyStop(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose evaluations have not improved for `patience` of them."""

    def __init__(self, patience: int, metric: Metric, since: int = 0) -> None:
        """`metric` is what improves. Evaluations up to the update `since` are not counted: another schedule's are no
        measure of this one."""
        self._patience = patience
        self._metric = metric
        self._since = since
        self._best = math.inf
        self._worse = 0
        self.fired = False
        """Whether it ended the run."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        # A resumed run has its past evaluations in its history.
        for entry in state.log_history:
            if self._metric.name in entry and entry["step"] > self._since:
                self._take(float(entry[self._metric.name]))
        if self._worse >= self._patience:
            self.fired = True
            raise Arrived

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **unused: Any) -> None:
        self._take(float(metrics[self._metric.name]))
        if self._worse >= self._patience:
            control.should_training_stop = True
            self.fired = True

    def _take(self, value: float) -> None:
        signed = self._metric.signed(value)
        if signed < self._best:
            self._best, self._worse = signed, 0
        else:
            self._worse += 1


class RangeEnd(TrainerCallback):  # type: ignore[misc]
    """Ends a learning-rate range test once its loss is no number, or has risen for good."""

    def __init__(self) -> None:
        self._average = Ema()
        self._best = math.inf

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **unused: Any
    ) -> None:
        if "loss" in logs and self._is_over(float(logs["loss"])):
            control.should_training_stop = True

    def _is_over(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        smoothed = self._average.push(loss)
        self._best = min(self._best, smoothed)
        return smoothed > RANGE_RISE * self._best


class Conductor(TrainerCallback):  # type: ignore[misc]
    """Decides after every update what comes next."""

    def __init__(
        self,
        requests: Requests,
        plan: Plan,
        early: EarlyStop | None,
        *,
        save_every: int | None,
        saves_evaluated: bool,
        save_waiting: bool,
        keep_last: bool,
        keeper: Keeper | None,
        new_best: bool,
        record: Callable[[Path], None] | None,
        take_up_window: Callable[[], None],
        on_first_step: Callable[[], None],
    ) -> None:
        """`saves_evaluated`: a checkpoint is saved after each evaluation, `save_waiting`: where the run is to go on,
        `keep_last`: at its end, as with `save_every`. `keeper` says which checkpoints stay, `record` keeps in one what
        made it: both where this process has them in order. `new_best`: which evaluation was the best before this
        attempt is forgotten. `take_up_window` is called as training begins, `on_first_step` once, as the first update
        begins."""
        self._requests = requests
        self._plan = plan
        self._early = early
        self._save_every = save_every
        self._save_waiting = save_waiting
        self._keep_last = keep_last
        self._keeper = keeper
        self._record = record
        self._saves_evaluated = saves_evaluated
        self._new_best = new_best
        self._take_up_window = take_up_window
        self._on_first_step: Callable[[], None] | None = on_first_step
        self._ending: Outcome = "completed"
        self._saved = -1
        """The update after which this attempt saved last."""

    @property
    def outcome(self) -> Outcome:
        """How the run ended. One that stopped improving has come to its own end, whatever it was asked then."""
        early = self._early is not None and self._early.fired
        return "completed" if early else self._ending

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        # A checkpoint brings the intervals of the run that left it.
        state.compute_steps(args, state.max_steps)
        self._take_up_window()
        if self._new_best:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        if state.global_step >= self._plan.end:
            self._ending = "rung" if self._plan.rung_step is not None else "completed"
            raise Arrived

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if self._on_first_step is not None:
            self._on_first_step()
            self._on_first_step = None

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._requests.agree()
        step = state.global_step
        control.should_evaluate = self._plan.evaluates(step)
        if control.should_evaluate and self._saves_evaluated:
            control.should_save = True
        if step >= state.max_steps:
            return
        if self._save_every and step % self._save_every == 0:
            control.should_save = True
        self._ending = self._asked(step)
        if self._ending != "completed":
            control.should_training_stop = True
        if self._ending == "stopped":
            control.should_evaluate = control.should_save = False

    def _asked(self, step: int) -> Outcome:
        """What ends the run after this update: a stop outranks a rung, and a rung a pause, which saves no more."""
        asked = self._requests.outcome
        if asked != "stopped" and step == self._plan.rung_step:
            return "rung"
        return asked or "completed"

    def on_epoch_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Save: the Trainer comes here after the last update of any run, its evaluation done."""
        waits = self.outcome in ("paused", "rung")
        if waits and self._requests.outcome == "stopped":
            self._ending = "stopped"
            return
        if waits:
            control.should_training_stop = True
            # The best weights so far are the end's business; what is saved here goes on training.
            args.load_best_model_at_end = False
        ended = control.should_training_stop and self.outcome == "completed"
        kept = self._keep_last or self._save_every is not None
        if (waits and self._save_waiting) or (ended and kept):
            control.should_save = self._saved != state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._saved = state.global_step
        folder = Path(args.output_dir)
        if self._record is not None:
            self._record(folder / f"checkpoint-{state.global_step}")
        if self._keeper is not None:
            self._keeper.tidy(folder, state)
