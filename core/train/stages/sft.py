"""Supervised fine-tuning and pretraining: the Trainer that learns to predict tokens, and its loss."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.profile import Profile
from core.train.data.batches import Collator
from core.train.data.examples import IGNORED
from core.train.model.build import load_model
from core.train.model.source import Source
from core.train.precision import Device, Numbers
from core.train.scores import Scores
from core.train.stages.base import StageTrainer
from core.train.stages.stage import UsualParts


class SftStage(UsualParts):
    """Stages sft and pt, which differ in their data and in what their people watch."""

    def __init__(self, profile: Profile) -> None:
        self._perplexity = profile.method.stage == "pt"
        self._sharding = profile.resources.sharding
        self._flat = profile.model.attn == "flash_attention_2"

    def load_model(
        self, profile: Profile, source: Source, numbers: Numbers, device: Device, folder: Path
    ) -> Any:
        """As `core.train.model.build.load_model`."""
        return load_model(profile, source, numbers, device)

    def collator(self, pad_id: int, multiple: int) -> Any:
        """As of Stage."""
        return Collator(pad_id, multiple, flat=self._flat)

    def trainer(self, tokenizer: Any, shared: Mapping[str, Any]) -> Any:
        """An SftTrainer, or one beside others where there are several ranks."""
        if not shared["ranks"].several:
            return SftTrainer(perplexity=self._perplexity, **shared)
        from core.train.stages.ranked import RankedSftTrainer

        return RankedSftTrainer(sharding=self._sharding, perplexity=self._perplexity, **shared)


class SftTrainer(StageTrainer):
    """Learns the tokens that carry a label; an evaluation's loss is the mean over all of them, in nats."""

    def __init__(self, *, perplexity: bool = False, **arguments: Any) -> None:
        """Arguments are StageTrainer's. With `perplexity`, evaluations tell that too."""
        super().__init__(**arguments)
        self._perplexity = perplexity
        if not self.model_accepts_loss_kwargs:
            # Else a model that takes no num_items_in_batch would average over batches, not tokens.
            self.compute_loss_func: Any = token_mean_loss

    def new_scores(self) -> Scores:
        """As of StageTrainer."""
        return Scores(perplexity=self._perplexity)


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
