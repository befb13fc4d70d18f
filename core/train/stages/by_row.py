"""The Trainer of stages whose loss is a mean over rows (rm, dpo, kto), and what adds up their evaluations."""

from typing import Any

import torch
from transformers import Trainer

from core.train.distributed.ranks import Ranks
from core.train.distributed.shares import SPARE
from core.train.measures import Measures
from core.train.stages.base import StageTrainer


class PlainInit(Trainer):  # type: ignore[misc]
    """Stands before TRL's trainer among the bases of ours, and leaves its __init__ out: that tokenises, rounds the
    adapters of quantised models to bf16, copies adapters, sets pad tokens, and tells its makers."""

    def __init__(self, **arguments: Any) -> None:
        """Arguments are transformers.Trainer's."""
        Trainer.__init__(self, **arguments)


class RowTrainer(StageTrainer):
    """Every row of an update weighs the same, in whatever batch it is: the last batch of an epoch, which has fewer,
    does not weigh more."""

    loss_is_scaled_for_ga = True
    """Read by transformers: the loss of a batch is its part of the update's."""

    answers = 1
    """How many answers a row has, each of which a batch has beside its prompt."""

    def rows_in(self, inputs: Any) -> int:
        """Rows that the loss of a batch is the mean over; none of a batch that stands for none."""
        return 0 if SPARE in inputs else int(inputs["input_ids"].shape[0]) // self.answers

    def shape_of(self, inputs: Any) -> tuple[int, int]:
        """As of StageTrainer; a row is one of the data."""
        return self.rows_in(inputs), int(inputs["input_ids"].shape[1])

    def learnt_in(self, inputs: Any) -> Any:
        """As of StageTrainer: rows."""
        return torch.tensor(self.rows_in(inputs))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of an update, and how many rows it has."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, torch.tensor(sum(map(self.rows_in, batches)), device=device)

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch, as a part of the update's where that has `num_items_in_batch` rows."""
        rows = self.rows_in(inputs)
        loss = super().compute_loss(model, inputs)
        return loss if num_items_in_batch is None else loss * (rows / num_items_in_batch)

    def new_scores(self) -> Any:
        """As of StageTrainer."""
        return RowScores()


class RowScores:
    """Means over all rows of an evaluation."""

    def __init__(self) -> None:
        self._measures = Measures()

    def add(self, name: str, values: Any) -> None:
        """Take in a tensor with one number a row, under a name as "loss"."""
        self._measures.add(name, values)

    def add_up(self, ranks: Ranks) -> None:
        """Take in what the other ranks have added. A collective."""
        self._measures.add_up(ranks)

    def metrics(self) -> dict[str, float]:
        """As eval_loss, eval_reward_margin."""
        return {f"eval_{name}": value for name, value in self._measures.means().items()}


def right(margins: Any) -> Any:
    """1 where a margin is above 0, 0 where it is not, and NaN where it is NaN."""
    return torch.where(margins.isnan(), margins, (margins > 0).to(margins.dtype))
