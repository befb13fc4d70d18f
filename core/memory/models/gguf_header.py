"""The header of a .gguf file: its key-values and the names of its tensors, read without any library.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Of an array
only the length is kept: a vocabulary has hundreds of thousands of entries, and nothing here needs them.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_WIDTHS = {kind: struct.calcsize(f"<{code}") for kind, code in _SCALARS.items()}
_MOST = 1 << 20
"""More keys, tensors or dimensions than this are a sign of damage."""

Scalar = str | int | float | bool


class GgufError(Exception):
    """A file is no .gguf file, or a damaged one; the message says which."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a .gguf file says of itself."""

    values: Mapping[str, Scalar]
    lengths: Mapping[str, int]
    """Of its arrays."""
    tensors: Mapping[str, tuple[int, ...]]
    """The shape of each tensor."""


def read_header(file: Path) -> GgufHeader:
    """Read a file's header.

    Raises:
        GgufError: it is no .gguf file, damaged, or cannot be read.
    """
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _Reader(data).header()
    except OSError as error:
        raise GgufError(f"{file} cannot be read: {error.strerror}") from None
    except (struct.error, ValueError, IndexError, KeyError):
        raise GgufError(f"{file} is damaged or no .gguf file") from None


class _Reader:
    """Walks over the header; every fault of the file ends in one of the exceptions that `read_header` catches."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def header(self) -> GgufHeader:
        if self._data[:4] != MAGIC:
            raise ValueError("not GGUF")
        self._at = 4
        version = self._number("I")
        if version not in (2, 3):
            raise ValueError("another version or byte order")
        tensors, keys = self._count(), self._count()
        values: dict[str, Scalar] = {}
        lengths: dict[str, int] = {}
        for _ in range(keys):
            name, kind = self._text(), self._number("I")
            if kind == _ARRAY:
                lengths[name] = self._skip_array()
            else:
                values[name] = self._text() if kind == _STRING else self._scalar(kind)
        shapes: dict[str, tuple[int, ...]] = {}
        for _ in range(tensors):
            name = self._text()
            shapes[name] = tuple(self._number("Q") for _ in range(self._number("I")))
            self._at += 12  # its type and where it begins
        return GgufHeader(values, lengths, shapes)

    def _count(self) -> int:
        count = self._number("Q")
        if count > _MOST:
            raise ValueError("too many")
        return count

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return int(value)

    def _scalar(self, kind: int) -> Scalar:
        (value,) = struct.unpack_from(f"<{_SCALARS[kind]}", self._data, self._at)
        self._at += _WIDTHS[kind]
        return value  # type: ignore[no-any-return]

    def _text(self) -> str:
        size = self._number("Q")
        end = self._at + size
        if end > len(self._data):
            raise ValueError("cut")
        text = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end
        return text

    def _skip_array(self) -> int:
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            data, at, read = self._data, self._at, struct.Struct("<Q").unpack_from
            for _ in range(count):
                at += 8 + read(data, at)[0]
            self._at = at
        elif kind == _ARRAY:
            for _ in range(count):
                self._skip_array()
        else:
            self._at += count * _WIDTHS[kind]
        if self._at > len(self._data):
            raise ValueError("cut")
        return count
