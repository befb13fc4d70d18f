"""The rows of a trial: data sets become rows of the stage's kind, mixed, set apart for training and evaluation.

What is set aside depends on `data.*` and `train.data_seed` alone, so that all trials of a study see the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.dataset_info import DataSet, DataSetError, find_sets
from core.mixture import set_size
from core.params import DataTable
from core.rows import AnyRow, Row, layout_of, read_row
from core.rows.files import read_rows
from core.train.data.mixing import Part, draw, mix
from core.train.data.streaming import Stream, StreamedRows
from core.train.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True)
class Split:
    """The rows to train on and to evaluate on. Those of a stream are read as they are asked for."""

    train: Sequence[AnyRow]
    evaluation: Sequence[AnyRow]


def read_split(
    table: DataTable,
    stage: str,
    train: Sequence[str],
    evaluation: Sequence[str],
    seed: int,
    wanted: int | None = None,
) -> Split:
    """Read the data sets named `train` and `evaluation` for `stage` and set the evaluation rows aside.

    With `data.streaming` the training rows are the first `wanted` ones of the stream (max_steps × effective batch),
    after those set aside; nothing is read before it is asked for but the rows to evaluate on.

    Raises:
        DataError: a data set, a file or a row cannot be used, or nothing is left to train on.
        SettingsError: a stream without `wanted`.
    """
    sets, others = _sets(train, table), _sets(evaluation, table)
    apart = [
        row
        for number, dataset in enumerate(others)
        for row in _part(dataset, table, stage, seed + number).rows
    ]
    if table.streaming:
        return _streamed(Stream(tuple(sets), table, stage, seed), apart, wanted)
    parts = [_part(dataset, table, stage, seed + number) for number, dataset in enumerate(sets)]
    rows, aside = mix(
        parts,
        0 if sets and others else table.val_size,
        table.mix_strategy,
        table.interleave_probs,
        seed,
    )
    return Split(rows, apart if others else aside)


def _streamed(stream: Stream, apart: Sequence[AnyRow], wanted: int | None) -> Split:
    if wanted is None:
        raise SettingsError(
            "data.streaming needs train.max_steps: how many rows a stream has is not known"
        )
    count = 0 if apart else int(stream.table.val_size)
    aside = list(StreamedRows(stream, 0, count)) if count else list(apart)
    return Split(StreamedRows(stream, count, wanted), aside)


def _sets(names: Sequence[str], table: DataTable) -> list[DataSet]:
    try:
        return find_sets(names, table.dataset_dir)
    except DataSetError as error:
        raise DataError(str(error)) from None


def _part(dataset: DataSet, table: DataTable, stage: str, seed: int) -> Part[AnyRow]:
    """The rows of one data set that are taken."""
    rows: list[Row] = [row for file in dataset.files for row in read_rows(file)]
    size = set_size(len(rows), dataset.num_samples, table.max_samples)
    layout = layout_of(rows[0], dataset, table.format)
    system = table.default_system
    read = [read_row(row, layout, stage, system) for row in draw(rows, size.rows, seed)]
    return Part(dataset.name, read, size.wanted)
