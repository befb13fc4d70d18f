"""How a row of a data file becomes a conversation: alpaca, sharegpt and OpenAI messages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.train.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
Format = Literal["alpaca", "sharegpt", "openai"]

EXPECTED: dict[Format, str] = {
    "alpaca": "instruction and output (input, system and history are optional)",
    "sharegpt": "conversations, a list of { from, value }",
    "openai": "messages, a list of { role, content }",
}
"""The fields of a row in each format, in words."""

_LISTS = ("conversations", "messages", "conversation")
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a data file as it was read, and where it stands: `number` counts rows (lines of JSON Lines) from 1."""

    file: str
    number: int
    fields: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.number}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, at least one of them the assistant's, which is also the last."""

    turns: tuple[Turn, ...]
    place: str
    """The file and the row that it comes from."""


def detect(row: Row) -> Format:
    """The format that a row has.

    Raises:
        DataError: it has none that is known; the message lists the fields it has and the ones that are expected.
    """
    turns = _turn_list(row)
    if turns is not None:
        first = turns[0] if turns else {}
        named = isinstance(first, Mapping) and not first.keys().isdisjoint(("role", "content"))
        return "openai" if named else "sharegpt"
    if "instruction" in row.fields and "output" in row.fields:
        return "alpaca"
    expected = "; ".join(f"{name}: {fields}" for name, fields in EXPECTED.items())
    raise DataError(
        f"{row.place}: no known format has its fields ({_names(row.fields)}). Expected {expected}"
    )


def conversations(rows: Iterable[Row], format: Format) -> list[Conversation]:
    """Read every row in `format`.

    Raises:
        DataError: a row lacks a field or holds something else than text; the message names the row and its fields.
    """
    read = READERS[format]
    return [read(row) for row in rows]


def read_alpaca(row: Row) -> Conversation:
    """instruction + input → output, with an optional system text and history (pairs of question and answer)."""
    missing = [name for name in ("instruction", "output") if name not in row.fields]
    if missing:
        raise _lacks(row, missing, "alpaca")
    turns: list[Turn] = []
    system = _text(row, "system", optional=True)
    if system:
        turns.append(Turn("system", system))
    history = row.fields.get("history") or []
    if not isinstance(history, list):
        raise DataError(
            f"{row.place}: history must be a list of [question, answer], and is {_kind(history)}"
        )
    for number, pair in enumerate(history, 1):
        if not (
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(isinstance(t, str) for t in pair)
        ):
            raise DataError(
                f"{row.place}: item {number} of history is not a pair of texts [question, answer]"
            )
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    given = (_text(row, "instruction", optional=True), _text(row, "input", optional=True))
    prompt = "\n".join(part for part in given if part)
    if not prompt:
        raise DataError(f"{row.place}: instruction and input are both empty")
    turns += [Turn("user", prompt), Turn("assistant", _text(row, "output"))]
    return Conversation(tuple(turns), row.place)


def read_sharegpt(row: Row) -> Conversation:
    """conversations: a list of { from, value }, with an optional system text beside it."""
    return _read_turns(row, "sharegpt", "from", "value")


def read_openai(row: Row) -> Conversation:
    """messages: a list of { role, content }; content is a text or a list of text parts."""
    return _read_turns(row, "openai", "role", "content")


READERS: dict[Format, Callable[[Row], Conversation]] = {
    "alpaca": read_alpaca,
    "sharegpt": read_sharegpt,
    "openai": read_openai,
}


def _read_turns(row: Row, format: Format, role_key: str, text_key: str) -> Conversation:
    items = _turn_list(row)
    if items is None:
        raise _lacks(row, [EXPECTED[format].split(",")[0]], format)
    turns: list[Turn] = []
    system = _text(row, "system", optional=True)
    if system:
        turns.append(Turn("system", system))
    for number, item in enumerate(items, 1):
        where = f"{row.place}, message {number}"
        if not isinstance(item, Mapping):
            raise DataError(f"{where}: is {_kind(item)}, not {{ {role_key}, {text_key} }}")
        missing = [key for key in (role_key, text_key) if key not in item]
        if missing:
            raise DataError(
                f"{where}: {_are_missing(missing)} (it has {_names(item)}); "
                f"{format} rows have {EXPECTED[format]}"
            )
        role = _ROLES.get(str(item[role_key]).lower())
        if role is None:
            known = ", ".join(dict.fromkeys(_ROLES))
            raise DataError(
                f"{where}: {role_key} {item[role_key]!r} is not known; known are {known}"
            )
        turns.append(Turn(role, _content(item[text_key], f"{where}: {text_key}")))
    return Conversation(_up_to_last_answer(turns, row), row.place)


def _up_to_last_answer(turns: list[Turn], row: Row) -> tuple[Turn, ...]:
    """The turns without what follows the last answer: nothing is learnt from a question without one."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if last is None:
        roles = ", ".join(turn.role for turn in turns) or "none"
        raise DataError(
            f"{row.place}: there is no answer to learn: no message of the assistant among them (roles: {roles})"
        )
    return tuple(turns[: last + 1])


def _turn_list(row: Row) -> list[Any] | None:
    for name in _LISTS:
        value = row.fields.get(name)
        if isinstance(value, list):
            return value
    return None


def _content(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = []
        for part in value:
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                raise DataError(f"{where} has a part that is no text; only text can be learnt")
            parts.append(text)
        return "".join(parts)
    raise DataError(f"{where} must be text, and is {_kind(value)}")


def _text(row: Row, name: str, *, optional: bool = False) -> str:
    value = row.fields.get(name)
    if value is None and optional:
        return ""
    if isinstance(value, str):
        return value
    raise DataError(f"{row.place}: {name} must be text, and is {_kind(value)}")


def _lacks(row: Row, missing: list[str], format: Format) -> DataError:
    return DataError(
        f"{row.place}: {_are_missing(missing)} (the row has {_names(row.fields)}); "
        f"{format} rows have {EXPECTED[format]}"
    )


def _are_missing(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in fields) or "no fields"


def _kind(value: Any) -> str:
    if value is None:
        return "empty (null)"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "text",
    }
    return names.get(type(value), type(value).__name__)
