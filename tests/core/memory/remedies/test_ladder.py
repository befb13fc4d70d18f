from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.remedies.ladder import MemoryFix, next_fix


def fix(batch: int, accumulation: int, checkpointing: bool = False) -> MemoryFix | None:
    return next_fix(
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=checkpointing,
    )


def test_the_batch_is_halved_and_accumulation_doubled_with_the_numbers_said() -> None:
    step = fix(8, 2)
    assert step is not None
    assert step.changes == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    assert step.text == ("per-device batch 8 → 4, accumulation 2 → 4; the effective batch stays 16")
    assert step.keeps_effective_batch


def test_odd_batches_fall_to_a_divisor_of_the_effective_batch() -> None:
    assert _batches(6, 1) == [(6, 1), (3, 2), (1, 6)]
    assert _batches(5, 2) == [(5, 2), (2, 5), (1, 10)]
    assert _batches(9, 1) == [(9, 1), (3, 3), (1, 9)]
    assert _batches(7, 3) == [(7, 3), (3, 7), (1, 21)]


def test_at_batch_one_checkpointing_is_next_and_then_nothing() -> None:
    step = fix(1, 16)
    assert step is not None
    assert step.changes == {"gradient_checkpointing": True}
    assert "accumulation 16" in step.text
    assert fix(1, 16, checkpointing=True) is None


@given(st.integers(1, 2000), st.integers(1, 200))
def test_the_ladder_ends_at_batch_one_and_never_changes_the_effective_batch(
    batch: int, accumulation: int
) -> None:
    rungs = _batches(batch, accumulation)
    for (larger, _), (smaller, _) in pairwise(rungs):
        assert 2 * smaller <= larger
    assert all(b * a == batch * accumulation for b, a in rungs)
    assert rungs[-1][0] == 1


@pytest.mark.parametrize(("batch", "accumulation"), [(0, 1), (1, 0), (-2, 4)])
def test_impossible_settings_are_refused(batch: int, accumulation: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        fix(batch, accumulation)


def _batches(batch: int, accumulation: int) -> list[tuple[int, int]]:
    rungs = [(batch, accumulation)]
    while (step := fix(*rungs[-1], checkpointing=True)) is not None:
        changes = step.changes
        pair = (changes["per_device_train_batch_size"], changes["gradient_accumulation_steps"])
        assert isinstance(pair[0], int) and isinstance(pair[1], int)
        rungs.append((pair[0], pair[1]))
    return rungs
