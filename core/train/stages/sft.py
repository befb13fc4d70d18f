"""Supervised fine-tuning: the Trainer that learns answers, and the loss that it is judged by."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from core.study.files import Phase
from core.train.chat import IGNORED
from core.train.data import Collator, epoch_order
from core.train.errors import SettingsError, first_line
from core.train.signals import Requests


class EpochSampler(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """The rows in an order that depends on the seed and the epoch alone: not on batch size, nor on what ran before."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows = rows
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at the start of each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._rows, self._seed, self._epoch))

    def __len__(self) -> int:
        return self._rows


class SftTrainer(Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer with our order of rows, token counts and evaluation loss."""

    def __init__(
        self,
        *,
        collator: Collator,
        data_seed: int,
        requests: Requests,
        on_phase: Callable[[Phase], None],
        **arguments: Any,
    ) -> None:
        """`on_phase` is told when an evaluation begins and when training goes on after it."""
        super().__init__(data_collator=collator, **arguments)
        self._on_phase = on_phase
        self._data_seed = data_seed
        self._requests = requests
        self._uncounted: torch.Tensor | None = None
        if not self.model_accepts_loss_kwargs:
            # Else a model that takes no num_items_in_batch would average over batches, not tokens.
            self.compute_loss_func: Any = token_mean_loss

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(len(rows), self._data_seed)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        # Summed on the device and read only when it is reported: reading it here would wait for the GPU every batch.
        tokens = inputs["attention_mask"].sum()
        self._uncounted = tokens if self._uncounted is None else self._uncounted + tokens
        return super().training_step(model, inputs, num_items_in_batch)

    def count_tokens(self) -> int:
        """Tokens trained on so far, padding left out; kept in the Trainer's state, and so in its checkpoints."""
        if self._uncounted is not None:
            self.state.num_input_tokens_seen += int(self._uncounted)
            self._uncounted = None
        return int(self.state.num_input_tokens_seen)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning-rate schedule.

        Raises:
            SettingsError: train.lr_scheduler_kwargs do not suit it.
        """
        try:
            schedule = super().create_scheduler(num_training_steps, optimizer)
            # Some settings are looked at only once the warm-up is over.
            for rate in getattr(schedule, "lr_lambdas", ()):
                rate(num_training_steps)
            return schedule
        except (TypeError, ValueError, ArithmeticError) as error:
            given = ", ".join(self.args.lr_scheduler_kwargs or {}) or "nothing"
            raise SettingsError(
                f"train.lr_scheduler_kwargs ({given}) do not suit lr_scheduler_type = "
                f'"{self.args.lr_scheduler_type.value}": {first_line(error)}'
            ) from None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean loss over all learnt tokens of the evaluation rows, in nats.

        Trainer's own evaluation averages over rows and leaves out batches that are not finite; this one weighs by
        tokens, so that it does not depend on the batch size, and keeps NaN. It draws no random numbers.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        size = self.args.per_device_eval_batch_size
        was_training = self.model.training
        self._on_phase("eval")
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(rows), size):
                if self._requests.outcome == "stopped":
                    # Half an evaluation is none: nothing is logged of it.
                    self._on_phase("train")
                    return {f"{metric_key_prefix}_loss": math.nan}
                batch = self.data_collator(rows[start : start + size])
                learnt = int((batch["labels"][:, 1:] != IGNORED).sum())
                mean = self.model(**self._prepare_inputs(batch)).loss
                total += float(mean) * learnt
                tokens += learnt
        self.model.train(was_training)
        self._on_phase("train")
        metrics = {f"{metric_key_prefix}_loss": total / tokens}
        self.log(dict(metrics))
        # Callbacks change the control in place.
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights that train: the adapter, or the whole model."""
        # What is counted so far belongs into the state that is saved after the weights.
        self.count_tokens()
        save_weights(self.model, Path(output_dir or self.args.output_dir))


def save_weights(model: Any, folder: Path) -> None:
    """Save what trains: the adapter of a peft model, or the whole model.

    Raises:
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        # The default asks the hub whether the vocabulary has grown, and waits for an answer where there is no network.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)


def token_mean_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Cross-entropy of the next token: the sum over learnt tokens, divided by their number in the whole update."""
    logits = outputs.logits[:, :-1].float()
    targets = labels[:, 1:].to(logits.device)
    total = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        targets.reshape(-1),
        ignore_index=IGNORED,
        reduction="sum",
    )
    count = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return total / count
