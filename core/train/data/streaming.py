"""Rows that are read as they are needed, from files that are too large to hold.

A stream goes over its data sets again and again. In each pass a buffer of `data.buffer_size` rows is filled, and the
next row is drawn from it with `train.data_seed` and the number of the pass, so that the same settings give the same
rows in the same order, however often it begins again and wherever it goes on. What is held is the buffer, as the files
have its rows.

A training of max_steps updates takes max_steps × effective batch rows of it: `StreamedRows` is just these, as a
sequence that is read from its beginning to its end. Rows to evaluate on are the first of the first pass, and are left
out of every later one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, islice
from typing import TypeVar, overload

import numpy as np

from core.dataset_info import DataSet
from core.mixture import CONCAT, UNDER, exact_shares, order
from core.params import DataTable
from core.rows import AnyRow, Layout, layout_of, read_row
from core.rows.files import Record, records
from core.train.errors import DataError

T = TypeVar("T")
_DRAWS = 1024
"""Random numbers that are drawn at once."""

Key = tuple[int, int]
"""A data set and the number of a row in it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The rows of data sets without end."""

    sets: tuple[DataSet, ...]
    table: DataTable
    stage: str
    seed: int

    def rows(self, skip: int = 0, aside: int = 0) -> Iterator[AnyRow]:
        """The rows in their order, without the first `skip`; the first `aside` come in the first pass alone.

        Raises:
            DataError: a file or a row cannot be used, or there is no row.
        """
        layouts: dict[int, Layout] = {}
        held: set[Key] = set()
        number = 0
        for turn in count():
            before = number
            for key, record in self._pass(turn):
                if key in held:
                    continue
                row = self._read(key[0], record, layouts)
                if number < aside:
                    held.add(key)
                if number >= skip:
                    yield row
                number += 1
            if number == before:
                names = ", ".join(dataset.name for dataset in self.sets)
                apart = f" after the {aside} that data.val_size sets aside" if aside else ""
                raise DataError(f"{names}: no row is left to train on{apart}")

    def _read(self, index: int, record: Record, layouts: dict[int, Layout]) -> AnyRow:
        if index not in layouts:
            # By the first row of the files, as without streaming, and not by the first that is drawn.
            first = next(_records(self.sets[index]))
            layouts[index] = layout_of(first.row(), self.sets[index], self.table.format)
        return read_row(record.row(), layouts[index], self.stage, self.table.default_system)

    def _pass(self, turn: int) -> Iterator[tuple[Key, Record]]:
        random = np.random.Generator(np.random.PCG64([self.seed, turn]))
        return shuffled(self._mixed(), self.table.buffer_size, random)

    def _mixed(self) -> Iterator[tuple[Key, Record]]:
        if self.table.mix_strategy == CONCAT or len(self.sets) < 2:
            for index in range(len(self.sets)):
                yield from self._numbered(index)
            return
        shares = exact_shares(len(self.sets), self.table.interleave_probs)
        yield from self._interleaved(shares)

    def _interleaved(self, shares: Sequence[Fraction]) -> Iterator[tuple[Key, Record]]:
        sources = [self._numbered(index) for index in range(len(shares))]
        used_up: set[int] = set()
        for index in order(shares):
            item = next(sources[index], None)
            if item is None:
                used_up.add(index)
                if self.table.mix_strategy == UNDER or len(used_up) == len(shares):
                    return
                sources[index] = self._numbered(index)
                item = next(sources[index])
            yield item

    def _numbered(self, index: int) -> Iterator[tuple[Key, Record]]:
        """The rows of one data set that are taken: the first ones where only so many are wanted."""
        dataset = self.sets[index]
        limits = [n for n in (dataset.num_samples, self.table.max_samples) if n is not None]
        taken = islice(_records(dataset), min(limits) if limits else None)
        for number, record in enumerate(taken):
            yield (index, number), record


def shuffled(items: Iterator[T], size: int, random: np.random.Generator) -> Iterator[T]:
    """All items, each drawn from a buffer of `size` of those that come next."""
    held = list(islice(items, size))
    draws = _numbers(random, len(held))
    for item in items:
        place = next(draws)
        drawn, held[place] = held[place], item
        yield drawn
    for place in random.permutation(len(held)).tolist():
        yield held[place]


def _numbers(random: np.random.Generator, below: int) -> Iterator[int]:
    while True:
        yield from random.integers(below, size=_DRAWS).tolist()


def _records(dataset: DataSet) -> Iterator[Record]:
    empty = True
    for file in dataset.files:
        for record in records(file, streamed=True):
            empty = False
            yield record
    if empty:
        raise DataError(f"{', '.join(map(str, dataset.files))}: has no rows")


class StreamedRows(Sequence[AnyRow]):
    """`length` rows of a stream, after its first `aside`. Going forward reads on; going back reads again."""

    def __init__(self, stream: Stream, aside: int, length: int) -> None:
        self._stream = stream
        self._aside = aside
        self._length = length
        self._rows: Iterator[AnyRow] = iter(())
        self._next: int | None = None
        """The index of the row that is read next; None before the first."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[AnyRow]:
        return islice(self.onward(), self._length)

    def onward(self) -> Iterator[AnyRow]:
        """The rows from the first on, beyond `length`: for packing, which needs more rows for as many sequences."""
        return self._stream.rows(self._aside, self._aside)

    @overload
    def __getitem__(self, index: int) -> AnyRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[AnyRow]: ...

    def __getitem__(self, index: int | slice) -> AnyRow | list[AnyRow]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._at(index % self._length)

    def _at(self, index: int) -> AnyRow:
        if self._next is None or index < self._next:
            self._rows = self._stream.rows(self._aside + index, self._aside)
        else:
            for _ in range(index - self._next):
                next(self._rows)
        self._next = index + 1
        return next(self._rows)
