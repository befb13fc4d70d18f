"""Whether the first rows of a data set fit a stage: told before anything is started, by the functions that training
reads rows with. Clients use it, and no more is read than these rows take."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from core.dataset_info import DataSet
from core.errors import DataError
from core.rows.files import records
from core.rows.layout import Layout, layout_of
from core.rows.stages import read_row

ROWS = 50
"""Rows of each file that are looked at."""
FILES = 8
"""Files of a data set that are looked at."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What rows are read for, by the parameters of these names."""

    stage: str
    format: str = "auto"
    streaming: bool = False
    sampled: bool = False
    """Whether only some of the rows are drawn (data.max_samples), so that training may never see a bad one."""


def unfit(dataset: DataSet, wanted: Wanted) -> str | None:
    """What is wrong with the first rows: the file, the row, the field and what to do; None where nothing is.

    Files that are not there are left out: `core.dataset_info` and `core.data_size` tell of them. A row that training
    may pass by is let through where another one fits.
    """
    layout: Layout | None = None
    try:
        for file in dataset.files[:FILES]:
            if file.is_file():
                layout = _look(file, dataset, layout, wanted)
    except DataError as error:
        return str(error)
    return None


def _look(file: Path, dataset: DataSet, layout: Layout | None, wanted: Wanted) -> Layout | None:
    """The layout, which the very first row decides.

    Raises:
        DataError: a row does not fit, or the file has none or cannot be read so far.
    """
    some = wanted.sampled or wanted.streaming or dataset.num_samples is not None
    wrong: DataError | None = None
    fits = False
    for record in islice(records(file, streamed=wanted.streaming), ROWS):
        row = record.row()
        layout = layout or layout_of(row, dataset, wanted.format)
        try:
            read_row(row, layout, wanted.stage)
            fits = True
        except DataError as error:
            wrong = wrong or error
            if not some:
                break
    if wrong and not (some and fits):
        raise wrong
    if not fits:
        raise DataError(f"{file}: has no rows")
    return layout
