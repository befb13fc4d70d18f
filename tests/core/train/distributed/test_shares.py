"""Which rows each rank computes, without ranks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.train.data.batches import Collator, epoch_order
from core.train.data.examples import IGNORED, Example
from core.train.distributed.ranks import Ranks
from core.train.distributed.shares import RankBatches, RankCollator, learnt_tokens, seen_tokens


def row(tokens: int) -> Example:
    ids = np.arange(1, tokens + 1)
    return Example(ids, ids.copy())


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_all_ranks_together_compute_each_row_once_in_the_order_of_one(
    rows: int, size: int, count: int, epoch: int
) -> None:
    shares = [
        RankBatches(rows, size, 7, Ranks(index, count), lambda batches: epoch)
        for index in range(count)
    ]
    made = [list(share) for share in shares]
    assert {len(batches) for batches in made} == {len(share) for share in shares}
    order = epoch_order(rows, 7, epoch)
    for number, together in enumerate(zip(*made, strict=True)):
        start = number * size * count
        wanted = order[start : start + size * count]
        assert sorted(i for batch in together for i in batch) == sorted(wanted)
        assert all(len(batch) <= size for batch in together)


def test_an_epoch_is_told_by_how_many_batches_it_has() -> None:
    asked: list[int] = []

    def epoch(batches: int) -> int:
        asked.append(batches)
        return 1

    share = RankBatches(10, 2, 7, Ranks(1, 2), epoch)
    list(share)
    assert asked == [3] == [len(share)]


def test_a_rank_without_rows_computes_along_and_learns_nothing() -> None:
    collate = RankCollator(Collator(0), [row(5), row(3)])
    empty = collate([])
    assert empty["input_ids"].shape == (1, 3)
    assert (empty["labels"] == IGNORED).all()
    assert (learnt_tokens(empty), seen_tokens(empty)) == (0, 0)
    full = collate([row(5), row(3)])
    assert (learnt_tokens(full), seen_tokens(full)) == (6, 8)
