"""Data sets become one list of rows in the proportions of `core.mixture`, with evaluation rows set aside."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Generic, TypeVar

import numpy as np

from core.data_size import validation_rows
from core.mixture import CONCAT, UNDER, SetSize, exact_shares, interleaved, order
from core.train.errors import DataError

T = TypeVar("T")
_MOST = 10**8
"""Rows that are put into a list at most, repeated ones counted: of these it takes a gigabyte."""


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """The different rows of one data set, and how many it stands for (more where rows are to be repeated)."""

    name: str
    rows: Sequence[T]
    wanted: int

    @property
    def size(self) -> SetSize:
        return SetSize(len(self.rows), self.wanted)


def mix(
    parts: Sequence[Part[T]],
    val_size: float,
    strategy: str,
    weights: Sequence[float] | None,
    seed: int,
) -> tuple[list[T], list[T]]:
    """The rows to train on and the rows set aside; which ones are set aside or repeated is drawn with the seed.

    Raises:
        DataError: nothing would be left to train on.
    """
    if strategy == CONCAT or len(parts) < 2:
        return _concatenated(parts, val_size, seed)
    sizes = [part.size for part in parts]
    portions = interleaved(sizes, val_size, strategy, weights)
    if not sum(portions.train):
        few = next(p for p, a in zip(parts, portions.aside, strict=True) if a >= len(p.rows))
        raise DataError(
            f"data.val_size sets all {len(few.rows)} rows of {few.name} aside, so that none is left to train on; "
            "make it smaller, or set it to 0"
        )
    if sum(portions.train) > _MOST:
        raise DataError(
            f'data.interleave_probs and data.mix_strategy = "{strategy}" come to more than {_MOST:,} rows: '
            f'a small weight has the others begin again so often; take mix_strategy = "{UNDER}", or other weights'
        )
    shares = exact_shares(len(parts), weights)
    train: list[list[T]] = []
    aside: list[list[T]] = []
    for index, (part, held, count) in enumerate(
        zip(parts, portions.aside, portions.train, strict=True)
    ):
        left, apart = _set_aside(part.rows, held, seed + index)
        aside.append(apart)
        train.append(_repeated(left, count, seed + index))
    return _woven(train, order(shares)), _woven(aside, order(shares))


def draw(rows: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` of the rows, drawn with the seed, in their order."""
    if count >= len(rows):
        return list(rows)
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(drawn.tolist())]


def _concatenated(parts: Sequence[Part[T]], val_size: float, seed: int) -> tuple[list[T], list[T]]:
    rows = [(i, row) for i, part in enumerate(parts) for row in part.rows]
    left, apart = _set_aside(rows, _rows_aside(len(rows), val_size), seed)
    train: list[T] = []
    for index, part in enumerate(parts):
        own = [row for i, row in left if i == index]
        more = part.wanted - len(part.rows)
        train += _repeated(own, len(own) + more, seed + index) if own else own
    return train, [row for _, row in apart]


def _set_aside(rows: Sequence[T], count: int, seed: int) -> tuple[list[T], list[T]]:
    if count == 0:
        return list(rows), []
    aside = set(np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))[:count].tolist())
    return (
        [row for i, row in enumerate(rows) if i not in aside],
        [row for i, row in enumerate(rows) if i in aside],
    )


def _repeated(rows: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` rows: all of them as often as they go in, and for the rest some that are drawn."""
    whole, rest = divmod(count, len(rows))
    return [*islice(cycle(rows), whole * len(rows)), *draw(rows, rest, seed)]


def _woven(parts: Sequence[Sequence[T]], sets: Iterator[int]) -> list[T]:
    """The rows of all parts in the order in which `sets` names them."""
    waiting = [iter(part) for part in parts]
    woven: list[T] = []
    total = sum(len(part) for part in parts)
    while len(woven) < total:
        woven += islice(waiting[next(sets)], 1)
    return woven


def _rows_aside(rows: int, val_size: float) -> int:
    """How many of `rows` are set aside.

    Raises:
        DataError: nothing would be left to train on.
    """
    count = validation_rows(rows, val_size)
    if count and count >= rows:
        raise DataError(
            f"data.val_size sets {count} of {rows} rows aside, so that none is left to train on; "
            "make it smaller, or set it to 0"
        )
    return count
