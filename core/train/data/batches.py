"""The data of a trial: rows become examples, packed where that is asked for, and batches of them tensors.

What is set aside and the order of training depend on `data.*` and `train.data_seed` alone, so that all trials of a
study see the same rows in the same order, whatever their batch size.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from core.params import DataTable
from core.rows import AnyRow
from core.train.data.chat import ChatEncoder
from core.train.data.examples import IGNORED, AnyExample, Example
from core.train.data.order import epoch_order
from core.train.data.packing import joined, pack, packs, positions
from core.train.data.rows import Split, read_split
from core.train.data.stored import Kind, Rows, stored
from core.train.data.streaming import StreamedRows
from core.train.errors import DataError
from core.train.log import say

__all__ = [
    "Collator", "Examples", "Split", "build_examples", "epoch_order", "pack", "read_split",
]  # fmt: skip

_CHUNK = 512
"""Rows tokenised at once: enough to keep every core busy, few enough to answer a stop in good time."""
_TELL_EVERY_S = 5.0
"""Seconds between two lines of the log about a long tokenising."""
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
    """Rows that had nothing to learn within cutoff_len, pairs of equal answers among them."""

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
    from core.train.data.reading import Reading

    return Reading.of(split, table, stage, cache).examples(encoder, check)


def tokenise(
    split: Split,
    encoder: ChatEncoder,
    table: DataTable,
    stage: str,
    check: Callable[[], None],
    folder: Path | None = None,
) -> Examples:
    """As `build_examples`, without a cache: in memory, or in the folders `train` and `evaluation` of `folder`.

    Raises:
        OSError: nothing can be written there.
    """
    streamed = isinstance(split.train, StreamedRows)
    if streamed:
        say(_streamed(len(split.train), table, stage))
    # How many rows fill the sequences of a stream is not known before.
    known = None if streamed and packs(table, stage) else len(split.train)
    learnt = _Encoding(encoder, check, known)
    judged = _Encoding(encoder, check, len(split.evaluation))
    train = stored(
        KINDS[stage],
        _to_train(split.train, learnt, table, stage),
        folder and folder / "train",
        grouped=table.group_by_length,
    )
    evaluation = stored(
        KINDS[stage],
        sorted(_to_evaluate(split.evaluation, judged, table, stage), key=lambda row: -row.size),
        folder and folder / "evaluation",
    )
    for name, rows, kept in (
        ("train", split.train, train),
        ("evaluate", split.evaluation, evaluation),
    ):
        if len(rows) and not len(kept):
            raise DataError(_nothing_left(name, len(rows), table.cutoff_len, stage))
    return Examples(train, evaluation, learnt.kept, judged.kept, learnt.lost + judged.lost)


class _Encoding:
    """Rows become examples, one chunk after the other. `kept` and `lost` count those that have something to learn and
    those that have not, which are left out; `barren` the latter since the last of the former."""

    def __init__(
        self, encoder: ChatEncoder, check: Callable[[], None], rows: int | None = None
    ) -> None:
        """`rows`: how many are to become examples, for the log; None where that is not known."""
        self._encoder = encoder
        self._check = check
        self._rows = rows
        self._told = time.monotonic()
        self.kept = 0
        self.lost = 0
        self.barren = 0

    def examples(self, rows: Iterable[AnyRow], wanted: int | None = None) -> Iterator[AnyExample]:
        """The examples of all rows, or the first `wanted` ones, for which no more rows are read than it takes."""
        source = iter(rows)
        while wanted is None or self.kept < wanted:
            self._check()
            most = _CHUNK if wanted is None else min(_CHUNK, wanted - self.kept)
            chunk = list(islice(source, most))
            if not chunk:
                return
            for example in self._encoder.encode(chunk):
                if example.learnt:
                    self.kept += 1
                    self.barren = 0
                    yield example
                else:
                    self.lost += 1
                    self.barren += 1
            self._tell()

    def _tell(self) -> None:
        """Say now and then how far it is, to people who wait for the first update."""
        if time.monotonic() - self._told < _TELL_EVERY_S:
            return
        self._told = time.monotonic()
        of = "" if self._rows is None else f" of {self._rows:,} ({self.kept / self._rows:.0%})"
        lost = f", {self.lost:,} left out" if self.lost else ""
        say(f"tokenised {self.kept:,} rows{of}{lost}")


def _to_train(
    rows: Sequence[AnyRow], encoding: _Encoding, table: DataTable, stage: str
) -> Iterator[AnyExample]:
    """What is trained on; of a stream as many examples as `rows` has, however many rows they take."""
    if not isinstance(rows, StreamedRows):
        examples = encoding.examples(rows)
        return joined(examples, table, stage) if packs(table, stage) else examples
    wanted, onward = len(rows), _learnable(rows, encoding, table, stage)
    if not packs(table, stage):
        return encoding.examples(onward, wanted)
    # So many tokens fill the sequences: each has at most cutoff_len, and leaves out two where texts are cut.
    enough = _up_to(encoding.examples(onward), wanted * (table.cutoff_len + 2))
    return islice(joined(enough, table, stage), wanted)


def _to_evaluate(
    rows: Sequence[AnyRow], encoding: _Encoding, table: DataTable, stage: str
) -> Iterator[AnyExample]:
    """What is evaluated on, which is packed in pretraining alone."""
    examples = encoding.examples(rows)
    return joined(examples, table, stage) if stage == "pt" else examples


def _up_to(examples: Iterable[AnyExample], tokens: int) -> Iterator[AnyExample]:
    """The first examples, as many as have `tokens` tokens."""
    for example in examples:
        yield example
        tokens -= example.size
        if tokens <= 0:
            return


def _learnable(
    rows: StreamedRows, encoding: _Encoding, table: DataTable, stage: str
) -> Iterator[AnyRow]:
    """The rows of a stream without end.

    Raises:
        DataError: nothing is to be learnt from as many rows one after the other as were wanted.
    """
    patience = max(len(rows), _CHUNK)
    for row in rows.onward():
        if encoding.barren >= patience:
            raise DataError(_nothing_left("train", patience, table.cutoff_len, stage))
        yield row


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


def _streamed(wanted: int, table: DataTable, stage: str) -> str:
    """What is about to be read of a stream, and what for."""
    what = f"{wanted:,} sequences" if packs(table, stage) else f"{wanted:,} rows"
    return (
        f"the stream is read as far as its updates take it: {what} (max_steps × effective batch) are tokenised before "
        "the first update, once for all trials of the study"
    )


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
            return f"{what}; give pairs of different answers, or raise data.cutoff_len"
        case _:
            what = f"none of the {rows} rows to {name} on has an answer within the first {cutoff_len} tokens"
    return f"{what}; raise data.cutoff_len"
