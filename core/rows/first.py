"""Whether the first rows of a data set fit a stage: told before anything is started, by the functions that training
reads rows with. Clients use it, and no more is read than these rows take."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from core.dataset_info import DataSet
from core.errors import DataError
from core.rows.files import Record, records
from core.rows.layout import Layout, layout_of
from core.rows.stages import read_row

ROWS = 50
"""Rows of each file that are looked at."""
FILES = 8
"""Files of a data set that are looked at."""
READ_BY = frozenset({"stage", "format", "streaming", "dataset_dir"})
"""Parameters that decide how rows are read: where a search tries several values of one, some may fit that others do
not."""


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

    Files that are not there are left out: `core.dataset_info` and `core.data_size` tell of them. What training may pass
    by is let through where any row of the data set fits: a row where only some are drawn, and of a stream, which may
    end before it, a file as well.
    """
    look = _Look(dataset, wanted)
    try:
        for file in dataset.files[:FILES]:
            if file.is_file():
                look.at(file)
    except DataError as error:
        return str(error)
    return None if look.fits else look.doubt


@dataclass(slots=True)
class _Look:
    """What has been seen of a data set."""

    dataset: DataSet
    wanted: Wanted
    layout: Layout | None = None
    """What the very first row decides."""
    fits: bool = False
    doubt: str | None = None
    """The first thing that is wrong with what training may pass by."""

    def at(self, file: Path) -> None:
        """Look at the first rows of a file.

        Raises:
            DataError: a row does not fit, or the file has none or cannot be read so far, and training will see it.
        """
        empty = True
        try:
            for record in islice(records(file, streamed=self.wanted.streaming), ROWS):
                empty = False
                self._row(record)
        except DataError as error:
            # A stream begins with the first row, whatever else it comes to.
            self._doubt(error, passed_by=self.wanted.streaming and self.layout is not None)
            return
        if empty:
            self._doubt(DataError(f"{file}: has no rows"), passed_by=self.wanted.streaming)

    def _row(self, record: Record) -> None:
        row = record.row()
        self.layout = self.layout or layout_of(row, self.dataset, self.wanted.format)
        try:
            read_row(row, self.layout, self.wanted.stage)
            self.fits = True
        except DataError as error:
            some = self.wanted.sampled or self.wanted.streaming
            self._doubt(error, passed_by=some or self.dataset.num_samples is not None)

    def _doubt(self, error: DataError, *, passed_by: bool) -> None:
        if not passed_by:
            raise error
        self.doubt = self.doubt or str(error)
