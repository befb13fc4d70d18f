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

PROVEN = frozenset({"pt", "sft"})
"""The stages whose updates a dry run goes through. The others are estimated."""

TILE = 512
"""Tokens whose scores exist at once where TRL computes log probabilities in tiles (its tiles are blocks of the
vocabulary for all tokens; this is the same for the vocabularies and batches of today within some ten MiB)."""

Tail = Literal["tokens", "tiles", "score", "answers"]


class Needs(msgspec.Struct, frozen=True):
    """How a stage's batch and its models differ from those of supervised fine-tuning."""

    rows: int = 1
    """Rows that the model computes for one row of the data."""
    tail: Tail = "tokens"
    """What becomes of the last layer's result: scores of all tokens, log probabilities in tiles, one score a row, or
    scores of the answers' tokens alone."""
    aside: bool = False
    """Whether a pass without gradients runs while the activations of the batch are held."""
    references: int = 0
    """Further models of the policy's size that are held frozen."""
    rewards: int = 0
    """Reward models, taken to be of the policy's size, and never quantised."""
    drawn: int = 0
    """Tokens that are drawn behind each prompt, an evaluation batch at a time."""
    shares: bool = False
    """Whether further models use the frozen weights of the policy where they are the same."""


def needs_of(profile: Profile) -> Needs:
    """What the stage of `profile` needs."""
    stage, table = profile.method.stage, profile.alignment
    if stage == "rm":
        return Needs(rows=2, tail="score")
    if stage == "dpo" and table.pref_loss in ("orpo", "simpo"):
        return Needs(rows=2, tail="tiles")
    # Adapters are switched off for the reference: that takes no second model.
    second = int(profile.method.finetuning_type != "lora" or table.ref_model is not None)
    if stage == "dpo":
        return Needs(rows=2, tail="tiles", aside=True, references=second)
    if stage == "kto":
        return Needs(tail="tiles", aside=True, references=second)
    if stage == "ppo":
        drawn = profile.generation.max_new_tokens
        return Needs(tail="answers", references=second, rewards=1, drawn=drawn, shares=True)
    return Needs()


def scored(shape: Architecture) -> Architecture:
    """The model with one score in place of its vocabulary's."""
    numbers = shape.parameters
    if numbers is not None and not shape.tied:
        numbers -= shape.embedding
    return msgspec.structs.replace(shape, tied=False, scored=True, parameters=numbers)


def further_models(profile: Profile, shape: Architecture, regime: Regime, *, loading: bool) -> int:
    """Bytes of the references and reward models that are held frozen beside the model that trains; while they are
    `loading`, nothing of a reference is shared yet."""
    needs, method = needs_of(profile), profile.method
    held = msgspec.structs.replace(regime, method="lora")
    frozen = base_weights(shape, held, method)
    # What the policy trains is its own; with LoRA that is in no weight that others have.
    apart = size_of(trained_groups(shape, regime, method), regime.frozen)
    apart = 0 if regime.method == "lora" else apart
    own = profile.alignment.ref_model is None
    shares = needs.shares and own and regime.method == "freeze" and not loading
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
    """Why the forecast of such a stage is an estimate, as a sentence; empty where it may be a proof."""
    stage = profile.method.stage
    if stage in PROVEN:
        return ""
    text = f"The updates of stage {stage} are estimated and not gone through one by one."
    if stage == "ppo":
        if not _is_adapter_of_policy(profile):
            text += " The reward model is taken to be as large as the policy."
    elif needs_of(profile).references and profile.alignment.ref_model is not None:
        text += " The reference model is taken to be as large as the policy."
    return text
