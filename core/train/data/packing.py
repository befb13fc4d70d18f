"""Short rows joined into sequences of at most cutoff_len tokens, without padding and without a row cut in two; and
texts cut into blocks.

Packed rows do not see each other: positions begin anew with each row, and where a batch has no attention mask but
positions that do so, transformers lets a token attend to its own row alone (find_packed_sequence_indices of its
masking_utils).
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

import numpy as np
from numpy.typing import NDArray

from core.params import DataTable
from core.train.data.examples import IGNORED, AnyExample, Example

_WINDOW = 8192
"""Rows among which a sequence is filled: enough to fill it to nearly the last token."""
_LEAST = 2
"""Tokens of a row from which something can be learnt."""


def packs(table: DataTable, stage: str) -> bool:
    """Whether a stage joins rows into longer sequences: pretraining always does."""
    return stage == "pt" or (stage == "sft" and table.packing)


def packs_apart(table: DataTable, stage: str) -> bool:
    """Whether a stage packs rows that are not to see each other."""
    return table.neat_packing and packs(table, stage)


def joined(rows: Iterable[AnyExample], table: DataTable, stage: str) -> Iterator[Example]:
    """The sequences of a stage that packs: of texts cut into blocks, or of whole rows."""
    join = blocks if stage == "pt" else pack
    return join(cast(Iterable[Example], rows), table.cutoff_len, apart=table.neat_packing)


def pack(rows: Iterable[Example], length: int, *, apart: bool = True) -> Iterator[Example]:
    """Join rows into sequences of at most `length` tokens. With `apart` they do not see each other.

    The first token of each row stays unlearnt: the end of another row does not predict it. The result depends on the
    rows and their order alone; sequences come in the order of their first rows, a window of rows after the other.
    """
    source = iter(rows)
    while window := list(islice(source, _WINDOW)):
        for members in bins([row.size for row in window], length):
            yield _joined([window[i] for i in members], apart)


def bins(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which rows (of `sizes` tokens) share a sequence: best fit, the longest first."""
    members: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    """What is left of each sequence, and its number; sorted."""
    for row in sorted(range(len(sizes)), key=lambda row: (-sizes[row], row)):
        at = bisect_left(rooms, (sizes[row], -1))
        if at < len(rooms):
            room, number = rooms.pop(at)
            members[number].append(row)
        else:
            room, number = length, len(members)
            members.append([row])
        insort(rooms, (room - sizes[row], number))
    return sorted(sorted(member) for member in members)


def blocks(texts: Iterable[Example], length: int, *, apart: bool = True) -> Iterator[Example]:
    """Cut texts, one after the other, into blocks of `length` tokens; the last block keeps what is left.

    With `apart` the texts of a block do not see each other, and positions begin anew with each, also with the rest of
    one that the block before has begun. A piece of one token is left out: nothing can be learnt from it.
    """
    least = _LEAST if apart else 1
    held: list[Example] = []
    room = length
    for text in texts:
        start = 0
        while start < text.size:
            piece = _piece(text, start, min(start + room, text.size), first=not held, apart=apart)
            start += piece.size
            if piece.size < least:
                continue
            held.append(piece)
            room -= piece.size
            if room < least:
                yield _joined(held, apart)
                held, room = [], length
    if sum(piece.size for piece in held) >= _LEAST:
        yield _joined(held, apart)


def _piece(text: Example, start: int, end: int, *, first: bool, apart: bool) -> Example:
    """A part of a text. Its first token is learnt where the token before it is there to predict it."""
    ids = text.ids[start:end]
    labels = ids.copy()
    if first or apart:
        labels[:1] = IGNORED
    return Example(ids, labels)


def _joined(rows: Sequence[Example], apart: bool) -> Example:
    ends = np.cumsum([row.size for row in rows]).tolist()
    return Example(
        np.concatenate([row.ids for row in rows]),
        np.concatenate([row.labels for row in rows]),
        (0, *ends[:-1]) if apart else (0,),
    )


def positions(row: Example) -> NDArray[np.int64]:
    """The position of each token in the row that it belongs to."""
    starts = np.asarray(row.starts, dtype=np.int64)
    sizes = np.diff(np.append(starts, row.size))
    return np.arange(row.size, dtype=np.int64) - np.repeat(starts, sizes)
