"""When a run evaluates, saves and ends: at its end, when it is asked to, or when it has stopped improving."""

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from core.train.signals import Requests


class EarlyStop(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose evaluation loss has not improved for `patience` evaluations."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best = math.inf
        self._worse = 0
        self.fired = False
        """Whether it ended the run."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        # A resumed run has its past evaluations in its history.
        for entry in state.log_history:
            if "eval_loss" in entry:
                self._take(float(entry["eval_loss"]))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **unused: Any) -> None:
        self._take(float(metrics["eval_loss"]))
        if self._worse >= self._patience:
            control.should_training_stop = True
            self.fired = True

    def _take(self, loss: float) -> None:
        if loss < self._best:
            self._best, self._worse = loss, 0
        else:
            self._worse += 1


class Conductor(TrainerCallback):  # type: ignore[misc]
    """Watches the requests after every update, and has the end evaluated."""

    def __init__(
        self,
        requests: Requests,
        early: EarlyStop | None,
        save_every: int | None,
        on_first_step: Callable[[], None],
    ) -> None:
        """`on_first_step` is called once, as the first update begins."""
        self._requests = requests
        self._early = early
        self._save_every = save_every
        self._on_first_step: Callable[[], None] | None = on_first_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if self._on_first_step is not None:
            self._on_first_step()
            self._on_first_step = None

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
            return
        if self._save_every and state.global_step % self._save_every == 0:
            control.should_save = True
        if self._requests.outcome is not None:
            control.should_training_stop = True
            control.should_log = True
        if self._requests.outcome == "stopped":
            control.should_evaluate = control.should_save = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Save a pause: the Trainer comes here after the last update of any run, its evaluation done."""
        if self.ended_by(state) != "paused":
            return
        control.should_save = True
        control.should_training_stop = True
        # The best weights so far are the end's business; what is saved here goes on training.
        args.load_best_model_at_end = False

    def ended_by(self, state: Any) -> str | None:
        """The request that ended the run before its end; None where it came to its own."""
        finished = state.global_step >= state.max_steps or (
            self._early is not None and self._early.fired
        )
        return None if finished else self._requests.outcome
