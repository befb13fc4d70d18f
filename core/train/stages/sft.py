"""Supervised fine-tuning and pretraining: the Trainer that learns to predict tokens, and its loss."""

from typing import Any

import torch

from core.train.examples import IGNORED
from core.train.stages.base import StageTrainer


class SftTrainer(StageTrainer):
    """Learns the tokens that carry a label; an evaluation's loss is the mean over all of them, in nats."""

    def __init__(self, **arguments: Any) -> None:
        """Arguments are StageTrainer's."""
        super().__init__(**arguments)
        if not self.model_accepts_loss_kwargs:
            # Else a model that takes no num_items_in_batch would average over batches, not tokens.
            self.compute_loss_func: Any = token_mean_loss


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
