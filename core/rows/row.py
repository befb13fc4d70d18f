"""The rows of the data: as a file has them, and as each stage takes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Role = Literal["system", "user", "assistant", "tool"]


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
    """A row of stage sft: turns in order, at least one of them the assistant's, which is also the last."""

    turns: tuple[Turn, ...]
    place: str
    """The file and the row that it comes from."""
    tools: str = ""
    """The functions that the assistant may call, a JSON list; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Text:
    """A row of stage pt."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A row of stages rm and dpo: a prompt, which ends with a user's or a tool's turn, and two answers to it."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str
    place: str
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A row of stage kto: a prompt, which ends as that of `Compared`, and an answer found good or bad."""

    turns: tuple[Turn, ...]
    answer: str
    good: bool
    place: str
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A row of stage ppo: a prompt, which ends as that of `Compared`."""

    turns: tuple[Turn, ...]
    place: str
    tools: str = ""


AnyRow: TypeAlias = Conversation | Text | Compared | Judged | Question
"""A row of the data as a stage takes it."""
