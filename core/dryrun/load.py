"""The models of a run as its stage loads them: the one that trains and, for dpo and kto, what it is held to."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.dryrun.model import build, read_config
from core.dryrun.offload import offload_fake
from core.dryrun.tracker import Tracker
from core.memory.forecast import Target
from core.profile import Profile
from core.train.model.build import prepare
from core.train.model.source import Source
from core.train.precision import Numbers


@dataclass(frozen=True, slots=True)
class Models:
    """What is loaded before anything trains."""

    policy: Any
    """The model that trains, its trainable weights chosen."""
    reference: Any
    """core.train.stages.reference.Reference; None where the stage has none."""
    notes: tuple[str, ...]
    """What cannot be seen of them."""


def load(
    config: Any, profile: Profile, numbers: Numbers, tracker: Tracker, target: Target
) -> Models:
    """Let the models of `profile` arrive in the order in which the stage's load_model loads them; `config` is that of
    the one that trains. Called within a fake mode.

    Raises:
        CannotProve: one of them cannot be simulated.
        ModelError: the stage would not take one of them.
    """
    whole = profile.method.finetuning_type == "full"
    stage = profile.method.stage
    config.use_cache = False
    built = build(
        config,
        profile,
        numbers,
        numbers.trained if whole else numbers.frozen,
        tracker,
        cuda=target.kind == "cuda",
        total=target.total,
        scored=stage == "rm",
    )
    reference = None
    more: tuple[str, ...] = ()
    if stage in ("dpo", "kto"):
        model, reference, more = _beside_reference(built.model, profile, numbers, tracker, target)
    else:
        with tracker:
            model = _prepared_alone(built.model, profile, numbers, target)
    if profile.train.neftune_noise_alpha is not None:
        _add_noise(model, profile.train.neftune_noise_alpha)
    lora = profile.method.finetuning_type == "lora"
    trained = [p for p in model.parameters() if p.requires_grad]
    tracker.adopt(trained, "adapters" if lora else "weights")
    return Models(model, reference, (*built.notes, *more))


def _prepared_alone(model: Any, profile: Profile, numbers: Numbers, target: Target) -> Any:
    """The model that trains where nothing is loaded beside it."""
    offload = offload_fake if target.kind == "cuda" else _stay
    if profile.method.stage != "rm":
        return prepare(model, _begun(profile), numbers, offload)
    from core.train.ppo.policy import without_dropout
    from core.train.stages.reward import HEAD

    return prepare(without_dropout(model), _begun(profile), numbers, offload, "SEQ_CLS", (HEAD,))


def _beside_reference(
    model: Any, profile: Profile, numbers: Numbers, tracker: Tracker, target: Target
) -> tuple[Any, Any, tuple[str, ...]]:
    """The model that trains, its reference, and what cannot be seen of that (core.train.stages.preference)."""
    from core.train.ppo.policy import without_dropout
    from core.train.stages.pair_losses import NEEDS_NONE
    from core.train.stages.preference import check_head
    from core.train.stages.reference import (
        AdaptersOff,
        Frozen,
        as_reference,
        load_reference,
        twin_of,
    )

    stage, table = profile.method.stage, profile.alignment
    compares = stage == "kto" or table.pref_loss not in NEEDS_NONE
    with tracker:
        model = without_dropout(model)
        twin = twin_of(profile, model) if compares else None
        policy = prepare(
            model, _begun(profile), numbers, offload_fake if target.kind == "cuda" else _stay
        )
        check_head(policy, stage)
        if twin is not None:
            # It is made of what is there: no file is looked for.
            nowhere = Source("", ())
            load_reference(profile, nowhere, numbers, "cpu", Path(), policy, twin)
    if not compares or twin is not None:
        return policy, twin, ()
    if table.ref_model is None and profile.method.finetuning_type == "lora":
        return policy, AdaptersOff(policy), ()
    other = profile if table.ref_model is None else as_reference(profile)
    config = read_config(other)
    config.use_cache = False
    cuda = target.kind == "cuda"
    built = build(config, other, numbers, numbers.frozen, tracker, cuda=cuda, total=target.total)
    built.model.requires_grad_(False)
    notes = built.notes
    if table.ref_model is not None and profile.method.finetuning_type != "full":
        notes += (
            "How much of the reference model is in the policy's memory depends on its weights.",
        )
    return policy, Frozen(built.model.eval()), notes


def _begun(profile: Profile) -> Profile:
    """The profile with adapters that begin as any: PiSSA's decomposition depends on the weights, and leaves adapters of
    the same form."""
    return replace(profile, method=profile.method.model_copy(update={"pissa_init": False}))


def _stay(model: Any) -> None:
    """On the CPU activations are in the host's memory already."""


def _add_noise(model: Any, alpha: float) -> None:
    from transformers.integrations.neftune import activate_neftune

    activate_neftune(model, alpha)
