"""Stage dpo: learn from pairs of answers, the better one chosen, with the losses of alignment.pref_loss.

sigmoid (Rafailov et al. 2023, arXiv 2305.18290, equation 7), ipo (Azar et al. 2023, arXiv 2310.12036, equation 17) and
hinge (Zhao et al. 2023, arXiv 2305.10425) are TRL's; orpo and simpo, which have no reference, stand in `pair_losses`.
"""

from collections.abc import Mapping
from typing import Any

import trl

from core.params import AlignmentTable
from core.train.stages.by_row import PlainInit, right
from core.train.stages.collators import PairCollator
from core.train.stages.pair_losses import NEEDS_NONE, odds_ratio_losses, simple_losses, smoothing
from core.train.stages.preference import (
    Heard,
    PreferenceStage,
    PreferenceTrainer,
)


class DpoStage(PreferenceStage):
    """Stage dpo."""

    @property
    def has_reference(self) -> bool:
        """As of PreferenceStage."""
        return self.profile.alignment.pref_loss not in NEEDS_NONE

    def collator(self, pad_id: int, multiple: int) -> Any:
        """As of Stage."""
        return PairCollator(pad_id, multiple)

    def trainer(self, tokenizer: Any, shared: Mapping[str, Any]) -> Any:
        """As of Stage."""
        own: dict[str, Any] = {"reference": self.reference, "alignment": self.profile.alignment}
        if not shared["ranks"].several:
            return DpoTrainer(**own, **shared)
        from core.train.stages.ranked_by_row import RankedDpoTrainer

        return RankedDpoTrainer(sharding=self.profile.resources.sharding, **own, **shared)


class DpoTrainer(PreferenceTrainer, PlainInit, trl.DPOTrainer):  # type: ignore[misc]
    """Learns from pairs. A batch has all chosen answers first, then all rejected ones."""

    answers = 2

    def __init__(self, *, alignment: AlignmentTable, **arguments: Any) -> None:
        """Arguments are PreferenceTrainer's."""
        super().__init__(**arguments)
        self.weigh(alignment)

    def weigh(self, alignment: AlignmentTable) -> None:
        """Set which loss it is, as PreferenceTrainer.take_up sets what that reads."""
        self._alignment = alignment
        self.beta: float = alignment.pref_beta
        self.loss_types: list[str] = [alignment.pref_loss]
        self.loss_weights: list[float] = [1.0]
        self.label_smoothing: float = 0.0
        self.ld_alpha: float | None = None
        self.f_divergence_type: str = "reverse_kl"
        self.use_weighting: bool = False

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        """The loss of a batch, a mean over its pairs. What was measured is added to `measures`."""
        loss, values = self._judge(model, inputs)
        for name, value in values.items():
            self.measures.add(name, value)
        return loss

    def score(self, scores: Any, batch: Any) -> None:
        """As of StageTrainer."""
        loss, values = self._judge(self.model, batch)
        scores.add("loss", loss.expand(self.rows_in(batch)))
        for name, value in values.items():
            scores.add(name, value)

    def _judge(self, model: Any, inputs: Any) -> tuple[Any, dict[str, Any]]:
        """The loss of a batch, and what its pairs measure by name, one number a pair."""
        lengths = inputs["completion_mask"][:, 1:].sum(-1).clamp(min=1)
        if self._reference is None:
            loss, policy = self._without_reference(model, inputs, lengths)
            rewards = self.beta * policy.detach() / lengths
        else:
            loss, policy, moved = self._beside_reference(model, inputs)
            rewards = self.beta * moved.detach()
        if self._alignment.pref_ftx:
            chosen, _ = (policy / lengths).chunk(2)
            loss = loss - self._alignment.pref_ftx * chosen.mean()
        pairs = self.rows_in(inputs)
        better, worse = (own[:pairs] for own in rewards.chunk(2))
        return loss, {
            "reward_accuracy": right(better - worse),
            "reward_margin": better - worse,
            "reward_chosen": better,
            "reward_rejected": worse,
        }

    def _without_reference(self, model: Any, inputs: Any, lengths: Any) -> tuple[Any, Any]:
        """The loss, and the log probabilities of the answers."""
        heard = Heard(model)
        policy = self.log_probs(heard, inputs)
        chosen, rejected = (policy / lengths).chunk(2)
        if self._alignment.pref_loss == "orpo":
            losses = odds_ratio_losses(chosen, rejected, self.beta)
        else:
            losses = simple_losses(chosen, rejected, self.beta, self._alignment.simpo_gamma)
        loss = losses.mean()
        if self.aux_loss_enabled:
            # As TRL's losses have it: what keeps the experts of a mixture evenly busy.
            loss = loss + self.router_aux_loss_coef * heard.aux_loss
        return loss, policy

    def _beside_reference(self, model: Any, inputs: Any) -> tuple[Any, Any, Any]:
        """The loss, the log probabilities of the answers, and by how much they are above the reference's."""
        reference = self.log_probs(self._reference, inputs)
        chosen, rejected = reference.chunk(2)
        heard = Heard(model)
        given = {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        loss = trl.DPOTrainer._compute_loss(self, heard, given, False)
        self.forget_trls_measures()
        moved = heard.log_probs - reference
        if self._alignment.dpo_label_smoothing:
            above, below = moved.chunk(2)
            loss = loss + smoothing(above - below, self.beta, self._alignment.dpo_label_smoothing)
        return loss, heard.log_probs, moved
