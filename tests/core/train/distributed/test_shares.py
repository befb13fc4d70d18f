"""Which rows each rank computes, without ranks."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.train.data.batches import Collator, epoch_order
from core.train.data.examples import IGNORED, Example, Pair, Tagged
from core.train.distributed.ranks import Ranks
from core.train.distributed.shares import (
    SPARE,
    RankBatches,
    RankCollator,
    before,
    computed,
    learnt_tokens,
    seen_tokens,
)
from core.train.stages.collators import PairCollator, TaggedCollator


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


def test_a_batch_of_no_pairs_says_so_and_has_what_a_model_takes() -> None:
    ids = np.asarray([1, 2], np.int32)
    rows = [Pair(ids, np.tile(ids, 2), ids), Pair(ids, ids, ids)]
    collate = RankCollator(PairCollator(0), rows)
    empty = collate([])
    assert SPARE in empty and SPARE not in collate(rows)
    assert computed(empty).keys() == collate(rows).keys()
    assert empty["input_ids"].shape == (2, 4)
    assert (seen_tokens(empty), seen_tokens(collate(rows))) == (0, 18)
    tagged = [Tagged(ids, ids, True)]
    assert RankCollator(TaggedCollator(0), tagged)([])["rows"] == tagged


@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_the_row_before_is_that_of_one_process_however_many_ranks_there_are(
    rows: int, size: int, accumulation: int, count: int
) -> None:
    order = epoch_order(rows, 7, 0)
    shares = [
        list(RankBatches(rows, size, 7, Ranks(index, count), lambda batches: 0))
        for index in range(count)
    ]
    for start in range(0, len(shares[0]), accumulation):
        updates = [share[start : start + accumulation] for share in shares]
        first = start * size * count
        own = order[first : first + accumulation * size * count]
        expected = dict(zip(own, own[-1:] + own[:-1], strict=True))
        for index, (found, total) in enumerate(_each_before(updates)):
            assert total == len(own)
            for part, given_ in zip(updates[index], found, strict=True):
                assert given_ == [[expected[row]] * (1 + expected[row] % 3) for row in part]


def _each_before(updates: list[list[list[int]]]) -> list[tuple[list[list[list[int]]], int]]:
    """What `before` tells each rank, the ranks' numbers being exchanged by a list of all of them."""
    held = [
        [[np.full(1 + row % 3, row, np.int32) for row in part] for part in parts]
        for parts in updates
    ]
    sent: list[list[float]] = []

    class AskedError(Exception):
        """A rank has said what it holds."""

    class Sending(Ranks):
        def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
            sent.append(list(numbers))
            raise AskedError

    class Receiving(Ranks):
        def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
            return sent

    for index, parts in enumerate(held):
        with suppress(AskedError):
            before(parts, Sending(index, len(held)))
    made = [before(parts, Receiving(index, len(held))) for index, parts in enumerate(held)]
    return [([[ids.tolist() for ids in part] for part in parts], total) for parts, total in made]
