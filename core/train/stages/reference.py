"""The reference of stages dpo and kto: the model that the policy is held to, which never trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch

from core.profile import Profile
from core.train.errors import ModelError
from core.train.model.build import load_base
from core.train.model.source import Source, find_model
from core.train.precision import Device, Numbers


class AdaptersOff:
    """The policy without its adapters: what it was before training, in no memory of its own."""

    def __init__(self, policy: Any) -> None:
        """`policy` is a peft model."""
        self._policy = policy

    def __call__(self, **inputs: Any) -> Any:
        """What the model returns, without noise (dropout) or gradients."""
        with torch.no_grad(), _evaluating(self._policy), self._policy.disable_adapter():
            return self._policy(**inputs)


class Frozen:
    """A second model, in evaluation mode."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        """What the model returns, without gradients."""
        with torch.no_grad():
            return self.model(**inputs)


Reference: TypeAlias = AdaptersOff | Frozen


def load_reference(
    profile: Profile, source: Source, numbers: Numbers, device: Device, folder: Path
) -> Frozen | None:
    """The reference as a model of its own; None where it is the policy without its adapters.

    Without alignment.ref_model it is what the profile begins with, loaded once more from `source`: a trial that goes on
    from a checkpoint is held to the same model as before. Weights are held in what they are computed with.

    Raises:
        ModelError: it is not there, is damaged, or is no causal language model.
    """
    from transformers import AutoModelForCausalLM

    named = profile.alignment.ref_model
    if named is None and profile.method.finetuning_type == "lora":
        return None
    if named is not None:
        profile = profile.with_changes(
            {
                "model.model_name_or_path": named,
                "model.adapter_name_or_path": None,
                "model.model_revision": None,
                "alignment.ref_model": None,
            }
        )
        source = _found(profile, folder)
    model = load_base(profile, source, numbers, device, AutoModelForCausalLM, numbers.frozen)
    model.requires_grad_(False)
    return Frozen(model.eval())


def check_same_words(policy: Any, reference: Frozen, name: str) -> None:
    """Check that the reference has an embedding for every token of the policy's.

    Raises:
        ModelError: it has not, so that its tokens are others.
    """
    own = policy.get_input_embeddings().weight.shape[0]
    theirs = reference.model.get_input_embeddings().weight.shape[0]
    if theirs != own:
        raise ModelError(
            f"alignment.ref_model: {name} knows {theirs} tokens and the model that trains {own}: a reference has to "
            "have the same tokenizer"
        )


def _found(profile: Profile, folder: Path) -> Source:
    name = profile.model.model_name_or_path
    if (Path(name) / "adapter_config.json").is_file():
        raise ModelError(
            f"alignment.ref_model: {name} holds a LoRA adapter, and a reference is a whole model; make one of both "
            "with `tunedeck export` and name that"
        )
    try:
        return find_model(profile, folder / "unpacked-reference", lambda: None)
    except ModelError as error:
        said = str(error).replace("model.model_name_or_path", "alignment.ref_model")
        raise ModelError(said) from None


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
