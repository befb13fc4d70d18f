"""What stages dpo and kto share: log probabilities of answers, by the policy and by the reference it is held to."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trl.trainer.utils import add_fused_lm_head

from core.profile import Profile
from core.train.data.examples import IGNORED
from core.train.distributed.shares import computed
from core.train.errors import ModelError
from core.train.model.build import load_unprepared, offload_to_host, prepare
from core.train.model.source import Source
from core.train.ppo.policy import without_dropout
from core.train.precision import Device, Numbers
from core.train.stages.by_row import RowTrainer
from core.train.stages.reference import (
    AdaptersOff,
    Frozen,
    Reference,
    compute_alike,
    load_reference,
    twin_of,
)
from core.train.stages.stage import UsualParts


class PreferenceStage(UsualParts):
    """What dpo and kto do the same way. The reference is loaded with the model, before a checkpoint changes that."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.reference: Reference | None = None

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares the policy with a reference."""
        return True

    def load_model(
        self, profile: Profile, source: Source, numbers: Numbers, device: Device, folder: Path
    ) -> Any:
        """As of Stage. The model's own dropout is off, as in TRL: it is compared with a reference that has none.

        Raises:
            ModelError: besides, the reference cannot be loaded, or there are adapters where log probabilities are
                computed from the weights themselves.
        """
        model = without_dropout(load_unprepared(profile, source, numbers, device))
        twin = twin_of(profile, model) if self.has_reference else None
        model = prepare(model, profile, numbers, offload_to_host)
        check_head(model, profile.method.stage)
        if self.has_reference:
            loaded = load_reference(profile, source, numbers, device, folder, model, twin)
            self.reference = loaded or AdaptersOff(model)
        return model


class PreferenceTrainer(RowTrainer):
    """A Trainer that takes its loss from one of TRL's, which is its last base, after PlainInit. What that loss reads is
    set here. The reference's log probabilities are computed here too, and given to it as if that had been before."""

    def __init__(self, *, reference: Reference | None, **arguments: Any) -> None:
        """Arguments are StageTrainer's; `reference` is None where the loss needs none."""
        super().__init__(**arguments)
        self.take_up(reference)

    def take_up(self, reference: Reference | None) -> None:
        """Set what TRL's loss reads. The memory dry run does so too, on a trainer whose __init__ it leaves out, so that
        the loss that it simulates is the one that runs: of the Trainer there are model and accelerator."""
        self._reference = reference
        # The head of the policy tells the log probabilities of answers without logits of rows × tokens × vocabulary.
        # The other outputs are read by TRL's measures.
        own = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        add_fused_lm_head(own, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        if reference is not None:
            compute_alike(reference, self.model)
        if isinstance(reference, Frozen):
            add_fused_lm_head(reference.model)
            reference.model = self.place_beside(reference.model)
        text = self.model.config.get_text_config()
        self.router_aux_loss_coef: float = getattr(text, "router_aux_loss_coef", 0.0) or 0.0
        asked = bool(getattr(text, "output_router_logits", False))
        self.aux_loss_enabled: bool = asked and self.router_aux_loss_coef != 0.0
        self.ref_model: Any = None
        self.precompute_ref_logps: bool = True
        self.maybe_activation_offload_context: Any = nullcontext()
        self._is_vision_dataset: bool = False
        self._tp_size: int = 1
        self.forget_trls_measures()

    def forget_trls_measures(self) -> None:
        """Drop what TRL's loss has measured: means of batches, where ours are of rows."""
        self._metrics: dict[str, Any] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens: int = 0

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """TRL writes a card into the folder of checkpoints; a result's card is written when it is exported."""

    def log_probs(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """The log probability of each row's answer, nats: one number a row."""
        made = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            use_cache=False,
            labels=batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED),
            fused_lm_head=True,
        )
        return made.log_probs.sum(-1)


class Heard:
    """A model whose answers' log probabilities are noted: TRL's loss keeps them to itself."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.log_probs: Any = None
        """Of each row's answer, with gradients where they were computed."""
        self.aux_loss: Any = None
        """Of a mixture of experts whose config asks for it: how unevenly they are used."""

    def __call__(self, **inputs: Any) -> Any:
        """As the model."""
        made = self._model(**computed(inputs))
        self.log_probs, self.aux_loss = made.log_probs.sum(-1), made.aux_loss
        return made


def check_head(model: Any, stage: str) -> None:
    """Check that there is no adapter on the output head.

    Raises:
        ModelError: there is one, and log probabilities are computed from the head's weights themselves.
    """
    if _adapts_head(model):
        raise ModelError(
            f"method.lora_target: stage {stage} computes log probabilities from the weights of the output head, so "
            "that an adapter on it would never learn; leave it out of lora_target (method.additional_target can train "
            "the head as a whole)"
        )


def _adapts_head(model: Any) -> bool:
    if not hasattr(model, "peft_config"):
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(model.get_output_embeddings(), BaseTunerLayer)
