"""What a training run says while it runs: points in the metrics file, TensorBoard events and lines in the log."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from core.search.smoothing import Ema
from core.study.metrics import MetricsWriter, Point
from core.train.log import say
from core.train.moments import Memory
from core.train.tensorboard import EventWriter
from core.train.utilisation import Utilisation


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Writes each log of the Trainer as a point, an event and a line."""

    def __init__(
        self,
        folder_tb: Path,
        writer: MetricsWriter,
        attempt: int,
        memory: Memory,
        tokens: Callable[[], int],
        utilisation: Utilisation,
        names: Sequence[str] = (),
    ) -> None:
        """`tokens` counts the tokens trained on so far; `names` are the stage's own measures, of which a log may carry
        some (`core.logged.STAGE_LOGS`)."""
        self._events = EventWriter(folder_tb)
        self._events_work = True
        self._writer = writer
        self._attempt = attempt
        self._memory = memory
        self._tokens = tokens
        self._utilisation = utilisation
        self._names = names
        self._last_time = time.monotonic()
        self._last_tokens = 0
        self._rate: float | None = None
        self._average = Ema()
        self._averaged = 0
        """Entries of the Trainer's history that the average has seen."""
        self.loss: float | None = None
        """The last training loss that was logged, where it is finite."""
        self.eval_loss: float | None = None

    def take_over(self, points: Sequence[Point]) -> None:
        """Report the last losses of earlier attempts, where this one has nothing to train."""
        for point in points:
            self.loss = _finite(point.loss) if point.loss is not None else self.loss
            if point.eval_loss is not None:
                self.eval_loss = _finite(point.eval_loss)

    def leave_out(self, seconds: float) -> None:
        """Do not count a time that was not training's, before the next point."""
        self._last_time += seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._last_time = time.monotonic()
        self._last_tokens = self._tokens()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **handled: Any) -> None:
        # Versions of transformers differ in whether they log the rate of this update or of the next.
        self._rate = _number(handled["optimizer"].param_groups[0]["lr"])

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **unused: Any
    ) -> None:
        if "loss" in logs:
            self._train_point(state, logs)
        elif any(name.startswith("eval_") for name in logs):
            self._eval_point(state, logs)

    def _more(self, logs: Mapping[str, Any]) -> dict[str, float] | None:
        """The stage's own measures that a log carries."""
        return {name: float(logs[name]) for name in self._names if name in logs} or None

    def _train_point(self, state: Any, logs: Mapping[str, Any]) -> None:
        now, tokens = time.monotonic(), self._tokens()
        elapsed = now - self._last_time
        speed = (tokens - self._last_tokens) / elapsed if elapsed > 0 else None
        self._last_time, self._last_tokens = now, tokens
        allocated, reserved, peak = self._memory.now()
        point = Point(
            t=time.time(),
            step=state.global_step,
            attempt=self._attempt,
            epoch=state.epoch,
            loss=_number(logs["loss"]),
            grad_norm=_number(logs.get("grad_norm")),
            lr=self._rate,
            tokens=tokens,
            tokens_per_s=speed,
            mem_allocated=allocated,
            mem_reserved=reserved,
            mem_peak=peak,
            utilisation=self._utilisation.now(),
            loss_smoothed=self._smoothed(state, float(logs["loss"])),
            more=self._more(logs),
        )
        self.loss = _finite(point.loss)
        self._write(point)
        say(
            f"step {point.step}/{state.max_steps}  loss {_short(point.loss)}  grad {_short(point.grad_norm)}  "
            f"lr {_short(point.lr)}  {speed or 0:,.0f} tokens/s  {allocated / 2**30:.2f} GiB{_in_words(point.more)}"
        )

    def _smoothed(self, state: Any, loss: float) -> float:
        """The average of the training loss with `loss`, which is not finite where that is not.

        The Trainer's history is what it is made of: checkpoints hold it, so that an attempt which goes on averages what
        one that never ended would. What is only reported, as the loss at an ending, is no part of it.
        """
        history = state.log_history
        logged = (
            bool(history) and "loss" in history[-1] and history[-1]["step"] == state.global_step
        )
        for entry in history[self._averaged :]:
            if "loss" in entry and math.isfinite(value := float(entry["loss"])):
                self._average.push(value)
        self._averaged = len(history)
        if not math.isfinite(loss):
            return loss
        average = self._average if logged else copy.copy(self._average)
        smoothed = average.value if logged else average.push(loss)
        return loss if smoothed is None else smoothed

    def _eval_point(self, state: Any, logs: Mapping[str, Any]) -> None:
        loss = _number(logs.get("eval_loss"))
        self.eval_loss = _finite(loss)
        more = self._more(logs)
        self._write(
            Point(
                t=time.time(),
                step=state.global_step,
                attempt=self._attempt,
                epoch=state.epoch,
                eval_loss=loss,
                tokens=self._tokens(),
                more=more,
            )
        )
        said = "" if loss is None else f"  eval loss {_short(loss)}"
        say(f"step {state.global_step}/{state.max_steps}{said}{_in_words(more)}")
        # The time of an evaluation is not training's.
        self._last_time = time.monotonic()

    def _write(self, point: Point) -> None:
        self._writer.write(point)
        if not self._events_work:
            return
        measures = {
            "train/loss": point.loss,
            "train/loss_smoothed": point.loss_smoothed,
            "train/grad_norm": point.grad_norm,
            "train/learning_rate": point.lr,
            "train/tokens_per_s": point.tokens_per_s,
            "train/epoch": point.epoch,
            "train/utilisation": point.utilisation,
            "eval/loss": point.eval_loss,
        }
        measures |= {_tag(name): value for name, value in (point.more or {}).items()}
        try:
            self._events.write(
                point.step, point.t, {k: v for k, v in measures.items() if v is not None}
            )
        except OSError as error:
            self._events_work = False
            say(f"warning: TensorBoard events are not written any more: {error.strerror}")


def _tag(name: str) -> str:
    """Where TensorBoard shows a stage's measure."""
    own = name.removeprefix("eval_")
    return f"train/{name}" if own == name else f"eval/{own}"


def _in_words(more: Mapping[str, float] | None) -> str:
    """A stage's measures at the end of a line of the log."""
    said = ((name.replace("_", " "), _short(value)) for name, value in (more or {}).items())
    return "".join(f"  {name} {value}" for name, value in said)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(value: Any) -> float | None:
    """A logged value as a number; transformers gives some of them as text."""
    return None if value is None else float(value)


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
