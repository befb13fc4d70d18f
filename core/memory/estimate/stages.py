"""What a stage needs besides the passes of supervised fine-tuning: pairs of rows, a reference, a reward model, answers
that are drawn."""

import json
from pathlib import Path
from typing import Literal

import msgspec

from core.memory.estimate.regime import Regime
from core.memory.estimate.states import base_weights, rounded, size_of, trained_groups
from core.memory.models.shape import Architecture
from core.profile import Profile, model_path

PROVEN = frozenset({"pt", "sft", "rm", "dpo", "kto"})
"""The stages whose updates a dry run goes through. How long the answers get that ppo draws, and so what their keys and
values take, is decided while it runs: it is estimated."""

Tail = Literal["tokens", "fused", "score", "answers"]


class Needs(msgspec.Struct, frozen=True):
    """How a stage's batch and its models differ from those of supervised fine-tuning."""

    rows: int = 1
    """Rows that the model computes for one row of the data."""
    tail: Tail = "tokens"
    """What becomes of the last layer's result: scores of all tokens, log probabilities by TRL's fused head, one score
    a row, or scores of the answers' tokens alone."""
    references: int = 0
    """Further models of the policy's size that are held frozen."""
    rewards: int = 0
    """Reward models, taken to be of the policy's size, and never quantised."""
    drawn: int = 0
    """Tokens that are drawn behind each prompt, an evaluation batch at a time."""


def needs_of(profile: Profile) -> Needs:
    """What the stage of `profile` needs."""
    stage, table = profile.method.stage, profile.alignment
    if stage == "rm":
        return Needs(rows=2, tail="score")
    if stage == "dpo" and table.pref_loss in ("orpo", "simpo"):
        return Needs(rows=2, tail="fused")
    # Adapters are switched off for the reference: that takes no second model.
    second = int(profile.method.finetuning_type != "lora" or table.ref_model is not None)
    if stage == "dpo":
        # Its pass, without gradients, comes before the policy's and takes less.
        return Needs(rows=2, tail="fused", references=second)
    if stage == "kto":
        return Needs(tail="fused", references=second)
    if stage == "ppo":
        drawn = profile.generation.max_new_tokens
        return Needs(tail="answers", references=second, rewards=1, drawn=drawn)
    return Needs()


def as_trained(profile: Profile, shape: Architecture) -> Architecture:
    """The model as the stage trains it: those that weigh answers against each other leave its own dropout off."""
    if profile.method.stage in ("pt", "sft"):
        return shape
    shape = msgspec.structs.replace(shape, dropout=0.0, attention_dropout=0.0)
    return scored(shape) if needs_of(profile).tail == "score" else shape


def scored(shape: Architecture) -> Architecture:
    """The model with one score in place of its vocabulary's."""
    numbers = shape.parameters
    if numbers is not None and not shape.tied:
        numbers -= shape.embedding
    return msgspec.structs.replace(shape, tied=False, scored=True, parameters=numbers)


def further_models(profile: Profile, shape: Architecture, regime: Regime) -> int:
    """Bytes of the references and reward models that are held frozen beside the model that trains. A reference of the
    model that the profile begins with is made on its frozen weights (core.train.stages.reference)."""
    needs, method = needs_of(profile), profile.method
    held = msgspec.structs.replace(regime, method="lora")
    frozen = base_weights(shape, held, method)
    # What the policy trains is its own; with LoRA that is in no weight that others have.
    apart = size_of(trained_groups(shape, regime, method), regime.frozen)
    apart = 0 if regime.method == "lora" else apart
    shares = profile.alignment.ref_model is None and regime.method == "freeze"
    resources = profile.resources
    if resources.gpus_per_trial > 1 and resources.sharding == "fsdp":
        # It is in parts as the policy is, and these are its own.
        size = needs.references * frozen // resources.gpus_per_trial
    else:
        size = needs.references * (apart if shares else frozen)
    if not needs.rewards:
        return size
    if regime.method != "full" and _is_adapter_of_policy(profile):
        return size + apart
    bits = 16 if profile.model.quantization_bit else regime.bits
    return size + base_weights(scored(shape), msgspec.structs.replace(held, bits=bits), method)


def _is_adapter_of_policy(profile: Profile) -> bool:
    """Whether the reward model is an adapter of the very weights that the policy has."""
    model = profile.model
    if model.quantization_bit or model.adapter_name_or_path is not None:
        return False
    file = Path(str(profile.alignment.reward_model), "adapter_config.json").expanduser()
    try:
        base = json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return False
    return base in (model.model_name_or_path, model_path(profile))


def cache_of_answers(shape: Architecture, regime: Regime, rows: int, length: int) -> int:
    """Bytes of keys and values that are kept while `rows` answers are drawn, of `length` tokens with their prompts."""
    one = shape.kv_heads * shape.head_dim * length * rows * regime.weight
    return 2 * shape.layers * rounded(one)


def note_of(profile: Profile) -> str:
    """What of the stage the closed form cannot know, as sentences; empty where there is nothing."""
    said = []
    if profile.method.stage not in PROVEN:
        said.append(
            f"The updates of stage {profile.method.stage} are estimated and not gone through one by one."
        )
    if needs_of(profile).rewards and not _is_adapter_of_policy(profile):
        said.append("The reward model is taken to be as large as the policy.")
    elif needs_of(profile).references and profile.alignment.ref_model is not None:
        said.append("The reference model is taken to be as large as the policy.")
    return " ".join(said)
