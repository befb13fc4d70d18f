"""Examples as a few flat arrays: a tenth of what as many objects hold, and files that several processes share.

They are made of one example after the other: what is held of those that go into files is where each begins and how
long it is, so that the tokens of a stream need no memory.
"""

import os
from array import array
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, overload

import numpy as np
from numpy.typing import NDArray

from core.train.data.examples import AnyExample, Example, Pair, Prompt, Tagged, Tokens

Kind = Literal["example", "pair", "tagged", "prompt"]

_PARTS: dict[Kind, int] = {"example": 3, "pair": 3, "tagged": 3, "prompt": 1}
"""Into how many arrays a row of each kind is taken apart."""
_FILES = ("values.npy", "bounds.npy", "measures.npy")


class Rows(Sequence[AnyExample]):
    """Rows of one kind, each made when it is asked for."""

    def __init__(
        self,
        kind: Kind,
        values: Tokens,
        bounds: NDArray[np.int64],
        measures: NDArray[np.int64],
        *,
        grouped: bool = False,
    ) -> None:
        """`values` are the parts of all rows, one after the other; `bounds` where each part ends; `measures` of each
        row its size, its tokens and its largest token id. `grouped`: rows of about one length are to come together
        (`core.train.data.order`)."""
        self.kind: Kind = kind
        self._values = values
        self._bounds = bounds
        self._parts = _PARTS[kind]
        self._measures = measures
        self.grouped = grouped

    def __len__(self) -> int:
        return len(self._measures)

    @overload
    def __getitem__(self, index: int) -> AnyExample: ...

    @overload
    def __getitem__(self, index: slice) -> list[AnyExample]: ...

    def __getitem__(self, index: int | slice) -> AnyExample | list[AnyExample]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._row(index % len(self))

    def _row(self, index: int) -> AnyExample:
        at = index * self._parts
        ends = self._bounds[at : at + self._parts + 1].tolist()
        parts = [self._values[start:end] for start, end in pairwise(ends)]
        match self.kind:
            case "example":
                return Example(parts[0], parts[1], tuple(parts[2].tolist()))
            case "pair":
                return Pair(parts[0], parts[1], parts[2])
            case "tagged":
                return Tagged(parts[0], parts[1], bool(parts[2][0]))
            case "prompt":
                return Prompt(parts[0])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """What each row takes of a batch's width, in tokens."""
        return self._measures[:, 0]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The tokens of each row that one pass over it computes."""
        return self._measures[:, 1]

    @property
    def longest(self) -> int:
        """The size of the longest row; 0 where there is none."""
        return int(self.sizes.max(initial=0))

    @property
    def largest(self) -> int:
        """The largest token id of all rows."""
        return int(self._measures[:, 2].max(initial=0))

    @staticmethod
    def load(kind: Kind, folder: Path, *, grouped: bool = False) -> "Rows":
        """The rows of `folder`. Their pages are shared by all processes of a machine that read them."""
        values, bounds, measures = (
            np.asarray(np.load(folder / name, mmap_mode="r")) for name in _FILES
        )
        return Rows(kind, values, bounds, measures, grouped=grouped)


def sizes_of(rows: Sequence[AnyExample]) -> NDArray[np.int64]:
    """The size of each row, without a look at rows whose sizes are stored."""
    if isinstance(rows, Rows):
        return rows.sizes
    return np.asarray([row.size for row in rows], dtype=np.int64)


def group_sizes(rows: Sequence[AnyExample]) -> NDArray[np.int64] | None:
    """What the order of rows is to be grouped by (`epoch_order`); None where it is not to be."""
    return rows.sizes if isinstance(rows, Rows) and rows.grouped else None


def stored(
    kind: Kind, rows: Iterable[AnyExample], folder: Path | None = None, *, grouped: bool = False
) -> Rows:
    """Rows of one kind as arrays: in memory, or in new files of `folder`, which the disk has when this returns.

    Raises:
        OSError: the files cannot be written.
    """
    if folder is None:
        held = BytesIO()
        bounds, measures = _write(rows, held)
        values = np.frombuffer(held.getbuffer(), dtype=np.int32)
        return Rows(kind, values, bounds, measures, grouped=grouped)
    folder.mkdir()
    with Path(folder, _FILES[0]).open("wb") as file:
        _write_header(file, 0)
        bounds, measures = _write(rows, file)
        file.seek(0)
        _write_header(file, int(bounds[-1]))
        _sync(file)
    for name, content in zip(_FILES[1:], (bounds, measures), strict=True):
        with Path(folder, name).open("wb") as file:
            np.save(file, content)
            _sync(file)
    return Rows.load(kind, folder, grouped=grouped)


def _write(
    rows: Iterable[AnyExample], file: BinaryIO
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write the values of rows; returns their bounds and measures, as of `Rows`."""
    bounds, measures = array("q", [0]), array("q")
    for row in rows:
        for part in _apart(row):
            file.write(np.ascontiguousarray(part, dtype=np.int32).data)
            bounds.append(bounds[-1] + len(part))
        measures.extend((row.size, row.tokens, row.largest))
    measured = np.frombuffer(measures, dtype=np.int64) if measures else np.zeros(0, dtype=np.int64)
    return np.frombuffer(bounds, dtype=np.int64), measured.reshape(-1, 3)


def _write_header(file: BinaryIO, count: int) -> None:
    """The beginning of an .npy file of `count` values. Its length is the same for any count: the format leaves room."""
    descr = np.lib.format.dtype_to_descr(np.dtype(np.int32))
    header = {"descr": descr, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _apart(row: AnyExample) -> list[Tokens]:
    match row:
        case Example():
            return [row.ids, row.labels, np.asarray(row.starts, dtype=np.int32)]
        case Pair():
            return [row.prompt, row.chosen, row.rejected]
        case Tagged():
            return [row.prompt, row.answer, np.asarray([row.good], dtype=np.int32)]
        case Prompt():
            return [row.ids]
