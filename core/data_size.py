"""How many rows a data file holds, counted without loading it, and how that many rows are split and stepped through.

The counts are for planning: an editor shows steps and costs while a person types. Nothing here imports torch, and
pyarrow only for a parquet file.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from core.json_rows import BOM, form_of, rows_within

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt")
CSV_CELL = 2**31 - 1
"""Bytes of a cell: the csv module's own limit of 128 KiB is less than a long document."""
_WHOLE_JSON = 4 * 1024 * 1024
"""A larger JSON file is scanned in pieces: parsing it whole would hold up every other thread."""
_CHUNK = 256 * 1024
_REPORT_EVERY = 16 * 1024 * 1024

Report = Callable[[int, float], bool]
"""Called now and then with the rows so far and the share of the file that was read; False stops the count."""


class DataSizeError(Exception):
    """A data file cannot be counted. `wrong` says why, `right` what would be right (or is empty)."""

    def __init__(self, path: str, wrong: str, right: str = "") -> None:
        super().__init__(path, wrong, right)
        self.path = path
        self.wrong = wrong
        self.right = right

    def __str__(self) -> str:
        return f"{self.path}: {self.wrong}" + (f" ({self.right})" if self.right else "")


class CountStoppedError(Exception):
    """The caller's report asked to stop counting."""


@dataclass(frozen=True, slots=True)
class FileSize:
    """What a data file holds."""

    rows: int
    longest: int | None
    """Bytes of the longest row as the file has it; None where that is not known without reading everything."""
    wanted: int | None = None
    """Rows that its entry in dataset_info.json asks for; None: all of them."""
    bytes: int = field(default=0, compare=False)
    """Bytes of all rows together, uncompressed."""


@dataclass
class RowCounter:
    """Counts rows and remembers each count until the file's size or time of change differs."""

    _known: dict[tuple[str, int, int], FileSize] = field(default_factory=dict)

    def count(self, path: Path, report: Report | None = None) -> FileSize:
        """What `path` holds.

        Raises:
            DataSizeError: there is no such file, it is of no known kind, it is malformed, or it has no rows.
            CountStoppedError: `report` returned False.
        """
        try:
            stat = path.stat()
        except OSError:
            raise DataSizeError(str(path), "there is no such file") from None
        key = (str(path), stat.st_mtime_ns, stat.st_size)
        if key not in self._known:
            self._known[key] = measure(path, report)
        return self._known[key]


def measure(path: Path, report: Report | None = None) -> FileSize:
    """Count the rows of a data file (one that ends in one of `SUFFIXES`); blank lines are none.

    Raises:
        DataSizeError: there is no such file, it is of no known kind, it is malformed, or it has no rows.
        CountStoppedError: `report` returned False.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataSizeError(str(path), "is a folder", "name the files in it")
    if suffix not in SUFFIXES:
        ends = f"ends in {suffix}" if suffix else "has no ending"
        raise DataSizeError(str(path), ends, f"data files end in {', '.join(SUFFIXES)}")
    readers = {
        ".jsonl": _json,
        ".txt": _lines,
        ".csv": _csv,
        ".json": _json,
        ".parquet": _parquet,
    }
    try:
        size = readers[suffix](path, report)
    except FileNotFoundError:
        raise DataSizeError(str(path), "there is no such file") from None
    except OSError as error:
        raise DataSizeError(str(path), f"cannot be read: {error.strerror or error}") from None
    if size.rows == 0:
        raise DataSizeError(str(path), "has no rows")
    return size if size.bytes else replace(size, bytes=path.stat().st_size)


@dataclass
class _Progress:
    """Says how far a count is, every so many bytes."""

    report: Report | None
    size: int
    read: int = 0
    _next: int = field(default_factory=lambda: _REPORT_EVERY)

    def add(self, length: int, rows: int) -> None:
        self.read += length
        if self.report is None or self.read < self._next:
            return
        self._next = self.read + _REPORT_EVERY
        if not self.report(rows, min(1.0, self.read / max(1, self.size))):
            raise CountStoppedError


def _lines(path: Path, report: Report | None) -> FileSize:
    progress = _Progress(report, path.stat().st_size)
    rows = longest = 0
    with path.open("rb") as file:
        for line in file:
            # The mark at the beginning of a file makes no row of a blank line.
            if not (line.isspace() or (progress.read == 0 and not line.removeprefix(BOM).strip())):
                rows += 1
                longest = max(longest, len(line))
            progress.add(len(line), rows)
    return FileSize(rows, longest)


def _csv(path: Path, report: Report | None) -> FileSize:
    """Rows under the header, told by the module that reads them for training."""
    progress = _Progress(report, path.stat().st_size)
    csv.field_size_limit(CSV_CELL)
    rows, longest, ended = -1, 0, 0

    def lines(file: TextIO) -> Iterator[str]:
        for line in file:
            progress.add(len(line) if line.isascii() else len(line.encode()), max(0, rows))
            yield line

    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for cells in csv.reader(lines(file), strict=True):
                if cells or rows < 0:
                    rows += 1
                    longest = max(longest, progress.read - ended)
                ended = progress.read
        except csv.Error as error:
            never = str(error) == "unexpected end of data"
            wrong = "a quoted field is never closed" if never else f"is not valid CSV: {error}"
            raise DataSizeError(str(path), wrong) from None
        except UnicodeDecodeError:
            raise DataSizeError(str(path), "is not UTF-8 text") from None
    return FileSize(max(0, rows), longest)


def _json(path: Path, report: Report | None) -> FileSize:
    form, size = form_of(path), path.stat().st_size
    if form == "lines":
        return _lines(path, report)
    if form == "list" and size > _WHOLE_JSON:
        return FileSize(_scan_json(path, _Progress(report, size)), None)
    try:
        # What a number is does not matter here, and Python refuses to make one of thousands of digits.
        content = json.loads(path.read_bytes(), parse_int=float)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise DataSizeError(str(path), f"is not valid JSON: {where}") from None
    except UnicodeDecodeError:
        raise DataSizeError(str(path), "is not UTF-8 text") from None
    except RecursionError:
        raise DataSizeError(str(path), "has lists or objects too deep inside one another") from None
    if isinstance(content, dict):
        content = rows_within(content)
    if not isinstance(content, list):
        raise DataSizeError(
            str(path), "holds no list of rows", "write [ { … }, { … } ], or one object a line"
        )
    return FileSize(len(content), max((len(json.dumps(row)) for row in content), default=0))


_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]|"', re.DOTALL)


def _scan_json(path: Path, progress: _Progress) -> int:
    """Objects directly inside the outermost list, found by their brackets."""
    rows = depth = 0
    rest = b""
    with path.open("rb") as file:
        # So much that a long string is not gone over again and again.
        while chunk := file.read(max(_CHUNK, len(rest))):
            text = rest + chunk
            rest = b""
            for match in _BRACKET.finditer(text):
                token = match[0]
                if token in b"[{":
                    depth += 1
                    rows += depth == 2
                elif token in b"]}":
                    depth -= 1
                elif token == b'"':  # A string that the next piece goes on with.
                    rest = text[match.start() :]
                    break
            progress.add(len(chunk), rows)
    if depth or rest:
        raise DataSizeError(str(path), "is not valid JSON: it ends in the middle of a row")
    return rows


def _parquet(path: Path, report: Report | None) -> FileSize:
    # pyarrow takes a quarter of a second to import: only who has parquet files pays for it.
    import pyarrow
    from pyarrow import parquet

    try:
        footer = parquet.read_metadata(path)
        groups = (footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        return FileSize(int(footer.num_rows), None, bytes=int(sum(groups)))
    except pyarrow.ArrowException:
        raise DataSizeError(str(path), "is not a parquet file") from None


_TOKEN = 4
"""Bytes of text a token, about: English, with the vocabularies of 32,000 tokens and more that models have."""


def joined_rows(rows: int, size: int, length: int) -> int:
    """About how many sequences of `length` tokens come of `rows` rows of `size` bytes together, joined without padding.

    Known without a tokenizer, so that it may well be off by a third, and by more for other scripts.
    """
    return max(1, round(size / _TOKEN / length)) if rows else 0


PADDED_TO = 8
"""On CUDA batches are as wide as a multiple of so many tokens: its kernels are faster so."""


def batch_width(longest: int, *, cuda: bool) -> int:
    """How wide a batch is, in tokens, whose longest row has `longest` of them."""
    return -(-longest // PADDED_TO) * PADDED_TO if cuda else longest


def validation_rows(rows: int, val_size: float) -> int:
    """Rows that are set aside: a share below 1 (rounded, at least one row) or a number of rows."""
    if val_size == 0:
        return 0
    return max(1, round(rows * val_size)) if val_size < 1 else int(val_size)


def steps_per_epoch(rows: int, batch: int) -> int:
    """Updates in one pass over `rows` with `batch` rows an update; the last one may have fewer."""
    return max(1, math.ceil(rows / batch))


def training_steps(epoch_steps: int, epochs: float, max_steps: int | None) -> int:
    """Updates of the full training; `max_steps` decides where it is set."""
    return max_steps if max_steps is not None else max(1, round_up(epoch_steps * epochs))


def probe_steps(steps: int, budget: float) -> int:
    """Updates of a trial that runs the share `budget` of a full training of `steps`."""
    return max(1, round_up(steps * budget))


def rows_after(updates: int, rows: int, batch: int) -> int:
    """Rows that so many updates train on; the last update of an epoch takes what is left of it."""
    epochs, rest = divmod(updates, steps_per_epoch(rows, batch))
    return epochs * rows + min(rows, rest * batch)


def updates_for(wanted: int, rows: int, batch: int) -> int:
    """Updates after which `wanted` rows were trained on: the other way round from `rows_after`."""
    epochs, rest = divmod(wanted, rows)
    return epochs * steps_per_epoch(rows, batch) + math.ceil(rest / batch)


def round_up(value: float) -> int:
    """Round up, but not for what floating point adds: 0.1 × 30 is 3."""
    return math.ceil(value - 1e-9 * max(1.0, value))
