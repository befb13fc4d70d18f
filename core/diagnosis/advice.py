"""What the doctor advises: rates, clipping and endings as sentences and as changes to the settings."""

from __future__ import annotations

from collections.abc import Mapping

from core.diagnosis.finding import RunFacts
from core.values import Scalar, number

_TYPICAL: Mapping[tuple[str, str], tuple[float, float]] = {
    ("sft", "full"): (1e-5, 3e-5),
    ("sft", "lora"): (1e-4, 5e-4),
    ("rm", "full"): (5e-6, 2e-5),
    ("rm", "lora"): (5e-5, 3e-4),
    ("dpo", "full"): (2e-7, 1e-6),
    ("dpo", "lora"): (2e-6, 2e-5),
    ("ppo", "full"): (1e-6, 5e-6),
    ("ppo", "lora"): (2e-6, 2e-5),
}
"""Usual learning rates by stage and fine-tuning type: the middle of what `core.search.portfolio` lists, with the same
sources."""
_SAME_AS = {"pt": "sft", "kto": "dpo"}


def usual_rates(run: RunFacts) -> tuple[float, float]:
    """The usual learning rates of a run's stage and type: below the first a run that does not move has too low a rate.
    Some layers that train whole are taken for all of them."""
    stage = _SAME_AS.get(run.stage, run.stage)
    method = "lora" if run.finetuning_type == "lora" else "full"
    return _TYPICAL.get((stage, method), _TYPICAL["sft", method])


def calm(run: RunFacts) -> tuple[str, dict[str, Scalar]]:
    """What to do against divergence."""
    advice, changes = rate_words(run, 1 / 3)
    if run.warmup_steps == 0:
        advice += ", and warm up (warmup_ratio 0.1)"
        changes["warmup_ratio"] = 0.1
    if run.max_grad_norm is not None and run.max_grad_norm > 1:
        advice += f", and clip at 1 (max_grad_norm is {number(run.max_grad_norm)})"
        changes["max_grad_norm"] = 1.0
    return advice, changes


def less(run: RunFacts, step: int) -> tuple[str, dict[str, Scalar]]:
    """What to do against overfitting."""
    advice, changes = f"end near step {step}", dict[str, Scalar]()
    rate = times(run.learning_rate, 1 / 2)
    if run.learning_rate is not None and rate is not None:
        advice += f", or lower the rate ({number(run.learning_rate)} → {number(rate)})"
        changes["learning_rate"] = rate
    if run.weight_decay is not None and run.weight_decay < 0.1:
        advice += f" and raise weight_decay ({number(run.weight_decay)} → 0.1)"
        changes["weight_decay"] = 0.1
    return advice, changes


def rate_words(run: RunFacts, factor: float) -> tuple[str, dict[str, Scalar]]:
    """The advice to multiply the rate, in words and as a change."""
    rate = times(run.learning_rate, factor)
    if run.learning_rate is None or rate is None:
        return ("raise the rate to three times" if factor > 1 else "lower the rate to a third"), {}
    word = "raise" if factor > 1 else "lower"
    changes: dict[str, Scalar] = {"learning_rate": rate}
    return f"{word} the rate: {number(run.learning_rate)} → {number(rate)}", changes


def times(rate: float | None, factor: float) -> float | None:
    """A rate × `factor`, to one digit, as people write it."""
    return None if rate is None or rate <= 0 else float(f"{rate * factor:.0e}")


def spelled(value: float) -> str:
    """A loss or a reward, as people read it."""
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.3g}"
