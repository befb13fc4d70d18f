"""The rows of a trial: data sets become rows of the stage's kind, mixed, set apart for training and evaluation.

What is set aside depends on `data.*` and `train.data_seed` alone, so that all trials of a study see the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.dataset_info import DataSet, DataSetError, find_sets
from core.mixture import set_size
from core.params import DataTable
from core.train.errors import DataError, SettingsError
from core.train.files import read_rows
from core.train.formats import AnyRow, Compared, Row, layout_of, read_row
from core.train.mixing import Part, draw, mix
from core.train.streaming import Stream, StreamedRows


@dataclass(frozen=True, slots=True)
class Split:
    """The rows to train on and to evaluate on. Those of a stream are read as they are asked for."""

    train: Sequence[AnyRow]
    evaluation: Sequence[AnyRow]
    notes: tuple[str, ...] = ()
    """What a person should know of the rows, as that some were left out."""


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
    apart, notes = _evaluation(others, table, stage, seed)
    if table.streaming:
        return _streamed(Stream(tuple(sets), table, stage, seed), apart, wanted)
    parts = [
        _part(dataset, table, stage, seed + number, notes) for number, dataset in enumerate(sets)
    ]
    rows, aside = mix(
        parts,
        0 if sets and others else table.val_size,
        table.mix_strategy,
        table.interleave_probs,
        seed,
    )
    return Split(rows, apart if others else aside, tuple(notes))


def _evaluation(
    sets: Sequence[DataSet], table: DataTable, stage: str, seed: int
) -> tuple[list[AnyRow], list[str]]:
    """All rows of the data sets to evaluate on, one set after the other, and what is to be said of them."""
    notes: list[str] = []
    rows: list[AnyRow] = []
    for number, dataset in enumerate(sets):
        rows += _part(dataset, table, stage, seed + number, notes).rows
    return rows, notes


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


def _part(
    dataset: DataSet, table: DataTable, stage: str, seed: int, notes: list[str]
) -> Part[AnyRow]:
    """The rows of one data set that are taken; says in `notes` which of them teach nothing and are left out."""
    rows: list[Row] = [row for file in dataset.files for row in read_rows(file)]
    size = set_size(len(rows), dataset.num_samples, table.max_samples)
    layout = layout_of(rows[0], dataset, table.format)
    system = table.default_system
    read = [read_row(row, layout, stage, system) for row in draw(rows, size.rows, seed)]
    kept = [row for row in read if not teaches_nothing(row)]
    if len(kept) < len(read):
        first = next(row for row in read if teaches_nothing(row))
        lost = len(read) - len(kept)
        told = f"{lost} of {len(read)} rows of {dataset.name} have the same answer as chosen and rejected"
        if not kept:
            raise DataError(
                f"{told}, so that there is nothing to compare (the first: {first.place})"
            )
        notes.append(f"{told}; they are left out (the first: {first.place})")
    return Part(dataset.name, kept, size.wanted - (len(read) - len(kept)))


def teaches_nothing(row: AnyRow) -> bool:
    """Whether a row compares an answer with itself."""
    return isinstance(row, Compared) and row.chosen == row.rejected
