"""The Trainer of every stage: what makes a run one that can be watched, compared, paused and gone on with."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Trainer

from core.study.files import Phase, is_whole
from core.train import checkpoints
from core.train.data.examples import IGNORED
from core.train.data.order import epoch_order
from core.train.data.stored import group_sizes
from core.train.distributed.ranks import ALONE, Ranks
from core.train.distributed.shares import RankCollator, unpadded
from core.train.errors import SettingsError, first_line
from core.train.limits import is_out_of_memory
from core.train.log import say
from core.train.measures import Measures
from core.train.memory.rehearsal import longest_rows, widest_batch, without_trace
from core.train.model.weights import save_weights, take_up_adapter, weights_to_save
from core.train.moments import Memory
from core.train.optimizers import readable_states, same_states
from core.train.plan import Plan
from core.train.schedule import Schedule, settings_of
from core.train.scores import Scores
from core.train.signals import Requests

_OPTIM_FILE = "optim.txt"
"""In a checkpoint: which optimizer made its states, as train.optim says. Checkpoints without it are AdamW's."""
_WINDOW_FILE = "log_window.json"
"""In a checkpoint: the losses that were not logged yet, and what the stage had measured besides."""


class EpochSampler(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """The rows in an order that depends on the seed and the epoch alone: not on batch size, nor on what ran before."""

    def __init__(self, rows: int, seed: int, sizes: NDArray[np.int64] | None = None) -> None:
        """`sizes` are what the order is grouped by, where it is."""
        self._rows = rows
        self._seed = seed
        self._sizes = sizes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at the start of each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._rows, self._seed, self._epoch, self._sizes))

    def __len__(self) -> int:
        return self._rows


class StageTrainer(Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer with our order of rows, token counts, rehearsal, evaluation and checkpoints.

    A stage is a class below it, which may have one of TRL's trainers as its second base. Its own are the first methods.
    """

    _ranks = ALONE

    def __init__(
        self,
        *,
        collator: Any,
        order_seed: int,
        plan: Plan,
        schedule: Schedule,
        requests: Requests,
        on_phase: Callable[[Phase], None],
        on_rehearsed: Callable[[float], None],
        memory: Memory,
        make_optimizer: Callable[[Any], Any],
        ranks: Ranks = ALONE,
        **arguments: Any,
    ) -> None:
        """`order_seed` decides the order of rows. `on_phase` is told of an evaluation's begin and end, `on_rehearsed` a
        rehearsal's seconds, `memory` which part of the run comes next. Several `ranks` evaluate and log together."""
        self._ranks = ranks
        self.measures = Measures()
        """What the stage measures in training besides the loss, since the last log."""
        super().__init__(data_collator=collator, **arguments)
        self._on_phase = on_phase
        self._on_rehearsed = on_rehearsed
        self._memory = memory
        self._make_optimizer = make_optimizer
        self._order_seed = order_seed
        self._plan = plan
        self._schedule = schedule
        self._requests = requests
        self._rehearsed = False
        self._evaluated = False
        self._widest = 0
        """Tokens, padding too, of the largest batch that ran with all that a batch can run with."""
        self._update = -1
        """The update (from 0) that the last batch was for."""
        self._states_lost = False
        """Whether the checkpoint's states were another optimizer's."""
        self._uncounted: torch.Tensor | int | None = None
        self._looked = self._told = -1
        """The updates after which the evaluation rows were looked at, and the loss was told, for the report alone."""
        self._carried: tuple[float, int] | None = None
        """Of the checkpoint: the sum of the losses that it had not logged, and the update that it logged last."""
        self.cut_short = False
        """Whether a stop ended an evaluation before its end."""

    # A stage's own --------------------------------------------------------------------------------------------------

    def tokens_in(self, inputs: Any) -> Any:
        """Tokens of a batch, padding left out: a tensor of one number, on the device."""
        return unpadded(inputs)

    def size_of(self, inputs: Any) -> int:
        """Tokens of a batch, padding too: how wide it is."""
        return int(inputs["input_ids"].numel())

    def shape_of(self, inputs: Any) -> tuple[int, int]:
        """Rows of a batch, and tokens of the widest: how the log describes it."""
        rows, width = inputs["input_ids"].shape
        return int(rows), int(width)

    def learnt_in(self, inputs: Any) -> Any:
        """What the Trainer gives a batch's loss as num_items_in_batch, which an update's loss is a mean over: tokens to
        learn, or rows (`by_row`)."""
        return (inputs["labels"][:, 1:] != IGNORED).sum()

    def widest_batch(self) -> Any:
        """The widest batch that training can make."""
        return self.data_collator(longest_rows(self.train_dataset, self.args.train_batch_size))

    def new_scores(self) -> Any:
        """What adds up an evaluation: it has `add_up(ranks)` and `metrics()`."""
        return Scores()

    def score(self, scores: Any, batch: Any) -> None:
        """Evaluate a batch on the device, without gradients, and add it up."""
        scores.add(self.model(**batch), batch["labels"])

    def stage_logs(self) -> dict[str, float]:
        """What all ranks measured besides the loss since the last log, for Point.more. Asking changes nothing."""
        return self.measures.means(self._ranks)

    # The same for all -----------------------------------------------------------------------------------------------

    def place_beside(self, model: Any) -> Any:
        """A model that never trains, as it computes beside the one that does."""
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(len(rows), self._order_seed, group_sizes(rows))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        self._count(inputs)
        size = self.size_of(inputs)
        alone = self.args.gradient_accumulation_steps == 1
        if not self._rehearsed and self._has_states():
            self._rehearsed = True
            self._rehearse(model, size if alone else 0)
        # The first batch of an update runs without gradients of an earlier one beside it.
        if alone or self._update == self.state.global_step:
            self._widest = max(self._widest, size)
        self._update = self.state.global_step
        return self._train_on(model, inputs, num_items_in_batch)

    def _count(self, inputs: Any) -> None:
        """Count the tokens of a batch."""
        # Summed on the device and read only when it is reported: reading it here would wait for the GPU every batch.
        tokens = self.tokens_in(inputs)
        self._uncounted = tokens if self._uncounted is None else self._uncounted + tokens

    def _has_states(self) -> bool:
        """Whether a batch begins an update and the optimizer has its states: once it has made an update, in this
        attempt or the one that left the checkpoint. Loss scaling leaves out updates that overflow."""
        begins = self._update != self.state.global_step
        first = self._update < 0 and (self._states_lost or self.state.global_step == 0)
        return begins and not first and not self.accelerator.optimizer_step_was_skipped

    def _train_on(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Any:
        """A forward and a backward pass."""
        self._memory.enter("forward")
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._memory.enter("optimizer")
        return loss

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        """The loss of a batch, whose forward pass ends with it."""
        loss = super().compute_loss(*arguments, **named)
        self._memory.enter("backward")
        return loss

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer that the profile asks for."""
        if self.optimizer is None:
            self.optimizer: Any = self._make_optimizer(self.model if model is None else model)
        return self.optimizer

    def _rehearse(self, model: Any, next_size: int) -> None:
        """Run the widest batches once and forget them, where no batch as wide comes next or has run.

        `next_size`: of the batch that is about to run; 0 where later ones of its update need more, as they run beside
        its gradients.
        """
        began = time.monotonic()
        batch = self.widest_batch()
        # On a GPU it is a moment, and the batches before the first update ran without the optimizer's states.
        seen = max(next_size, self._widest) if self.args.use_cpu else next_size
        # Segments that narrower batches left would be used in part, and what is left of them would be lacking: up to a
        # tenth of what the widest batch needs. No operation without a GPU.
        torch.cuda.empty_cache()
        # What one rank has not seen, all rehearse: they compute together.
        (unseen,) = self._ranks.most([self.size_of(batch) > seen])
        measures, self.measures = self.measures, Measures()
        with without_trace(model):
            if unseen:
                self._try_out("batch", batch, lambda: self._rehearse_training(model, batch))
            if self.eval_dataset and not self._evaluated:
                rows = widest_batch(self.eval_dataset, self.args.per_device_eval_batch_size)
                inputs = self.data_collator(rows)
                self._try_out("evaluation batch", inputs, lambda: self._rehearse_evaluation(inputs))
        self.measures = measures
        self._on_rehearsed(time.monotonic() - began)

    def _try_out(self, what: str, batch: dict[str, Any], run: Callable[[], None]) -> None:
        """Run a batch and log it."""
        rows, width = self.shape_of(batch)
        form = f"{rows} {'row' if rows == 1 else 'rows'} of {width:,} tokens"
        try:
            run()
        except Exception as error:
            if is_out_of_memory(error):
                say(f"the longest {what} does not fit: {form}")
            raise
        if self._ranks.first:
            say(
                f"rehearsed the longest {what}: {form}, peak {self._memory.peaks()[0] / 2**30:.1f} GiB"
            )

    def _rehearse_training(self, model: Any, batch: dict[str, Any]) -> None:
        """The second of two batches has the first one's gradients beside it."""
        learnt = self.learnt_in(batch)
        if learnt is not None:
            learnt = learnt.to(self.args.device)
        for _ in range(min(2, self.args.gradient_accumulation_steps)):
            self._train_on(model, dict(batch), learnt)
        model.zero_grad()

    def _rehearse_evaluation(self, batch: dict[str, Any]) -> None:
        self._begin_evaluation()
        with torch.no_grad():
            self.score(self.new_scores(), self._prepare_inputs(batch))
        self._end_evaluation()

    def _begin_evaluation(self) -> None:
        self._on_phase("eval")
        self._memory.enter("eval")
        self.model.eval()

    def _end_evaluation(self) -> None:
        self.model.train()
        self._memory.enter("optimizer")
        self._on_phase("train")

    def count_tokens(self) -> int:
        """Tokens trained on so far, padding left out; kept in the Trainer's state, and so in its checkpoints."""
        if self._uncounted is not None:
            self.state.num_input_tokens_seen += int(self._uncounted)
            self._uncounted = None
        return int(self.state.num_input_tokens_seen)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning-rate schedule, over the updates that the plan says.

        Raises:
            SettingsError: train.lr_scheduler_kwargs do not suit it.
        """
        spans = self._plan.schedule_steps
        try:
            given = self._schedule.make(self.optimizer if optimizer is None else optimizer)
            if given is not None:
                self.lr_scheduler: Any = given
                self._created_lr_scheduler = True
                return given
            schedule = super().create_scheduler(spans, optimizer)
            # Some settings are looked at only once the warm-up is over.
            for rate in getattr(schedule, "lr_lambdas", ()):
                rate(spans)
        except (TypeError, ValueError, ArithmeticError) as error:
            names = ", ".join(self.args.lr_scheduler_kwargs or {}) or "nothing"
            raise SettingsError(
                f"train.lr_scheduler_kwargs ({names}) do not suit lr_scheduler_type = "
                f'"{self.args.lr_scheduler_type.value}": {first_line(error)}'
            ) from None
        self._schedule.change(schedule)
        return schedule

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """What the stage's scores are over the evaluation rows: eval_loss, and what else it watches.

        Trainer's own evaluation averages over rows and leaves out batches that are not finite; this one weighs by
        tokens, so that it does not depend on the batch size, and keeps NaN. It draws no random numbers.
        """
        metrics = self._measure(self.eval_dataset if eval_dataset is None else eval_dataset)
        if metrics is None:
            # Half an evaluation is none: nothing is logged of it.
            judged = self.args.metric_for_best_model or f"{metric_key_prefix}_loss"
            return {f"{metric_key_prefix}_loss": math.nan, judged: math.nan}
        self._check_judged(metrics)
        self.log(dict(metrics))
        # Callbacks change the control in place.
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _check_judged(self, metrics: dict[str, float]) -> None:
        judged = self.args.metric_for_best_model
        if judged is not None and judged not in metrics:
            raise SettingsError(
                f"search.rank_by: the evaluations of this model do not tell {judged}, which the run is judged by; they "
                f"tell {', '.join(metrics)}"
            )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether a checkpoint is saved after an evaluation: the best one's is, and what was due anyway."""
        best = super()._determine_best_metric(metrics=metrics, trial=trial)
        return bool(best) or bool(self.control.should_save)

    def _measure(self, rows: Any) -> dict[str, float] | None:
        """What `evaluate` returns; None where a stop cuts it short."""
        size = self.args.per_device_eval_batch_size
        self._begin_evaluation()
        scores = self.new_scores()
        collate = RankCollator(self.data_collator, rows)
        with torch.no_grad():
            # Each rank evaluates every n-th batch; all run as many, as they may compute together.
            for start in range(0, len(rows), size * self._ranks.count):
                self._requests.agree()
                if self._requests.outcome == "stopped":
                    self.cut_short = True
                    self._end_evaluation()
                    return None
                own = start + size * self._ranks.index
                batch = self._prepare_inputs(collate(rows[own : own + size]))
                self.score(scores, batch)
        scores.add_up(self._ranks)
        self._end_evaluation()
        self._evaluated = True
        metrics: dict[str, float] = scores.metrics()
        return metrics

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *arguments: Any, **named: Any
    ) -> None:
        """What is due after an update, and what is only reported: the loss at an ending, and looks.

        What is only reported leaves no trace in the run: an attempt that goes on after it logs what one that never
        ended would.
        """
        step = self.state.global_step
        ends = self.control.should_training_stop
        if ends and not self.control.should_log and self._told < step:
            self._tell(tr_loss, grad_norm)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, **named)
        if self._looked < step and self._plan.looks(step) and self._requests.outcome != "stopped":
            self._looked = step
            metrics = self._measure(self.eval_dataset)
            if metrics is not None:
                self._report(metrics)

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        """Log, with what the stage measured besides the loss."""
        if "loss" in logs:
            logs = logs | self.stage_logs()
            self.measures.clear()
        super().log(logs, *arguments, **named)

    def _tell(self, loss: Any, grad_norm: Any) -> None:
        """Report the mean loss since the last log."""
        updates = self.state.global_step - self._globalstep_last_logged
        if updates == 0:
            return
        self._told = self.state.global_step
        (total,) = self._ranks.total([float(loss)])
        logs = {"loss": total / updates}
        if grad_norm is not None:
            logs["grad_norm"] = float(grad_norm)
        self._report(logs | self.stage_logs())

    def _report(self, logs: dict[str, float]) -> None:
        """Give a log to the callbacks alone: the Trainer's own history does not know of it."""
        self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def take_up_window(self) -> None:
        """Go on with the mean of the losses that the checkpoint had not logged. Called as training begins."""
        if self._carried is not None and hasattr(self, "_tr_loss"):
            total, self._globalstep_last_logged = self._carried
            # It is the sum over all ranks, which is made again before it is logged.
            self._tr_loss += total if self._ranks.first else 0.0

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        self._memory.enter("save")
        super()._save_checkpoint(*arguments, **named)
        # What has just said that it is whole.
        checkpoints.make_durable(Path(self.args.output_dir, f"checkpoint-{self.state.global_step}"))
        self._memory.enter("optimizer")

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the last of the states. What says that a checkpoint is whole comes when the disk has the rest."""
        super()._save_rng_state(output_dir)
        checkpoints.make_durable(Path(output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        Path(output_dir, _OPTIM_FILE).write_text(self.args.optim.value, "utf-8")
        window = self._window()
        if window is not None:
            Path(output_dir, _WINDOW_FILE).write_text(json.dumps(window), "utf-8")

    def _window(self) -> dict[str, Any] | None:
        """What was measured since the last log, which a checkpoint keeps; None where it cannot be told."""
        if not hasattr(self, "_tr_loss"):
            return None
        # A number of 32 bits is exact as one of 64, and that as text.
        (total,) = self._ranks.total([float(self._tr_loss)])
        logged = self._globalstep_last_logged
        return {"loss": total, "logged": logged, "measures": self.measures.kept(self._ranks)}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take up the states of a checkpoint; those of another optimizer, before a fix say, are of no use, and it
        begins without."""
        if checkpoint is None:
            return
        window = Path(checkpoint, _WINDOW_FILE)
        if window.is_file():
            kept = json.loads(window.read_text("utf-8"))
            self._carried = float(kept["loss"]), int(kept["logged"])
            self.measures.take_up(kept.get("measures", {}), self._ranks)
        own = settings_of(self.optimizer)
        file = Path(checkpoint, _OPTIM_FILE)
        made_by = file.read_text("utf-8") if file.is_file() else "adamw_torch"
        if same_states(made_by, self.args.optim.value):
            with readable_states(self.args.optim.value):
                super()._load_optimizer_and_scheduler(checkpoint)
        else:
            say(
                f"the checkpoint is of {made_by}: {self.args.optim.value} begins without its states"
            )
            self._states_lost = True
            self._load_scheduler(Path(checkpoint))
        self._schedule.take_up(self.lr_scheduler, self.optimizer, own)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights of a checkpoint."""
        into = self.model if model is None else model
        if not take_up_adapter(into, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def take_best(self) -> None:
        """Give the model the weights that the run ends with, where the checkpoint that it begins with is its end."""
        if self.args.load_best_model_at_end and self.state.best_global_step:
            self._load_best_model()

    def _load_best_model(self) -> None:
        """The weights that the run ends with, where it keeps its best."""
        # A checkpoint names the folder that the trial was in when it was saved.
        best = Path(self.args.output_dir, f"checkpoint-{self.state.best_global_step}")
        if not is_whole(best):
            say(f"the best checkpoint, {best.name}, is gone: the run ends with its last weights")
            return
        self.state.best_model_checkpoint = str(best)
        if not take_up_adapter(self.model, best):
            super()._load_best_model()

    def _load_scheduler(self, checkpoint: Path) -> None:
        """The schedule of a checkpoint alone, and the rates that it has come to."""
        state = torch.load(checkpoint / "scheduler.pt", weights_only=True)
        self.lr_scheduler.load_state_dict(state)
        rates = self.lr_scheduler.get_last_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights that train: the adapter, or the whole model."""
        # What is counted so far belongs into the state that is saved after the weights.
        self.count_tokens()
        weights = weights_to_save(self.model, self._ranks)
        if self._ranks.first:
            save_weights(self.model, Path(output_dir or self.args.output_dir), weights)
