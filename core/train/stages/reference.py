"""The reference of stages dpo, kto and ppo: the model that the policy is held to, which never trains.

With adapters it is the policy without them. Where some layers train, it is a second model on the memory of the policy's
frozen weights, so that only those layers exist twice. Else it is a whole model of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import torch

from core.profile import Profile
from core.train.errors import ModelError
from core.train.model.build import load_base
from core.train.model.source import Source, find_model
from core.train.ppo.reference import share_weights
from core.train.precision import Device, Numbers


class AdaptersOff:
    """The policy without its adapters: what it was before training, in no memory of its own."""

    def __init__(self, policy: Any) -> None:
        """`policy` is a peft model."""
        self._policy = policy

    def __call__(self, **inputs: Any) -> Any:
        """What the model returns, without noise (dropout) or gradients."""
        policy = self._policy
        trained = [weight for weight in policy.parameters() if weight.requires_grad]
        with torch.no_grad(), _evaluating(policy), policy.disable_adapter():
            # peft has them not train meanwhile, and a model in parts would take that for what they are.
            for weight in trained:
                weight.requires_grad_(True)
            return policy(**inputs)


class Frozen:
    """A second model, in evaluation mode."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        """What the model returns, without gradients."""
        with torch.no_grad():
            return self.model(**inputs)


Reference: TypeAlias = AdaptersOff | Frozen


def twin_of(profile: Profile, model: Any) -> Frozen | None:
    """The reference of a policy of which some layers train (freeze), made of `model`, which is the policy before any of
    its weights is chosen; None where the reference is another one, or is made otherwise.

    Its modules are copies, made before the policy's are given checkpoints or hooks; its weights lie where the policy's
    do. A second model from the files would be as large as the policy, and all but a few layers of it the very same
    numbers, which nothing ever changes. `load_reference` gives it memory of its own for those that will train.
    """
    if profile.method.finetuning_type != "freeze" or profile.alignment.ref_model is not None:
        return None
    # A weight that is tied to another one is one here too.
    same: dict[int, Any] = {
        id(weight): torch.nn.Parameter(weight.data, requires_grad=False)
        for weight in model.parameters()
    }
    return Frozen(deepcopy(model, same).eval())


def load_reference(
    profile: Profile,
    source: Source,
    numbers: Numbers,
    device: Device,
    folder: Path,
    policy: Any,
    twin: Frozen | None,
) -> Frozen | None:
    """The reference as a model of its own; None where it is the policy without its adapters. `policy` is what trains,
    with the weights that it begins with, `twin` is what `twin_of` has made of it.

    Without alignment.ref_model it is what the profile begins with, whatever checkpoint the trial goes on from. Weights
    are held in what they are computed with; those that are the policy's frozen ones, in the memory of these.

    Raises:
        ModelError: it is not there, is damaged, is no causal language model, or has other tokens than the policy.
    """
    from transformers import AutoModelForCausalLM

    if twin is not None:
        _part(twin.model, policy)
        return twin
    named = profile.alignment.ref_model
    if named is None and profile.method.finetuning_type == "lora":
        return None
    if named is not None:
        profile = as_reference(profile)
        source = _found(profile, folder)
    model = load_base(profile, source, numbers, device, AutoModelForCausalLM, numbers.frozen)
    model.requires_grad_(False)
    reference = Frozen(model.eval())
    if named is not None:
        _check_same_words(policy, reference, named)
    share_weights(policy, model)
    return reference


def compute_alike(reference: Reference, policy: Any) -> None:
    """Let a reference's layers add up in the numbers that the policy's do, also where it is the policy without its
    adapters, one of which are whole embeddings (additional_target).

    Mixed precision multiplies in 16 bits whatever weights are held in, and adds what layers give to what came from the
    embeddings, in their numbers. A policy whose embeddings train in fp32 adds up in those; a reference in bf16 would
    round each sum, and rewards and KL would not be 0 where nothing has been learnt yet. A reference in fp32 would take
    twice the memory for the same.
    """
    trained = policy.get_input_embeddings()
    own = trained.weight.dtype
    if isinstance(reference, Frozen):
        words = reference.model.get_input_embeddings()
    else:
        # What peft lets compute in the place of embeddings that train, while adapters are off.
        words = getattr(trained, "original_module", trained)
    if words.weight.dtype != own:
        words.register_forward_hook(lambda module, inputs, output: output.to(own))


def as_reference(profile: Profile) -> Profile:
    """The profile with alignment.ref_model, which it has, as its model."""
    return profile.with_changes(
        {
            "model.model_name_or_path": profile.alignment.ref_model,
            "model.adapter_name_or_path": None,
            "model.model_revision": None,
            "alignment.ref_model": None,
        }
    )


def _part(twin: Any, policy: Any) -> None:
    """Give a twin memory of its own for the weights that train. Those that train in other numbers than they were loaded
    in have left it theirs."""
    # Compared by what holds the memory and not by its address, which a simulated tensor has not.
    trained = {w.untyped_storage()._cdata for w in policy.parameters() if w.requires_grad}
    for weight in twin.parameters():
        if weight.untyped_storage()._cdata in trained:
            weight.data = weight.data.clone()


def _check_same_words(policy: Any, reference: Frozen, name: str) -> None:
    """Raise ModelError where the reference has not an embedding for every token of the policy's: its tokens are
    others."""
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
