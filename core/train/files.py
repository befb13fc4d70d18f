"""Data files: JSON, JSON Lines, CSV and Parquet become rows with their numbers."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from core.data_size import SUFFIXES
from core.train.errors import DataError, first_line
from core.train.formats import Row

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file starts that some editors and spreadsheets call "Unicode text"."""


def read_rows(path: Path) -> list[Row]:
    """All rows of one file, numbered from 1.

    Raises:
        DataError: the file is not there, is of another kind, or cannot be decoded; the message says where.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the files in it")
    reader = {".json": _json, ".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}.get(
        path.suffix.lower()
    )
    if reader is None:
        kinds = ", ".join(SUFFIXES)
        raise DataError(
            f"{path}: data files end in {kinds}, and this one in {path.suffix or 'nothing'}"
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    try:
        _refuse_utf16(path)
        rows = list(reader(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not rows:
        raise DataError(f"{path}: has no rows")
    return rows


def _json(path: Path) -> Iterator[Row]:
    try:
        document = msgspec.json.decode(_text(path))
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
        yield _row(path, number, item)


def _json_lines(path: Path) -> Iterator[Row]:
    decoder = msgspec.json.Decoder()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                continue
            try:
                item = decoder.decode(content)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: is not UTF-8 text ({error.reason})"
                ) from None
            except msgspec.DecodeError as error:
                raise DataError(f"{path}, line {number}: is not valid JSON: {error}") from None
            yield _row(path, number, item)


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        try:
            for number, fields in enumerate(table, 1):
                if None in fields:
                    raise DataError(
                        f"{path}, row {number}: has more cells than the header has columns"
                    )
                yield Row(str(path), number, fields)
        except csv.Error as error:
            raise DataError(f"{path}, line {table.line_num}: is not valid CSV: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    # pyarrow takes a quarter of a second to import: only who reads parquet pays for it.
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path, memory_map=True).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no readable parquet file: {first_line(error)}") from None
    for number, fields in enumerate(rows, 1):
        yield Row(str(path), number, fields)


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) in _UTF16:
            raise DataError(f"{path}: is UTF-16 text; save it as UTF-8")


def _row(path: Path, number: int, item: Any) -> Row:
    if not isinstance(item, Mapping):
        raise DataError(
            f"{path}, row {number}: must be an object with named fields, and is {type(item).__name__}"
        )
    return Row(str(path), number, item)


def _text(path: Path) -> bytes:
    return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
