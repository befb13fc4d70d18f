"""What an answer is compared with: the data's own answers, or a file of references."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.rows import AnyRow, Compared, Conversation, Judged, Question, Turn
from core.train.errors import DataError

_KEYS = ("reference", "output", "answer", "response", "text")
"""Names under which a line of a JSON file may hold its reference."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a model and what a good answer is."""

    question: Question
    reference: str | None
    """None where nobody knows."""


def asked(rows: Sequence[AnyRow]) -> list[Asked]:
    """The question of each row, with the row's own answer: of a pair the chosen one, of a judged one that is good.

    Raises:
        DataError: rows are texts, which ask nothing.
    """
    return [_asked(row) for row in rows]


def with_references(rows: Sequence[Asked], file: Path) -> list[Asked]:
    """The same with the references of a file: a line each of text, or of JSON (a text, or an object with one), or one
    JSON list of them.

    Raises:
        DataError: it cannot be read, or has another number of lines than there are rows.
    """
    found = read_references(file)
    if len(found) != len(rows):
        raise DataError(f"{file} has {len(found)} references, and there are {len(rows)} rows")
    return [Asked(row.question, text) for row, text in zip(rows, found, strict=True)]


def read_references(file: Path) -> list[str]:
    """The references of a file, in order.

    Raises:
        DataError: it is not there, is no UTF-8 text, or a line holds none.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the references {file} cannot be read: {error}") from None
    if file.suffix.lower() not in (".json", ".jsonl"):
        # Not splitlines: a text may hold other characters that some take for the end of a line.
        return text.removesuffix("\n").split("\n") if text else []
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} is no JSON: {error}") from None
        return [_reference(value, f"{file} entry {n}") for n, value in enumerate(listed, 1)]
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_reference(_json(line, f"{file} line {n}"), f"{file} line {n}") for n, line in lines]


def _asked(row: AnyRow) -> Asked:
    match row:
        case Conversation():
            question = Question(row.turns[:-1], row.place, row.tools)
            return Asked(question, row.turns[-1].text)
        case Compared():
            return Asked(Question(row.turns, row.place, row.tools), row.chosen)
        case Judged():
            good = row.answer if row.good else None
            return Asked(Question(row.turns, row.place, row.tools), good)
        case Question():
            return Asked(row, None)
    raise DataError(f"{row.place}: a plain text asks nothing; leave --generate out")


def _json(line: str, place: str) -> object:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is no JSON: {error}") from None
    return value


def _reference(value: object, place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for key in _KEYS:
            if isinstance(value.get(key), str):
                return str(value[key])
        # A conversation: its last answer.
        turns = value.get("messages") or value.get("conversations")
        if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
            last = turns[-1].get("content", turns[-1].get("value"))
            if isinstance(last, str):
                return last
    raise DataError(f"{place} holds no reference: a text, or an object with {', '.join(_KEYS)}")


def said(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Turns as they are written out."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]
