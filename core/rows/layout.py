"""How the rows of a data set are laid out: which format, and what its columns and roles are called.

A layout is decided once for a data set, by its entry in dataset_info.json, by `data.format` and, where those leave it
open, by the first row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.dataset_info import Columns, DataSet, Tags
from core.errors import DataError
from core.rows.row import Role, Row
from core.rows.words import kind, names

Format = Literal["alpaca", "sharegpt", "openai", "text"]

EXPECTED: Mapping[Format, str] = {
    "alpaca": "instruction and output (input, system and history are optional)",
    "sharegpt": "conversations, a list of { from, value }",
    "openai": "messages, a list of { role, content }",
    "text": "text",
}
"""The fields of a row in each format, in words. Pairs have chosen and rejected besides, tags kto_tag."""

LISTS = ("conversations", "messages", "conversation")
_ROLES: Mapping[str, Role] = {
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
_TAGGED: Mapping[str, Role] = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "assistant",
    "system_tag": "system",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a row are. A column that is None is not there."""

    format: Format
    columns: Columns
    role_key: str
    text_key: str
    roles: Mapping[str, Role]
    """The speakers, in lower case."""
    named: bool = False
    """Whether an entry of dataset_info.json names the columns."""

    @property
    def expected(self) -> str:
        """What a row has, in words, with the names that its data set uses."""
        whose = ", by the columns of its entry in dataset_info.json" if self.named else ""
        return f"{self._fields}{whose}"

    @property
    def _fields(self) -> str:
        c = self.columns
        if self.format == "text":
            return f"rows of text have {c.prompt}"
        if self.format == "alpaca":
            usual = (c.prompt, c.response) == ("instruction", "output")
            told = EXPECTED["alpaca"] if usual else f"{c.prompt} and {c.response}"
            return f"alpaca rows have {told}"
        return f"{self.format} rows have {c.messages}, a list of {{ {self.role_key}, {self.text_key} }}"


def layout_of(row: Row, dataset: DataSet, format: str = "auto") -> Layout:
    """The layout of the data set that begins with `row`; `format` is what `data.format` says.

    Raises:
        DataError: the first row has no known layout; the message lists its fields and the ones that are expected.
    """
    given = dataset.formatting if dataset.formatting != "auto" else format
    named = dataset.columns
    if given == "auto" and named != Columns():
        given = "sharegpt" if named.messages is not None else "alpaca"
    decided: Format = detect(row) if given == "auto" else given  # type: ignore[assignment]
    columns = _columns(decided, named, row)
    usual = ("from", "value") if decided == "sharegpt" else ("role", "content")
    tags = dataset.tags
    return Layout(
        decided,
        columns,
        tags.role_tag or usual[0],
        tags.content_tag or usual[1],
        _roles(tags),
        named != Columns(),
    )


def detect(row: Row) -> Format:
    """The format that a row has.

    Raises:
        DataError: it has none that is known; the message lists the fields it has and the ones that are expected.
    """
    fields = row.fields
    turns = _messages(row)
    if turns is not None:
        first = turns[0] if turns else {}
        told = isinstance(first, Mapping) and not first.keys().isdisjoint(("role", "content"))
        return "openai" if told else "sharegpt"
    if "instruction" in fields and not fields.keys().isdisjoint(("output", "chosen")):
        return "alpaca"
    if "text" in fields:
        return "text"
    if "instruction" in fields or ("prompt" in fields and isinstance(fields["prompt"], str)):
        return "alpaca"
    raise _unknown(row)


def _unknown(row: Row) -> DataError:
    expected = "; ".join(f"{name}: {fields}" for name, fields in EXPECTED.items())
    wrong = f"{row.place}: no known format has its fields ({names(row.fields)})"
    if {"chosen", "rejected"} <= row.fields.keys():
        return DataError(
            f"{wrong}: chosen and rejected are there, and what they answer is not. Add prompt (or instruction), "
            "or make both of them lists of messages that begin with it"
        )
    listed = next((name for name in LISTS if name in row.fields), None)
    if listed is not None:
        return DataError(
            f"{row.place}: {listed} must be a list of messages, and is {kind(row.fields[listed])}"
            + "; a .csv file cannot hold one: write a .jsonl file" * row.file.endswith(".csv")
        )
    header = "The first line of a .csv file names its columns. " * row.file.endswith(".csv")
    return DataError(
        f"{wrong}. {header}Expected {expected}. Or name the columns in dataset_info.json"
    )


def _messages(row: Row) -> list[Any] | None:
    """The list of messages that a row has: of a conversation, or of a prompt or of answers in TRL's form."""
    others = () if "instruction" in row.fields else ("prompt", "chosen")
    for name in (*LISTS, *others):
        value = row.fields.get(name)
        if isinstance(value, list):
            return value
    return None


def _columns(format: Format, named: Columns, row: Row) -> Columns:
    """The columns with the usual names where `named` has none.

    A data set that names any columns has only those, but for the defaults that LLaMA-Factory leaves as well.
    """
    fields = row.fields
    if format == "text":
        return replace(named, prompt=named.prompt or named.response or "text")
    own = named != Columns()
    tag = "label" if {"completion", "label"} <= fields.keys() else "kto_tag"
    both: dict[str, str | None] = {
        "system": named.system or (None if own else "system"),
        "tools": named.tools or (None if own else "tools"),
        "history": named.history or (None if own else "history"),
        "chosen": named.chosen or "chosen",
        "rejected": named.rejected or "rejected",
        "kto_tag": named.kto_tag or tag,
    }
    if format != "alpaca":
        present = next((n for n in (*LISTS, "prompt") if isinstance(fields.get(n), list)), None)
        usual = "conversations" if format == "sharegpt" else "messages"
        return replace(
            named,
            messages=named.messages or present or usual,
            response=named.response or "completion",
            **both,
        )
    prompt = named.prompt
    response: str | None = named.response
    if prompt is None and _is_trl(fields):
        prompt = "prompt"
        response = response or next((n for n in ("completion", "response") if n in fields), None)
    return replace(
        named,
        prompt=prompt or "instruction",
        query=named.query or ("input" if named.prompt is None else None),
        response=response or "output",
        **both,
    )


def _is_trl(fields: Mapping[str, Any]) -> bool:
    """Whether a row is TRL's: a prompt under that name, with an answer, a tag, or alone."""
    if "prompt" not in fields or "instruction" in fields:
        return False
    alone = fields.keys() <= {"prompt", "system", "tools"}
    return alone or not fields.keys().isdisjoint(_TRL)


_TRL = ("completion", "response", "chosen", "rejected", "label")


def _roles(tags: Tags) -> Mapping[str, Role]:
    own = {
        str(getattr(tags, tag)).lower(): role for tag, role in _TAGGED.items() if getattr(tags, tag)
    }
    return {**_ROLES, **own}
