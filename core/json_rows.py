"""How the rows of a JSON file stand in it, told by its content: the ending says little, as `.json` is what both a list
of rows and one object a line are often called.

Pure text and files: shared by those who count rows and those who read them.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

BOM = b"\xef\xbb\xbf"
Form = Literal["list", "lines", "object"]
"""One list of rows; a row a line; one object, with the rows in a list within it, or itself the only row."""

_HEAD = 1 << 16
_LINE = 1 << 26
"""Bytes of a first line that are looked at: one that is longer is a whole file in one line."""
_CHUNK = 1 << 18
_SPACE = b" \t\r\n"
_NEAR = 16
"""Characters before the end of a piece within which what seems wrong may be no more than cut off: `\\ud83d\\ude00`."""
_MESSAGE = {"role", "content", "from", "value"}
"""Keys of a message: a list of such objects is a conversation, and not a list of rows."""
_ASKED = {"instruction", "prompt"}
_ANSWERED = {"output", "completion", "response", "chosen"}
"""Keys of which a row has one of each: what lists it may have, as of tools, are its own."""
_GAP = re.compile(r"[ \t\r\n]*")


class JsonTextError(Exception):
    """A list of rows is broken off or no JSON; `number` is the row where, from 1. The message says why."""

    def __init__(self, number: int, wrong: str) -> None:
        super().__init__(wrong)
        self.number = number


def form_of(path: Path) -> Form:
    """How the rows of a .json or .jsonl file stand in it. A .jsonl file that begins with an object has a row a line.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD).removeprefix(BOM).lstrip(_SPACE)
        if head.startswith(b"["):
            return "list"
        if path.suffix.lower() == ".jsonl":
            return "lines"
        file.seek(0)
        return "lines" if _begins_with_lines(file) else "object"


def _begins_with_lines(file: BinaryIO) -> bool:
    """Whether the first line is an object by itself, and another one follows it (or nothing, and it is a row)."""
    first, second = _line(file), _line(file)
    if not second:
        return first == b"" or _is_row(first)
    return second.startswith(b"{") and first.endswith(b"}")


def _line(file: BinaryIO) -> bytes:
    """The next line that is not blank, without white space around it; empty at the end of the file."""
    while line := file.readline(_LINE):
        text = line.removeprefix(BOM).strip(_SPACE)
        if text:
            return text
    return b""


def _is_row(line: bytes) -> bool:
    """Whether the only line of a file is its only row, and not an object that holds them."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(item, dict) and rows_within(item) is None and not _all_objects(item)


def _all_objects(item: Mapping[str, Any]) -> bool:
    """Whether each field is an object: rows by name, as { "0": { … }, "1": { … } }."""
    return bool(item) and all(isinstance(value, Mapping) for value in item.values())


def rows_within(document: Mapping[str, Any]) -> list[Any] | None:
    """The rows in an object that holds them, as { "version": 1, "data": [ … ] } does; None where it does not."""
    if not (_ASKED.isdisjoint(document) or _ANSWERED.isdisjoint(document)):
        return None
    lists = [value for value in document.values() if isinstance(value, list)]
    if len(lists) != 1 or any(_is_talk(item) for item in lists[0][:1]):
        return None
    return lists[0] if all(isinstance(item, Mapping) for item in lists[0]) else None


def _is_talk(item: Any) -> bool:
    return isinstance(item, Mapping) and not _MESSAGE.isdisjoint(item)


def list_items(file: BinaryIO) -> Iterator[bytes]:
    """The items of the list that a file is, each as its text, read piece by piece: no more is held than an item.

    Raises:
        JsonTextError: the file is no list, or one of its items is no JSON.
        UnicodeDecodeError: it is not UTF-8.
        OSError: it cannot be read.
    """
    text = _Text(file)
    text.skip(BOM.decode())
    text.expect("[", "it must begin with [")
    if text.next() == "]":
        text.skip("]")
    else:
        yield text.item()
        while text.next() == ",":
            text.skip(",")
            yield text.item()
        text.expect("]", "a comma, or the ] that ends the list, is missing")
    if text.next():
        raise JsonTextError(text.number, f"something follows the end of the list: {text.shown()}")


class _Text:
    """The text of a file that is read as far as it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False
        # Values are only gone over, and Python refuses to make a whole number of thousands of digits.
        self._decoder = json.JSONDecoder(parse_constant=_no_number, parse_int=float)
        self.number = 0
        """Items that were read."""

    def next(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            found = _GAP.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self, character: str) -> None:
        """Go over the next character, where it is this one."""
        if self.next() == character:
            self._at += 1

    def expect(self, character: str, wrong: str) -> None:
        """Go over the next character, which must be this one."""
        found = self.next()
        if found != character:
            told = f"{wrong}, and {self.shown()} stands there" if found else "it ends in the middle"
            raise JsonTextError(max(1, self.number), told)
        self._at += 1

    def shown(self) -> str:
        """The next few characters."""
        return json.dumps(self._text[self._at : self._at + 20], ensure_ascii=False)

    def item(self) -> bytes:
        """Go over the next value; its text."""
        self.number += 1
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    continue
                raise JsonTextError(self.number, self._told(error)) from None
            except RecursionError:
                wrong = "has lists or objects too deep inside one another"
                raise JsonTextError(self.number, wrong) from None
            closed = isinstance(value, dict | list | str) or end < len(self._text) - _NEAR
            if closed or not self._more():  # A number may go on.
                break
        item = self._text[self._at : end].encode("utf-8", "surrogatepass")
        self._at = end
        return item

    def _told(self, error: json.JSONDecodeError) -> str:
        if self._at >= len(self._text):
            return "it ends in the middle"
        before = self._text[max(self._at, error.pos - 20) : error.pos]
        where = f", behind {json.dumps(before, ensure_ascii=False)}" if before else ""
        return error.msg + where

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether what is wrong may be that not all of it has been read."""
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _NEAR

    def _more(self) -> bool:
        """Read on, so much that long items are not gone over again and again; whether there was any more."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        piece = self._file.read(max(_CHUNK, len(rest)))
        self._ended = not piece
        self._text, self._at = rest + self._utf8.decode(piece, final=self._ended), 0
        return True


def _no_number(name: str) -> NoReturn:
    """JSON has no NaN and no Infinity, which Python would read."""
    raise json.JSONDecodeError(f"{name} is no JSON number", "", 0)
