"""Stage kto: learn from single answers that somebody found good or bad (Ethayarajh et al. 2024, arXiv 2402.01306).

An answer's value is measured from a reference point: the KL divergence of policy and reference, which answers to other
prompts estimate. TRL makes that estimate anew for every batch; here it is one for each update, over all of its rows,
and one for an evaluation, over all of those: so neither depends on how rows are put into batches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import trl

from core.params import AlignmentTable
from core.train.data.examples import Tagged, Tokens
from core.train.data.stored import sizes_of
from core.train.distributed.ranks import Ranks
from core.train.distributed.shares import SPARE, before
from core.train.errors import SettingsError
from core.train.log import say
from core.train.stages.by_row import PlainInit, right
from core.train.stages.collators import TaggedCollator
from core.train.stages.preference import (
    Heard,
    PreferenceStage,
    PreferenceTrainer,
)


class KtoStage(PreferenceStage):
    """Stage kto."""

    def collator(self, pad_id: int, multiple: int) -> Any:
        """As of Stage."""
        return TaggedCollator(pad_id, multiple)

    def trainer(self, tokenizer: Any, shared: Mapping[str, Any]) -> Any:
        """As of Stage. The log says where the good answers and the bad ones do not balance.

        Raises:
            SettingsError: a run is judged by what its rows cannot tell.
        """
        alignment, rows = self.profile.alignment, shared["train_dataset"]
        good = sum(row.good for row in rows)
        advice = imbalance(good, len(rows) - good, alignment)
        if advice is not None:
            say(advice)
        _check_judged(shared["eval_dataset"], shared["args"].metric_for_best_model)
        own: dict[str, Any] = {"reference": self.reference, "alignment": alignment}
        if not shared["ranks"].several:
            return KtoTrainer(**own, **shared)
        from core.train.stages.ranked_by_row import RankedKtoTrainer

        return RankedKtoTrainer(sharding=self.profile.resources.sharding, **own, **shared)


def _check_judged(rows: Sequence[Tagged] | None, judged: str | None) -> None:
    """Check, before anything trains, that evaluations will tell what they are judged by."""
    if judged == "eval_reward_margin" and rows and len({row.good for row in rows}) == 1:
        kind = "good" if rows[0].good else "bad"
        raise SettingsError(
            f"search.rank_by: the answers to evaluate on are all {kind}, and {judged} is what good ones gain on bad "
            "ones; raise data.val_size, or rank by eval_reward_accuracy"
        )


def imbalance(good: int, bad: int, alignment: AlignmentTable) -> str | None:
    """What to change where weight × number of the good answers is not 1 to 4/3 times that of the bad ones (equation 8
    of the paper); None where it is, or where there is only one kind."""
    if not good or not bad:
        return None
    own = alignment.kto_chosen_weight * good / (alignment.kto_rejected_weight * bad)
    if 1 <= round(own, 2) <= 1.34:
        return None
    if own < 1:
        key, value = "kto_chosen_weight", alignment.kto_chosen_weight / own
    else:
        key, value = "kto_rejected_weight", alignment.kto_rejected_weight * own
    return (
        f"{good:,} good and {bad:,} bad answers: the good ones weigh {own:.2g} times as much as the bad ones, and 1 to "
        f"1.33 is advised; alignment.{key} = {value:.2g} balances them"
    )


class KtoTrainer(PreferenceTrainer, PlainInit, trl.KTOTrainer):  # type: ignore[misc]
    """Learns from answers that are good or bad."""

    def __init__(self, *, alignment: AlignmentTable, **arguments: Any) -> None:
        """Arguments are PreferenceTrainer's."""
        super().__init__(**arguments)
        self.weigh(alignment)
        both = [rows for rows in (self.train_dataset, self.eval_dataset) if rows]
        self._most = max(int(sizes_of(rows).max()) for rows in both)
        """Tokens of the longest row: a prompt with another's answer is cut to as many, which the model takes."""
        self._waiting: list[dict[str, Any]] = []
        """The mismatched rows of an update whose reference point has yet to be computed."""

    def weigh(self, alignment: AlignmentTable) -> None:
        """Set which loss it is, as PreferenceTrainer.take_up sets what that reads."""
        self.beta: float = alignment.pref_beta
        self.desirable_weight: float = alignment.kto_chosen_weight
        self.undesirable_weight: float = alignment.kto_rejected_weight
        self.loss_type: str = "kto"
        self.calculate_KL: bool = True
        self._point: Any = None
        """The reference point of the update, nats: a tensor of one number."""
        self._mean_of_mismatched: Any = None

    # The reference point --------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """As of RowTrainer. For the reference point each prompt gets the answer of the row before it in the update, the
        first one that of the last."""
        batches, rows = super().get_batch_samples(epoch_iterator, num_batches, device)
        parts = [batch["rows"] for batch in batches]
        own = [[] if SPARE in batch else answers_of(batch["rows"]) for batch in batches]
        answers, count = before(own, self._ranks)
        # A row that stands for none computes along, with any answer.
        answers = [given or answers_of(part) for given, part in zip(answers, parts, strict=True)]
        self._point = None
        self._waiting = (
            [
                made | {SPARE: True} if SPARE in batch else made
                for made, batch in zip(self._mismatched(parts, answers), batches, strict=True)
            ]
            if count > 1
            else []
        )
        return batches, rows

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        if self._point is None:
            # Computed when an update begins, as noise is drawn from where a checkpoint has left it only then.
            model.train()
            self._memory.enter("forward")
            self._point = self._reference_point(self._waiting)
            self._waiting = []
        return super().training_step(model, inputs, num_items_in_batch)

    def _rehearse_training(self, model: Any, batch: Any) -> None:
        """As of StageTrainer, with the passes that a reference point takes."""
        point, self._point = self._point, None
        super()._rehearse_training(model, batch)
        self._point = point

    def _mismatched(
        self, parts: Sequence[Sequence[Tagged]], answers: Sequence[Sequence[Tokens]]
    ) -> list[dict[str, Any]]:
        """Each part's prompts with the answers of the rows before them."""
        return [
            self.data_collator.mismatched(part, given, self._most)
            for part, given in zip(parts, answers, strict=True)
        ]

    def _reference_point(self, batches: Sequence[dict[str, Any]]) -> Any:
        """What all ranks' `batches` estimate: the mean over their rows, not below 0. A row alone has no other's answer,
        and its own would take its reward for the divergence: 0. A collective."""
        moved = [self._moved(batch)[: 0 if SPARE in batch else None] for batch in batches]
        if not moved:
            return torch.zeros(1, device=self.args.device)
        own = torch.cat(moved)
        if not self._ranks.several:
            return own.mean(0, keepdim=True).clamp(min=0)
        sums = torch.stack([own.sum(), torch.full_like(own.sum(), len(own))])
        self._ranks.add(sums)
        return (sums[:1] / sums[1:]).clamp(min=0)

    def _moved(self, batch: Mapping[str, Any]) -> Any:
        """By how much the policy's log probability of each answer is above the reference's, without gradients."""
        inputs = self._prepare_inputs(batch)
        with torch.no_grad():
            return self.log_probs(self.model, inputs) - self.log_probs(self._reference, inputs)

    # The loss -------------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        """The loss of a batch, a mean over its rows. What was measured is added to `measures`."""
        rows = inputs["rows"]
        batch = {name: tensor for name, tensor in inputs.items() if name != "rows"}
        point = self._point
        if point is None:
            point = self._reference_point(
                self._mismatched([rows], [shifted(rows, rows[-1].answer)])
            )
        reference = self.log_probs(self._reference, batch)
        heard = Heard(model)
        # TRL takes the mean of the differences between two log probabilities of mismatched answers.
        self._mean_of_mismatched = point
        given = {"ref_logps": reference, "ref_KL_logps": torch.zeros_like(point)}
        loss = trl.KTOTrainer._compute_loss(self, heard, batch | given, False)
        self.forget_trls_measures()
        own, moved = self.rows_in(inputs), heard.log_probs.detach() - reference
        self._measure_rows(moved[:own], batch["label"][:own], point)
        # TRL leaves rows that are NaN out of the mean: a run that has gone wrong would look like one that has not.
        return loss + 0.0 * heard.log_probs.sum()

    def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
        """Called by TRL's loss."""
        return self._mean_of_mismatched

    def _measure_rows(self, moved: Any, good: Any, point: Any) -> None:
        """Add what the rows of a batch measure."""
        rewards = self.beta * moved
        above = rewards - self.beta * point
        self.measures.add("reward_accuracy", right(torch.where(good, above, -above)))
        self.measures.add("reward_chosen", rewards[good])
        self.measures.add("reward_rejected", rewards[~good])
        self.measures.add("kl", point.expand(len(moved)))

    def stage_logs(self) -> dict[str, float]:
        """As of StageTrainer."""
        return with_margin(super().stage_logs())

    def new_scores(self) -> Any:
        """As of StageTrainer."""
        weights = self.desirable_weight, self.undesirable_weight
        return Verdicts(self.beta, weights, self.eval_dataset[-1].answer)

    def score(self, scores: Any, batch: Any) -> None:
        """As of StageTrainer."""
        rows, own = batch["rows"], self.rows_in(batch)
        first, last = self._between(scores.last, rows[-1].answer)
        (mismatched,) = self._mismatched([rows], [shifted(rows, first)])
        moved = self.log_probs(self.model, batch) - self.log_probs(self._reference, batch)
        scores.add(moved[:own], batch["label"][:own], self._moved(mismatched)[:own], last)

    def _between(self, last: Tokens, own: Tokens) -> tuple[Tokens, Tokens]:
        """The answers before this rank's batch of an evaluation and before the next one of rank 0. The ranks' batches
        come one after the other; `last` is the answer before them, `own` the last one of this batch. A collective."""
        if not self._ranks.several:
            return last, own
        each = [np.asarray(ids, dtype=np.int32) for ids in self._ranks.exchange(own.tolist())]
        return last if self._ranks.first else each[self._ranks.index - 1], each[-1]


def answers_of(rows: Sequence[Tagged]) -> list[Tokens]:
    """The answer of each row."""
    return [row.answer for row in rows]


def shifted(rows: Sequence[Tagged], first: Tokens) -> list[Tokens]:
    """For each row the answer of the one before it, `first` for the first one."""
    return [first, *answers_of(rows[:-1])]


class Verdicts:
    """What an evaluation adds up. Its loss is known only when all rows have made the reference point."""

    def __init__(self, beta: float, weights: tuple[float, float], last: Tokens) -> None:
        """`weights` of good and bad answers; `last` is the answer before the first row's: the last row's."""
        self._beta = beta
        self._weights = weights
        self.last = last
        """The answer that the next row's prompt is mismatched with."""
        self._moved: list[Any] = []
        self._good: list[Any] = []
        self._mismatched: list[Any] = []

    def add(self, moved: Any, good: Any, mismatched: Any, last: Tokens) -> None:
        """Add a batch: by how much the policy's log probability is above the reference's (nats, one a row) of its
        answers and of the mismatched ones, which answers are good, and its last answer."""
        self._moved.append(moved.double().cpu())
        self._good.append(good.cpu())
        self._mismatched.append(mismatched.double().cpu())
        self.last = last

    def add_up(self, ranks: Ranks) -> None:
        """Take in what the other ranks have added. A collective."""
        own = torch.cat([torch.cat(part).double() for part in self._parts()])
        each = [torch.tensor(numbers, dtype=own.dtype) for numbers in ranks.exchange(own.tolist())]
        moved, good, mismatched = torch.cat([made.view(3, -1) for made in each], dim=1)
        self._moved, self._good, self._mismatched = [moved], [good.bool()], [mismatched]

    def _parts(self) -> tuple[list[Any], list[Any], list[Any]]:
        return self._moved, self._good, self._mismatched

    def metrics(self) -> dict[str, float]:
        """eval_loss (equations 7 and 8), eval_kl (nats), eval_reward_accuracy and, where there are good answers and bad
        ones, eval_reward_margin."""
        moved, good = torch.cat(self._moved), torch.cat(self._good)
        point = torch.cat(self._mismatched).mean().clamp(min=0)
        point = torch.zeros_like(point) if len(moved) == 1 else point
        above = self._beta * torch.where(good, moved - point, point - moved)
        weights = torch.where(good, *map(torch.tensor, self._weights))
        found = {
            "loss": (weights * (1 - torch.sigmoid(above))).mean(),
            "reward_accuracy": right(above).mean(),
            "kl": point,
        }
        for name, kind in (("reward_chosen", good), ("reward_rejected", ~good)):
            if kind.any():
                found[name] = self._beta * moved[kind].mean()
        numbers = with_margin({name: float(value) for name, value in found.items()})
        return {f"eval_{name}": value for name, value in numbers.items()}


def with_margin(measured: dict[str, float]) -> dict[str, float]:
    """Rewards with the margin between good and bad answers, where there are both."""
    good, bad = measured.get("reward_chosen"), measured.get("reward_rejected")
    if good is None or bad is None:
        return measured
    return measured | {"reward_margin": good - bad}
