"""The data of a trial: files become examples, set apart for training and evaluation, in an order of their own.

What is set aside and the order of training depend on `data.*` and `train.data_seed` alone, so that all trials of a
study see the same rows in the same order, whatever their batch size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data_size import validation_rows
from core.params import DataTable
from core.train.chat import ChatEncoder
from core.train.errors import DataError
from core.train.examples import IGNORED, Example
from core.train.files import read_rows
from core.train.formats import Conversation, Format, Row, conversations, detect

_CHUNK = 512
"""Conversations tokenised at once: enough to keep every core busy, few enough to answer a stop in good time."""


@dataclass(frozen=True, slots=True)
class Split:
    """The conversations to train on and to evaluate on."""

    train: list[Conversation]
    evaluation: list[Conversation]


@dataclass(frozen=True, slots=True)
class Examples:
    """What a trial trains on and evaluates on. `dropped` rows had no token to learn within cutoff_len."""

    train: list[Example]
    evaluation: list[Example]
    train_rows: int
    eval_rows: int
    dropped: int


def read_split(
    table: DataTable, train_files: Sequence[str], eval_files: Sequence[str], seed: int
) -> Split:
    """Read the files and set the evaluation rows aside.

    Raises:
        DataError: a file or a row cannot be used, or nothing is left to train on.
    """
    rows = _read(train_files, table, seed)
    if eval_files:
        return Split(rows, _read(eval_files, table, seed))
    count = _rows_aside(len(rows), table.val_size)
    if count == 0:
        return Split(rows, [])
    aside = set(np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))[:count].tolist())
    return Split(
        [row for i, row in enumerate(rows) if i not in aside],
        [row for i, row in enumerate(rows) if i in aside],
    )


def build_examples(
    split: Split, encoder: ChatEncoder, table: DataTable, check: Callable[[], None]
) -> Examples:
    """Tokenise both parts; `check` is called between chunks and may raise to end the work.

    Raises:
        DataError: no row has anything to learn within cutoff_len.
    """
    train, lost = _encode(split.train, encoder, check)
    evaluation, lost_too = _encode(split.evaluation, encoder, check)
    for name, rows, kept in (
        ("train", split.train, train),
        ("evaluate", split.evaluation, evaluation),
    ):
        if rows and not kept:
            raise DataError(
                f"none of the {len(rows)} rows to {name} on has an answer within the first {table.cutoff_len} tokens; "
                "raise data.cutoff_len"
            )
    packed = pack(train, table.cutoff_len) if table.packing else train
    return Examples(packed, evaluation, len(train), len(evaluation), lost + lost_too)


def pack(examples: Sequence[Example], length: int) -> list[Example]:
    """Join examples, in their order, into sequences of at most `length` tokens; no example is cut in two.

    The first token of each example stays unlearnt: the end of another row does not predict it.
    """
    packed: list[list[Example]] = []
    room = 0
    for example in examples:
        if len(example.ids) > room:
            packed.append([])
            room = length
        packed[-1].append(example)
        room -= len(example.ids)
    return [
        Example(np.concatenate([e.ids for e in p]), np.concatenate([e.labels for e in p]))
        for p in packed
    ]


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in an epoch: a permutation that depends on the seed and the epoch alone."""
    permutation = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)
    return [int(i) for i in permutation]


class Collator:
    """Pads a batch on the right to its longest row (to a multiple, where kernels are faster so)."""

    def __init__(self, pad_id: int, multiple: int = 1) -> None:
        self._pad = pad_id
        self._multiple = multiple

    def __call__(self, batch: Sequence[Example]) -> dict[str, Any]:
        """Tensors input_ids, attention_mask and labels, each rows × tokens (int64)."""
        import torch

        longest = max(len(example.ids) for example in batch)
        width = -(-longest // self._multiple) * self._multiple
        ids = np.full((len(batch), width), self._pad, dtype=np.int64)
        labels = np.full((len(batch), width), IGNORED, dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, example in enumerate(batch):
            size = len(example.ids)
            ids[row, :size], labels[row, :size], mask[row, :size] = example.ids, example.labels, 1
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
        }


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


def _read(files: Sequence[str], table: DataTable, seed: int) -> list[Conversation]:
    read: list[Conversation] = []
    for number, name in enumerate(files):
        rows = read_rows(Path(name))
        if table.max_samples is not None and table.max_samples < len(rows):
            rows = _sample(rows, table.max_samples, seed + number)
        format: Format = detect(rows[0]) if table.format == "auto" else table.format  # type: ignore[assignment]
        read += conversations(rows, format)
    return read


def _sample(rows: list[Row], count: int, seed: int) -> list[Row]:
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(drawn.tolist())]


def _encode(
    rows: Sequence[Conversation], encoder: ChatEncoder, check: Callable[[], None]
) -> tuple[list[Example], int]:
    """The examples that have something to learn, and how many do not."""
    kept: list[Example] = []
    for chunk in _chunks(rows):
        check()
        kept += [example for example in encoder.encode(chunk) if example.learnt]
    return kept, len(rows) - len(kept)


def _chunks(rows: Sequence[Conversation]) -> Iterator[Sequence[Conversation]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]
