"""The learning rates that usually work, by stage and method, in words and as a search. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.values import number

RATE = "train.learning_rate"


@dataclass(frozen=True, slots=True)
class Rates:
    """From `low` to `high`; `start` is where to begin."""

    low: float
    high: float
    start: float

    def words(self) -> str:
        """For a person."""
        low, high, start = map(number, (self.low, self.high, self.start))
        return f"{low} – {high}, start at {start}"

    def space(self) -> str:
        """As a search space's entry."""
        return f"{number(self.low)} .. {number(self.high)} log"


_USUAL: Mapping[tuple[str, str], Rates] = {
    ("sft", "lora"): Rates(3e-5, 1e-3, 2e-4),
    ("sft", "freeze"): Rates(5e-6, 1e-4, 5e-5),
    ("sft", "full"): Rates(2e-6, 5e-5, 1e-5),
    ("rm", "lora"): Rates(2e-5, 5e-4, 1e-4),
    ("rm", "freeze"): Rates(5e-6, 1e-4, 3e-5),
    ("rm", "full"): Rates(5e-6, 5e-5, 1e-5),
    ("dpo", "lora"): Rates(5e-7, 5e-5, 5e-6),
    ("dpo", "freeze"): Rates(2e-7, 1e-5, 2e-6),
    ("dpo", "full"): Rates(1e-7, 2e-6, 5e-7),
    ("kto", "lora"): Rates(5e-7, 5e-5, 5e-6),
    ("kto", "freeze"): Rates(2e-7, 1e-5, 2e-6),
    ("kto", "full"): Rates(5e-7, 5e-6, 1e-6),
    ("ppo", "lora"): Rates(1e-6, 2e-5, 1e-5),
    ("ppo", "freeze"): Rates(1e-6, 1e-5, 3e-6),
    ("ppo", "full"): Rates(1e-6, 5e-6, 1e-6),
}
"""The ranges that hold what `core.search.portfolio` ranks, with the same sources."""


def usual_rates(values: Mapping[str, Any]) -> Rates:
    """For the stage and the fine-tuning type among a draft's values, by full key."""
    stage = values.get("method.stage")
    method = values.get("method.finetuning_type")
    # Pretraining that goes on bears what supervised fine-tuning does.
    return _USUAL.get((str(stage), str(method))) or _USUAL["sft", str(method or "lora")]
