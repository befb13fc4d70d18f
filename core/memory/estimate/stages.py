"""What a stage needs besides the passes of supervised fine-tuning: pairs of rows, a reference, a reward model, answers
that are drawn."""

from typing import Literal

import msgspec

from core.memory.estimate.regime import Regime
from core.memory.estimate.states import rounded
from core.memory.models.shape import Architecture
from core.profile import Profile

PROVEN = frozenset({"pt", "sft"})
"""The stages whose updates a dry run goes through. The others are estimated."""

TILE = 512
"""Tokens whose scores exist at once where TRL computes log probabilities in tiles (its tiles are blocks of the
vocabulary for all tokens; this is the same for the vocabularies and batches of today within some ten MiB)."""

Tail = Literal["tokens", "tiles", "score"]


class Needs(msgspec.Struct, frozen=True):
    """How a stage's batch and its models differ from those of supervised fine-tuning."""

    rows: int = 1
    """Rows that the model computes for one row of the data."""
    tail: Tail = "tokens"
    """What becomes of the last layer's result: scores of all tokens, log probabilities in tiles, or one score a row."""
    aside: bool = False
    """Whether a pass without gradients runs while the activations of the batch are held."""
    references: int = 0
    """Further models of the policy's size that are held frozen."""
    rewards: int = 0
    """Reward models, taken to be of the policy's size."""
    drawn: int = 0
    """Tokens that are drawn behind each prompt."""


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
        return Needs(references=second, rewards=1, drawn=profile.generation.max_new_tokens)
    return Needs()


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
        text += " The reward model is taken to be as large as the policy."
    elif needs_of(profile).references and profile.alignment.ref_model is not None:
        text += " The reference model is taken to be as large as the policy."
    return text
