"""The first remedies for a trial that ran out of memory, one rung at a time.

The effective batch (per-device batch × accumulation × GPUs) never changes: a run with another one
is another experiment, and its loss could not be compared with the rest of the study.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryFix:
    """A change that needs less memory.

    `changes` maps parameters of `[train]` to their new values; `text` says it with its numbers.
    """

    changes: dict[str, object]
    text: str
    keeps_effective_batch: bool


def next_fix(
    *,
    per_device_train_batch_size: int,
    gradient_accumulation_steps: int,
    gradient_checkpointing: bool,
) -> MemoryFix | None:
    """The next rung below these settings, or None when the ladder has no more.

    The batch is halved and accumulation doubled; where that does not come out even, the batch
    goes to the largest divisor of the effective batch that is at most half of it (6 × 1 → 3 × 2 →
    1 × 6). At batch 1 gradient checkpointing is turned on.

    Raises ValueError for a batch or accumulation below 1.
    """
    batch, accumulation = per_device_train_batch_size, gradient_accumulation_steps
    if batch < 1 or accumulation < 1:
        raise ValueError(f"batch ({batch}) and accumulation ({accumulation}) must be at least 1")
    if batch > 1:
        return _smaller_batch(batch, accumulation)
    if not gradient_checkpointing:
        # 20-49 % is the extra computation seen in practice; LoRA pays the most, as its backward
        # pass is otherwise the cheapest.
        return MemoryFix(
            changes={"gradient_checkpointing": True},
            text=(
                "gradient checkpointing on: activations are computed again instead of kept, for "
                f"20-50 % more computation; per-device batch 1 and accumulation {accumulation} stay"
            ),
            keeps_effective_batch=True,
        )
    return None


def _smaller_batch(batch: int, accumulation: int) -> MemoryFix:
    effective = batch * accumulation
    smaller = next(size for size in range(batch // 2, 0, -1) if effective % size == 0)
    larger = effective // smaller
    return MemoryFix(
        changes={"per_device_train_batch_size": smaller, "gradient_accumulation_steps": larger},
        text=(
            f"per-device batch {batch} → {smaller}, accumulation {accumulation} → {larger}; "
            f"the effective batch stays {effective}"
        ),
        keeps_effective_batch=True,
    )
