"""Reward models: a model with one number in place of a vocabulary learns to score the better of two answers higher."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import AutoModelForSequenceClassification

from core.profile import Profile
from core.train.data.examples import Pair
from core.train.distributed.shares import computed
from core.train.model.build import load_base, offload_to_host, prepare
from core.train.model.source import Source
from core.train.ppo.policy import without_dropout
from core.train.precision import Device, Numbers
from core.train.stages.by_row import PlainInit, RowTrainer, right
from core.train.stages.collators import PairCollator
from core.train.stages.stage import UsualParts

HEAD = "score"
"""What transformers calls the layer that makes one number of a hidden state."""


class RewardStage(UsualParts):
    """What `rm` does its own way."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def load_model(
        self, profile: Profile, source: Source, numbers: Numbers, device: Device, folder: Path
    ) -> Any:
        """The model with a score in place of its vocabulary; one that begins at random where its files have none. Its
        own dropout is off, as in TRL: a reward must not depend on chance."""
        whole = profile.method.finetuning_type == "full"
        kind = numbers.trained if whole else numbers.frozen
        model = load_base(
            profile, source, numbers, device, AutoModelForSequenceClassification, kind,
            random=(HEAD,), num_labels=1,
        )  # fmt: skip
        without_dropout(model)
        return prepare(model, profile, numbers, offload_to_host, "SEQ_CLS", (HEAD,))

    def collator(self, pad_id: int, multiple: int) -> Any:
        """As of Stage."""
        return RewardCollator(pad_id, multiple)

    def trainer(self, tokenizer: Any, shared: Mapping[str, Any]) -> Any:
        """As of Stage."""
        pad = tokenizer.pad_token_id
        # By it the model knows where a row ends, and so does whoever loads the result.
        config = shared["model"].config
        config.get_text_config().pad_token_id = tokenizer.eos_token_id if pad is None else pad
        if not shared["ranks"].several:
            return RewardTrainer(**shared)
        from core.train.stages.ranked_by_row import RankedRewardTrainer

        return RankedRewardTrainer(sharding=self._profile.resources.sharding, **shared)


class RewardCollator(PairCollator):
    """As PairCollator, without what a model that scores whole rows does not take."""

    def __call__(self, batch: Sequence[Pair]) -> dict[str, Any]:
        """Tensors input_ids and attention_mask, 2 × pairs × tokens (int64)."""
        made = super().__call__(batch)
        return {name: made[name] for name in ("input_ids", "attention_mask")}


class RewardTrainer(RowTrainer, PlainInit, trl.RewardTrainer):  # type: ignore[misc]
    """Learns from pairs with TRL's loss: −log σ(score of the chosen − score of the rejected), the mean over pairs
    (Bradley and Terry's model). A batch has all chosen answers first, then all rejected ones."""

    answers = 2

    def __init__(self, **arguments: Any) -> None:
        """Arguments are StageTrainer's."""
        super().__init__(**arguments)
        self.take_up()

    def take_up(self) -> None:
        """Set what TRL's loss reads, as PreferenceTrainer.take_up does: of the Trainer there are model, accelerator and
        args."""
        # TrainingArguments lack it.
        self.args.center_rewards_coefficient = None
        self._tp_size: int = 1
        self.maybe_activation_offload_context: Any = nullcontext()
        self._forget_trls_measures()

    def _forget_trls_measures(self) -> None:
        """Drop what TRL's loss has measured: means of batches, where ours are of pairs."""
        self._metrics: dict[str, Any] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens: int = 0

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """TRL writes a card into the folder of checkpoints; a result's card is written when it is exported."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As of RowTrainer, with what the scores say."""
        heard = _Heard(model)
        loss = super().compute_loss(heard, inputs, return_outputs, num_items_in_batch)
        self._forget_trls_measures()
        pairs = self.rows_in(inputs)
        for name, values in _measured(heard.scores).items():
            self.measures.add(name, values[:pairs])
        return loss

    def score(self, scores: Any, batch: Any) -> None:
        """As of StageTrainer."""
        found = self.model(**computed(batch), use_cache=False).logits.squeeze(-1)
        chosen, rejected = found.chunk(2)
        pairs = self.rows_in(batch)
        scores.add("loss", -torch.nn.functional.logsigmoid(chosen - rejected)[:pairs])
        for name, values in _measured(found).items():
            scores.add(name, values[:pairs])


class _Heard:
    """A model whose scores are noted: TRL's loss keeps them to itself."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.scores: Any = None
        """One number a row."""

    def __call__(self, **inputs: Any) -> Any:
        """As the model."""
        made = self._model(**computed(inputs))
        self.scores = made.logits.detach().squeeze(-1)
        return made


def _measured(scores: Any) -> dict[str, Any]:
    """What the scores of pairs say, by name, one number a pair."""
    chosen, rejected = scores.chunk(2)
    margins = chosen - rejected
    return {
        "reward_accuracy": right(margins),
        "reward_margin": margins,
        "reward_chosen": chosen,
        "reward_rejected": rejected,
    }
