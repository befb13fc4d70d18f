"""Data files: JSON, JSON Lines, CSV, Parquet and plain text become rows with their numbers."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.data_size import SUFFIXES
from core.train.data.formats import Row
from core.train.data.formats.words import kind
from core.train.errors import DataError, first_line

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file starts that some editors and spreadsheets call "Unicode text"."""
_CELL = 2**31 - 1
"""Bytes of a cell: the csv module's own limit of 128 KiB is less than a long document."""
_BATCH = 1024
"""Rows of a parquet file that are decoded at once."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it stands in its file: the text of a line of JSON Lines, anything else with its fields.

    A line takes a fraction of the memory of its fields, which counts where many of them wait to be drawn.
    """

    file: str
    number: int
    content: bytes | Mapping[str, Any]

    def row(self) -> Row:
        """The row with its fields.

        Raises:
            DataError: the line is no JSON object.
        """
        if not isinstance(self.content, bytes):
            return Row(self.file, self.number, self.content)
        where = f"{self.file}, line {self.number}"
        try:
            item = _DECODER.decode(self.content)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: is not UTF-8 text ({error.reason})") from None
        except RecursionError:
            raise DataError(f"{where}: {_NESTED}") from None
        except msgspec.DecodeError as error:
            torn = b"\x00" in self.content
            hint = " (it has NUL bytes, as a file that was cut off by a crash)" if torn else ""
            raise DataError(f"{where}: is not valid JSON: {error}{hint}") from None
        if not isinstance(item, Mapping):
            whole = "; a file that is one list of rows must end in .json" * isinstance(item, list)
            raise _no_object(self.file, self.number, item, whole)
        return Row(self.file, self.number, item)


_DECODER = msgspec.json.Decoder()
_NESTED = "has lists or objects too deep inside one another"


def read_rows(path: Path) -> list[Row]:
    """All rows of one file, numbered from 1.

    Raises:
        DataError: the file is not there, is of another kind, or cannot be decoded; the message says where.
    """
    rows = [record.row() for record in records(path)]
    if not rows:
        raise DataError(f"{path}: has no rows")
    return rows


def records(path: Path, *, streamed: bool = False) -> Iterator[Record]:
    """The rows of one file as they are read; with `streamed`, a kind that can only be read whole is refused.

    Raises:
        DataError: the file is not there, is of another kind, or cannot be decoded; the message says where.
    """
    reader = _reader(path, streamed)
    try:
        _refuse_utf16(path)
        yield from reader(path)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _reader(path: Path, streamed: bool) -> Callable[[Path], Iterator[Record]]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the files in it")
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        kinds = ", ".join(SUFFIXES)
        raise DataError(
            f"{path}: data files end in {kinds}, and this one in {path.suffix or 'nothing'}"
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if streamed and suffix == ".json":
        raise DataError(
            f"{path}: a .json file is one list, which can only be read whole, and data.streaming is true; "
            "write one object a line into a .jsonl file, or set data.streaming = false"
        )
    return reader


def _json(path: Path) -> Iterator[Record]:
    try:
        document = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except RecursionError:
        raise DataError(f"{path}: {_NESTED}") from None
    except msgspec.DecodeError as error:
        hint = (
            "; a file with one object a line must end in .jsonl" if "trailing" in str(error) else ""
        )
        raise DataError(f"{path}: is not valid JSON: {error}{hint}") from None
    if isinstance(document, Mapping):
        lists = [value for value in document.values() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(
                f"{path}: must hold a list of rows, and holds one object with {', '.join(document) or 'nothing'}"
            )
        document = lists[0]
    if not isinstance(document, list):
        raise DataError(f"{path}: must hold a list of rows, and holds {type(document).__name__}")
    for number, item in enumerate(document, 1):
        if not isinstance(item, Mapping):
            raise _no_object(str(path), number, item)
        yield Record(str(path), number, item)


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.strip():
                yield Record(str(path), number, content)


def _text(path: Path) -> Iterator[Record]:
    """A row a line, as the `text` loader of the datasets library has it; blank lines are none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if b"\x00" in content:
                raise DataError(f"{path}, line {number}: has a NUL byte, so it is no text file")
            try:
                text = content.decode().rstrip(
                    "\r\n"
                )  # nothing else that Unicode takes for a line's end
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: is not UTF-8 text ({error.reason})"
                ) from None
            if content.strip():
                yield Record(str(path), number, {"text": text})


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        try:
            for number, fields in enumerate(table, 1):
                if None in fields:
                    raise DataError(
                        f"{path}, row {number}: has more cells than the header has columns"
                    )
                yield Record(str(path), number, fields)
        except csv.Error as error:
            raise DataError(f"{path}, line {table.line_num}: is not valid CSV: {error}") from None


def _parquet(path: Path) -> Iterator[Record]:
    # pyarrow takes a quarter of a second to import: only who reads parquet pays for it.
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(str(path), number, fields)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no readable parquet file: {first_line(error)}") from None


_READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) in _UTF16:
            raise DataError(f"{path}: is UTF-16 text; save it as UTF-8")


def _not_utf8(path: Path) -> DataError:
    """What is said of a file that was decoded in pieces: where in it the first bad byte is."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return DataError(f"{path}, line {number}: is not UTF-8 text ({error.reason})")
    return DataError(f"{path}: is not UTF-8 text")


def _no_object(file: str, number: int, item: Any, hint: str = "") -> DataError:
    return DataError(
        f"{file}, row {number}: must be an object with named fields, and is {kind(item)}{hint}"
    )
