"""What the trials of each stage log, and what they are usually ranked by. Nothing here is slow to import."""

from collections.abc import Mapping

EVERY_STAGE_LOGS = ("eval_loss", "loss", "loss_fall", "grad_norm", "tokens_per_s", "mem_peak")
"""The metrics that trials of every stage can be ranked by."""
_PAIRS = ("reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected")
STAGE_LOGS: Mapping[str, tuple[str, ...]] = {
    "pt": ("eval_accuracy", "eval_perplexity"),
    "sft": ("eval_accuracy",),
    "rm": (*_PAIRS, "eval_reward_accuracy", "eval_reward_margin"),
    "dpo": (*_PAIRS, "eval_reward_accuracy", "eval_reward_margin"),
    "kto": (*_PAIRS, "kl", "eval_reward_accuracy", "eval_reward_margin", "eval_kl"),
    "ppo": ("reward", "kl", "entropy", "clip_fraction", "value_loss", "eval_reward", "eval_kl"),
}
"""What the trials of a stage log besides (`core.search.metric` describes each)."""

_USUAL: Mapping[str, tuple[str, str]] = {
    "rm": ("eval_reward_accuracy", "reward_accuracy"),
    "dpo": ("eval_reward_accuracy", "reward_accuracy"),
    "kto": ("eval_reward_accuracy", "reward_accuracy"),
    "ppo": ("eval_reward", "reward"),
}
"""What a stage is ranked by with validation data and without, where it is not the loss: losses of another beta or
reward are no measure of each other."""


def usual_metric(stage: str, *, validated: bool) -> str:
    """What `rank_by = "auto"` means."""
    with_data, without = _USUAL.get(stage, ("eval_loss", "loss"))
    return with_data if validated else without
