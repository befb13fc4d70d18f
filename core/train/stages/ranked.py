"""The Trainer of one of several ranks that train a trial together (`core.train.distributed.ranks`).

Transformers and accelerate take each rank for a training on one GPU. What is shared is added here: a rank computes its
part of each batch, gradients are averaged over the ranks, and what is logged is of all of them. Rank 0 alone writes;
the others take part in making whole what it writes.
"""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from core.train.data.stored import group_sizes
from core.train.distributed.sharding import replicate, shard
from core.train.distributed.shares import RankBatches, RankCollator, seen_tokens
from core.train.stages.base import StageTrainer
from core.train.stages.sft import SftTrainer


class RankedTrainer(StageTrainer):
    """Stands before a stage's trainer among the bases of one beside others. With `sharding` "fsdp" the models that it
    is given are on the host."""

    def __init__(self, *, sharding: str, **arguments: Any) -> None:
        """`sharding` is resources.sharding; `arguments` are the stage's trainer's."""
        self._sharding = sharding
        super().__init__(**arguments)

    # The rank's part ------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """The batches of this rank."""
        size, rows = self.args.per_device_train_batch_size, self.train_dataset
        every = self.args.gradient_accumulation_steps
        return torch.utils.data.DataLoader(
            rows,
            batch_sampler=RankBatches(
                len(rows),
                size,
                self._order_seed,
                self._ranks,
                # The Trainer asks for an epoch's batches when it begins it, or goes on in the middle of it.
                lambda batches: self.state.global_step // math.ceil(batches / every),
                group_sizes(rows),
            ),
            collate_fn=RankCollator(self.data_collator, rows),
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of an update, and how much (`learnt_in`) all ranks learn in it together."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        own = [sum(int(self.learnt_in(batch)) for batch in batches), sum(map(seen_tokens, batches))]
        learns, sees = self._ranks.total(own)
        self._uncounted = int(sees) + int(self._uncounted or 0)
        return batches, torch.tensor(int(learns), device=device)

    def _count(self, inputs: Any) -> None:
        """Tokens are counted an update at a time, over all ranks."""

    # The model ------------------------------------------------------------------------------------------------------

    def _move_model_to_device(self, model: Any, device: Any) -> Any:
        """Put the model on its device; one that is to be sharded comes there in parts."""
        return None if self._sharding == "fsdp" else super()._move_model_to_device(model, device)

    def place_beside(self, model: Any) -> Any:
        """As of StageTrainer; beside a model in parts, in parts too."""
        if self._sharding != "fsdp":
            return super().place_beside(model)
        prepared = self.accelerator.prepare_model(
            model, device_placement=False, evaluation_mode=True
        )
        shard(prepared, self._ranks, self.args.device.type, trains=False)
        return prepared

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer that the profile asks for, of this rank's part of the weights."""
        if self._sharding == "fsdp" and self.optimizer is None:
            # Not before: a checkpoint's weights are loaded into the whole model.
            shard(self.model, self._ranks, self.args.device.type)
        return super().create_optimizer(model)

    def _wrap_model(self, model: Any, *arguments: Any, **named: Any) -> Any:
        """The model as it trains: where each rank holds all of it, one of the replicas."""
        if self._sharding == "fsdp":
            return super()._wrap_model(model, *arguments, **named)
        # Accelerate prepares what transformers does not wrap; here that is mixed precision alone.
        prepared = self.accelerator.prepare_model(
            model, device_placement=False, evaluation_mode=True
        )
        return replicate(prepared)

    # An update ------------------------------------------------------------------------------------------------------

    def _train_on(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Any:
        # Only replicas can wait with their gradients for the last batch of an update: waiting would make those of a
        # sharded model whole.
        waits = hasattr(model, "no_sync") and not self.accelerator.sync_gradients
        with model.no_sync() if waits else nullcontext():
            return super()._train_on(model, inputs, num_items_in_batch) / self._ranks.count

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        """The loss of a batch, as a part of the update's. The gradients of all ranks are averaged and not added up."""
        return super().compute_loss(*arguments, **named) * self._ranks.count

    def _get_grad_norm(self, model: Any, *arguments: Any, **named: Any) -> Any:
        """The norm of the gradients whose parts the ranks hold."""
        norm = super()._get_grad_norm(model, *arguments, **named)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def _maybe_log_save_evaluate(self, tr_loss: Any, *arguments: Any, **named: Any) -> None:
        """Log the loss of all ranks, not of this one's rows."""
        if self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            self._ranks.add(tr_loss)
        super()._maybe_log_save_evaluate(tr_loss, *arguments, **named)

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        if self._ranks.first:
            super()._save_checkpoint(*arguments, **named)
            return
        self._memory.enter("save")
        # Rank 0 asks for the others' parts in this order.
        folder = str(Path(self.args.output_dir, f"checkpoint-{self.state.global_step}"))
        self.save_model(folder)
        self._save_optimizer_and_scheduler(folder)
        self._save_rng_state(folder)
        self._memory.enter("optimizer")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._ranks.first:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        self.optimizer.state_dict()
        self._window()

    def _save_rng_state(self, output_dir: str) -> None:
        """Every rank draws numbers of its own. Rank 0 goes on to what makes a checkpoint whole when all are there."""
        super()._save_rng_state(self._own_folder(output_dir))
        self._ranks.wait()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        own = None if checkpoint is None else self._own_folder(checkpoint)
        # A checkpoint of fewer ranks has no numbers for this one, which goes on with those of its seed.
        super()._load_rng_state(own if own and Path(own).is_dir() else None)

    def _own_folder(self, checkpoint: str) -> str:
        """Where in a checkpoint this rank keeps what is its own."""
        return (
            checkpoint if self._ranks.first else str(Path(checkpoint, f"rank-{self._ranks.index}"))
        )


class RankedSftTrainer(RankedTrainer, SftTrainer):
    """Stages sft and pt beside others."""
