"""What the doctor is told of a run, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.values import Scalar

Kind = Literal[
    "not_learning", "diverging", "far_off", "losing", "displaced", "overfitting", "oscillating", "chance",
    "one_answer", "too_slow", "plateau",
]  # fmt: skip
"""In the order of precedence: a run has one finding, the first of these that it shows."""

Severity = Literal["error", "warning", "advice"]
"""It is lost; it goes wrong; it could be better."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run besides its points; None and 0 where it is not known."""

    total_steps: int = 0
    """Updates that it is planned to end at."""
    warmup_steps: int | None = None
    """None: read off the logged rates."""
    learning_rate: float | None = None
    finetuning_type: str = "lora"
    stage: str = "sft"
    effective_batch: int | None = None
    """Rows per update."""
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    pref_loss: str = "sigmoid"
    """Of stage dpo."""
    kl_target: float | None = None
    """Nats an answer that stage ppo is to stay within; None where nothing holds it."""
    steps_per_epoch: float = 0.0
    train_rows: int = 0
    dropped_rows: int = 0
    """Rows left out because no token of them would be learnt from."""
    ended: bool = False
    """Whether no points will be added."""
    diverged: str = ""
    """Why the run was stopped as diverged, in the guard's words; empty where it was not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a curve shows, with the numbers seen, and what to do about it."""

    kind: Kind
    severity: Severity
    text: str
    """What was seen, a sentence with its numbers."""
    advice: str
    """What to do, a sentence with concrete values."""
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    """The settings that the advice proposes first, by parameter name; empty where it is not about settings."""
    step: int = 0
    """The update at which it was seen first."""
