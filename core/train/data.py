"""The data of a trial: rows become examples, packed where that is asked for, and batches of them tensors.

What is set aside and the order of training depend on `data.*` and `train.data_seed` alone, so that all trials of a
study see the same rows in the same order, whatever their batch size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from core.params import DataTable
from core.train.chat import ChatEncoder
from core.train.errors import DataError
from core.train.examples import IGNORED, AnyExample, Example
from core.train.formats import AnyRow
from core.train.order import epoch_order
from core.train.packing import blocks, pack, positions
from core.train.rows import Split, read_split
from core.train.stored import Kind, Rows, stored
from core.train.streaming import StreamedRows

__all__ = [
    "Collator", "Examples", "Split", "build_examples", "epoch_order", "pack", "read_split",
]  # fmt: skip

_CHUNK = 512
"""Rows tokenised at once: enough to keep every core busy, few enough to answer a stop in good time."""
KINDS: dict[str, Kind] = {
    "pt": "example", "sft": "example", "rm": "pair", "dpo": "pair", "kto": "tagged", "ppo": "prompt",
}  # fmt: skip
"""What rows become in each stage."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What a trial trains on and evaluates on. Those to evaluate on come with the longest first, so that batches of
    them hold little padding."""

    train: Rows
    evaluation: Rows
    train_rows: int
    """Rows to train on, before packing."""
    eval_rows: int
    dropped: int
    """Rows that had nothing to learn within cutoff_len."""

    @property
    def largest(self) -> int:
        """The largest token id of both parts."""
        return max(self.train.largest, self.evaluation.largest)

    @property
    def longest(self) -> int:
        """The size of the longest example of both parts."""
        return max(self.train.longest, self.evaluation.longest)


def build_examples(
    split: Split,
    encoder: ChatEncoder,
    table: DataTable,
    stage: str,
    check: Callable[[], None],
    cache: Path | None = None,
) -> Examples:
    """Tokenise both parts; `check` is called between chunks and may raise to end the work. With `cache`, a folder, what
    another trial has made there of the same rows is read instead.

    Raises:
        DataError: no row has anything to learn within cutoff_len.
    """
    if cache is None:
        return tokenise(split, encoder, table, stage, check)
    from core.train.reading import Reading

    return Reading.of(split, table, stage, cache).examples(encoder, check)


def tokenise(
    split: Split,
    encoder: ChatEncoder,
    table: DataTable,
    stage: str,
    check: Callable[[], None],
) -> Examples:
    """As `build_examples`, without a cache."""
    kind = KINDS[stage]
    packed = stage == "pt" or (stage == "sft" and table.packing)
    most: int | None = None
    if packed and isinstance(split.train, StreamedRows):
        most = len(split.train)
        train, lost = _encode_on(
            split.train.onward(), most * (table.cutoff_len + 2), encoder, check
        )
    else:
        train, lost = _encode(split.train, encoder, check)
    evaluation, lost_too = _encode(split.evaluation, encoder, check)
    for name, rows, kept in (
        ("train", split.train, train),
        ("evaluate", split.evaluation, evaluation),
    ):
        if len(rows) and not kept:
            raise DataError(_nothing_left(name, len(rows), table.cutoff_len, stage))
    counts = len(train), len(evaluation), lost + lost_too
    if stage == "pt":
        train, evaluation = (
            _blocks(kept, table, name)
            for name, kept in (("train", train), ("evaluate", evaluation))
        )
    elif stage == "sft" and table.packing:
        train = cast(
            list[AnyExample],
            pack(cast(list[Example], train), table.cutoff_len, apart=table.neat_packing),
        )
    evaluation = sorted(evaluation, key=lambda row: -row.size)
    train = train[:most]
    both = (stored(kind, train, grouped=table.group_by_length), stored(kind, evaluation))
    return Examples(*both, *counts)


class Collator:
    """Makes tensors of rows of stages pt and sft, padded on the right to the longest (to a multiple, where kernels are
    faster so).

    Where rows are packed, there is no attention mask but positions, which begin anew with each row that is packed:
    transformers makes of them that rows do not see each other. Padding has position 0, each token a row of its own.
    """

    def __init__(self, pad_id: int, multiple: int = 1, *, flat: bool = False) -> None:
        """With `flat`, packed rows become one long row instead of a padded batch: what flash_attention_2 needs, as it
        tells packed rows apart in batches of one alone."""
        self._pad = pad_id
        self._multiple = multiple
        self._flat = flat

    def __call__(self, batch: Sequence[Example]) -> dict[str, Any]:
        """Tensors input_ids and labels, and attention_mask or position_ids, each rows × tokens (int64)."""
        import torch

        packed = any(len(example.starts) > 1 for example in batch)
        if packed and self._flat:
            batch = [_in_a_row(batch)]
        longest = max(example.size for example in batch)
        width = -(-longest // self._multiple) * self._multiple
        ids = np.full((len(batch), width), self._pad, dtype=np.int64)
        labels = np.full((len(batch), width), IGNORED, dtype=np.int64)
        third = np.zeros((len(batch), width), dtype=np.int64)
        for row, example in enumerate(batch):
            size = example.size
            ids[row, :size], labels[row, :size] = example.ids, example.labels
            third[row, :size] = positions(example) if packed else 1
        return {
            "input_ids": torch.from_numpy(ids),
            "position_ids" if packed else "attention_mask": torch.from_numpy(third),
            "labels": torch.from_numpy(labels),
        }


def _in_a_row(batch: Sequence[Example]) -> Example:
    begins = np.cumsum([0, *(example.size for example in batch)]).tolist()
    starts = [begin + at for begin, row in zip(begins, batch, strict=False) for at in row.starts]
    return Example(
        np.concatenate([row.ids for row in batch]),
        np.concatenate([row.labels for row in batch]),
        tuple(starts),
    )


def _blocks(texts: Sequence[AnyExample], table: DataTable, name: str) -> list[AnyExample]:
    made = list(blocks(cast(Sequence[Example], texts), table.cutoff_len, apart=table.neat_packing))
    if texts and not made:
        raise DataError(_nothing_left(name, len(texts), table.cutoff_len, "pt"))
    return cast(list[AnyExample], made)


def _nothing_left(name: str, rows: int, cutoff_len: int, stage: str) -> str:
    match stage:
        case "pt":
            return f"none of the {rows} texts to {name} on has two tokens, of which one could be learnt"
        case "ppo":
            what = (
                f"none of the {rows} rows to {name} on has a prompt of at most {cutoff_len} tokens"
            )
        case "rm" | "dpo":
            what = f"none of {rows} rows to {name} on has two different answers within the first {cutoff_len} tokens"
        case _:
            what = f"none of the {rows} rows to {name} on has an answer within the first {cutoff_len} tokens"
    return f"{what}; raise data.cutoff_len"


def _encode(
    rows: Sequence[AnyRow], encoder: ChatEncoder, check: Callable[[], None]
) -> tuple[list[AnyExample], int]:
    """The examples that have something to learn, and how many do not."""
    kept: list[AnyExample] = []
    for chunk in _chunks(rows):
        check()
        kept += [example for example in encoder.encode(chunk) if example.learnt]
    return kept, len(rows) - len(kept)


def _encode_on(
    rows: Iterator[AnyRow], tokens: int, encoder: ChatEncoder, check: Callable[[], None]
) -> tuple[list[AnyExample], int]:
    """The examples of a stream, as many as have `tokens` tokens: packed, they fill that many tokens' sequences."""
    kept: list[AnyExample] = []
    seen = found = 0
    while found < tokens:
        check()
        chunk = list(islice(rows, _CHUNK))
        made = [example for example in encoder.encode(chunk) if example.learnt]
        if not made:
            raise DataError(
                f"none of the {len(chunk)} rows from row {seen + 1} of the stream on has anything to learn; "
                "raise data.cutoff_len"
            )
        kept += made
        seen += len(chunk)
        found += sum(example.size for example in made)
    return kept, seen - len(kept)


def _chunks(rows: Sequence[AnyRow]) -> Iterator[Sequence[AnyRow]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]
