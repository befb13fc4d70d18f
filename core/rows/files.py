"""Data files: JSON, JSON Lines, CSV, Parquet and plain text become rows with their numbers."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from core.data_size import CSV_CELL, SUFFIXES
from core.errors import DataError, first_line
from core.json_rows import BOM, JsonTextError, form_of, list_items, rows_within
from core.rows import Row
from core.rows.words import kind, names

_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"[\x00", b"\x00{", b"\x00[")
"""How a file starts that some editors and spreadsheets call "Unicode text"."""
_OTHERS: Mapping[bytes, str] = {
    b"\x1f\x8b": "is packed by gzip; unpack it first (gunzip)",
    b"PK\x03\x04": "is a zip archive or a spreadsheet; unpack it, or save it as .csv",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it first (unzstd)",
    b"PAR1": "is a parquet file; name it .parquet",
    b"version https://git-lfs": "is a pointer of Git LFS, and not the data; fetch that with `git lfs pull`",
    b"<!DOCTYPE": "is a web page, and not the data; download the file itself",
    b"<!doctype": "is a web page, and not the data; download the file itself",
    b"<html": "is a web page, and not the data; download the file itself",
}
"""How a file starts that has the name of another kind, and what to do."""
_BATCH = 1024
"""Rows of a parquet file that are decoded at once."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it stands in its file: of JSON its text, of anything else its fields.

    The text takes a fraction of the memory of the fields, which counts where many rows wait to be drawn.
    """

    file: str
    number: int
    content: bytes | Mapping[str, Any]
    unit: Literal["line", "row"] = "row"
    """What `number` counts: lines of the file, or rows."""

    def row(self) -> Row:
        """The row with its fields.

        Raises:
            DataError: the text is no JSON object, or names a field twice.
        """
        if not isinstance(self.content, bytes):
            return Row(self.file, self.number, self.content)
        where = f"{self.file}, {self.unit} {self.number}"
        try:
            item = _DECODER.decode(self.content)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: is not UTF-8 text ({error.reason}); save the file as UTF-8"
            ) from None
        except RecursionError:
            raise DataError(f"{where}: {_NESTED}") from None
        except msgspec.DecodeError as error:
            raise DataError(f"{where}: is not valid JSON: {error}{self._hint()}") from None
        if not isinstance(item, Mapping):
            raise _no_object(self.file, self.number, item)
        twice = _named_twice(self.content, item)
        if twice is not None:
            raise DataError(
                f"{where}: has the field {twice} twice, of which only one can be meant; take one out"
            )
        return Row(self.file, self.number, item)

    def _hint(self) -> str:
        """What may have made a line that is no JSON."""
        text = self.content if isinstance(self.content, bytes) else b""
        if b"\x00" in text:
            return " (it has NUL bytes, as a file that was cut off by a crash)"
        if text.lstrip()[:2] == b"{'":
            return "; JSON has double quotes, not single ones"
        if self.unit == "line" and text.strip() in (b"{", b"["):
            return "; each line must be a whole object: write it on one line, or the file as one list [ { … }, { … } ]"
        return ""


Reader = Callable[[Path, bool], Iterator[Record]]
"""Reads the rows of a file; with True as they are streamed."""
_UNPACK = {".gz": "gunzip", ".zip": "unzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}
_DECODER = msgspec.json.Decoder()
_NESTED = "has lists or objects too deep inside one another"


def _named_twice(text: bytes, item: Mapping[str, Any]) -> str | None:
    """The field that the text of a row names twice, of which a decoder keeps the last without a word."""
    if all(text.count(b'"%s"' % str(name).encode("utf-8", "replace")) < 2 for name in item):
        return None
    # It may stand in a text or deeper in the row just as well, which only reading it by pairs tells.
    pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    names = Counter(name for name, _ in pairs)
    return next((str(name) for name, count in names.items() if count > 1), None)


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
    """The rows of one file as they are read; with `streamed`, one that can only be read whole is refused.

    Raises:
        DataError: the file is not there, is of another kind, or cannot be decoded; the message says where.
    """
    reader = _reader(path)
    try:
        _refuse_others(path)
        yield from reader(path, streamed)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _reader(path: Path) -> Reader:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the files in it")
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        kinds = ", ".join(SUFFIXES)
        packed = f"; unpack it first ({_UNPACK[suffix]})" if suffix in _UNPACK else ""
        raise DataError(
            f"{path}: data files end in {kinds}, and this one in {path.suffix or 'nothing'}{packed}"
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    return reader


def _json(path: Path, streamed: bool) -> Iterator[Record]:
    """A row an item of the list, or a row a line: whichever the file has."""
    match form_of(path):
        case "list":
            yield from _json_list(path)
        case "lines":
            yield from _json_lines(path)
        case "object":
            yield from _json_object(path, streamed)


def _json_list(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        try:
            for number, item in enumerate(list_items(file), 1):
                yield Record(str(path), number, item)
        except JsonTextError as error:
            raise DataError(f"{path}, row {error.number}: is not valid JSON: {error}") from None


def _json_object(path: Path, streamed: bool) -> Iterator[Record]:
    if streamed:
        raise DataError(
            f"{path}: is one object that holds its rows, which can only be read whole, and data.streaming is true; "
            "write one object a line, or a list of them, or set data.streaming = false"
        )
    try:
        document = _DECODER.decode(path.read_bytes().removeprefix(BOM))
    except RecursionError:
        raise DataError(f"{path}: {_NESTED}") from None
    except msgspec.DecodeError as error:
        several = "trailing characters" in str(error)
        right = "; write [ { … }, { … } ], or one object a line" if several else ""
        raise DataError(f"{path}: is not valid JSON: {error}{right}") from None
    if not isinstance(document, Mapping):
        raise DataError(
            f"{path}: must hold a list of rows, and holds {kind(document)}; write [ {{ … }}, {{ … }} ]"
        )
    rows = rows_within(document)
    if rows is None:
        raise DataError(
            f"{path}: must hold a list of rows, and holds one object with {names(document)}; write "
            "[ { … }, { … } ], or one object a line"
        )
    for number, item in enumerate(rows, 1):
        yield Record(str(path), number, item)


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(BOM) if number == 1 else line
            if content.strip():
                yield Record(str(path), number, content, "line")


def _text(path: Path, streamed: bool) -> Iterator[Record]:
    """A row a line, as the `text` loader of the datasets library has it; blank lines are none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(BOM) if number == 1 else line
            if b"\x00" in content:
                raise DataError(f"{path}, line {number}: has a NUL byte, so it is no text file")
            try:
                # Nothing else that Unicode takes for a line's end.
                text = content.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: is not UTF-8 text ({error.reason}); save the file as UTF-8"
                ) from None
            if content.strip():
                yield Record(str(path), number, {"text": text})


def _csv(path: Path, streamed: bool) -> Iterator[Record]:
    csv.field_size_limit(CSV_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict: else a quote that is never closed takes the rest of the file into one cell.
        table = csv.DictReader(file, strict=True)
        try:
            _check_header(path, table.fieldnames or ())
            for number, fields in enumerate(table, 1):
                if None in fields:
                    raise DataError(
                        f"{path}, row {number}: has more cells than the header has columns"
                    )
                yield Record(str(path), number, fields)
        except csv.Error as error:
            raise DataError(f"{path}, line {table.line_num}: is not valid CSV: {error}") from None


def _check_columns(where: str, columns: Sequence[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        what = f"names the column {twice[0]} twice" if twice[0] else "has columns without a name"
        raise DataError(f"{where}: {what}; give each a name of its own")


def _check_header(path: Path, columns: Sequence[str]) -> None:
    _check_columns(f"{path}, line 1", columns)
    if len(columns) == 1 and (mark := next((m for m in ";\t|" if m in columns[0]), None)):
        raise DataError(
            f"{path}, line 1: the header is one column, {columns[0]!r}: columns are to be separated by commas, not by "
            f"{mark!r}; save it so"
        )


def _parquet(path: Path, streamed: bool) -> Iterator[Record]:
    # pyarrow takes a quarter of a second to import: only who reads parquet pays for it.
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            _check_columns(f"{path}", file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_BATCH):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(str(path), number, fields)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no readable parquet file: {first_line(error)}") from None


_READERS: Mapping[str, Reader] = {
    ".json": _json,
    ".jsonl": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}


def _refuse_others(path: Path) -> None:
    """Refuse what is not what its name says."""
    with path.open("rb") as file:
        start = file.read(32)
    if start[:2] in _UTF16:
        raise DataError(f"{path}: is UTF-16 text; save it as UTF-8")
    told = next((told for mark, told in _OTHERS.items() if start.startswith(mark)), None)
    named = start.startswith(b"PAR1") and path.suffix.lower() == ".parquet"
    if told is not None and not named and not (start[:1] == b"<" and path.suffix.lower() == ".txt"):
        raise DataError(f"{path}: {told}")


def _not_utf8(path: Path) -> DataError:
    """What is said of a file that was decoded in pieces: where in it the first bad byte is."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}, line {number}: is not UTF-8 text ({error.reason}); save the file as UTF-8"
                )
    return DataError(f"{path}: is not UTF-8 text; save the file as UTF-8")


def _no_object(file: str, number: int, item: Any) -> DataError:
    return DataError(
        f"{file}, row {number}: must be an object with named fields, and is {kind(item)}"
    )
