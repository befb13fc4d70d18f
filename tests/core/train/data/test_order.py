"""The order of the rows: random, the same for all trials, and by length where that is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.train.data.order import epoch_order


def mixed(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(4.5, 0.9, rows).clip(8, 1024).astype(np.int64)


def padding(order: list[int], lengths: np.ndarray, batch: int) -> float:
    """The share of all batches' width that is padding."""
    batches = [lengths[order[i : i + batch]] for i in range(0, len(order), batch)]
    return float(1 - lengths.sum() / sum(b.max() * len(b) for b in batches))


@given(st.integers(1, 3000), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_an_order_holds_each_row_once_and_is_the_same_again(
    rows: int, seed: int, epoch: int, grouped: bool
) -> None:
    lengths = mixed(rows) if grouped else None
    order = epoch_order(rows, seed, epoch, lengths)
    assert sorted(order) == list(range(rows)) and order == epoch_order(rows, seed, epoch, lengths)


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 32])
def test_grouped_batches_hold_little_padding(batch: int) -> None:
    lengths = mixed(4000)
    grouped = padding(epoch_order(4000, 1, 0, lengths), lengths, batch)
    assert grouped < 0.06
    if batch > 1:
        assert padding(epoch_order(4000, 1, 0), lengths, batch) > 0.2


def test_grouped_orders_differ_by_epoch_and_seed_and_mix_lengths() -> None:
    lengths = mixed(4000)
    first = epoch_order(4000, 1, 0, lengths)
    assert first != epoch_order(4000, 1, 1, lengths) != epoch_order(4000, 2, 0, lengths)
    means = [lengths[first[i : i + 32]].mean() for i in range(0, 3968, 32)]
    # Long and short ones come in no order: neighbours are as far apart as any two.
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3


def test_rows_of_one_length_come_in_a_random_order() -> None:
    order = epoch_order(4096, 1, 0, np.full(4096, 7))
    assert abs(np.corrcoef(order, range(4096))[0, 1]) < 0.1
