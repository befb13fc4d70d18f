"""What a client and the process that looks at a profile's data say to each other.

The client sends one `PreviewRequest` as a line of JSON. The process answers with a line for each message, in the order
`Began`, `Shown` (the first examples), `Progress`…, `Shown` (rows that a finding names), `Counted`. A `Failed` ends it
at any place. Texts come from the data and may hold anything: who shows them takes control characters out.
"""

from typing import Any, Literal

import msgspec

FIRST_ROWS = 20_000
"""Rows that are tokenised for the statistics where the data has more, unless all are asked for."""

Kind = Literal[
    "nothing learnt",
    "cut",
    "prompt too long",
    "no end token",
    "other end token",
    "template markers",
    "template forced",
    "no template",
    "special tokens in text",
    "empty answer",
    "same as prompt",
    "equal answers",
    "duplicates",
    "in both parts",
    "one-sided tags",
    "unknown tokens",
    "other stage",
]
"""What a finding is about."""


class PreviewRequest(msgspec.Struct, frozen=True):
    """Show a profile's data as its training sees it."""

    profile: dict[str, Any]
    """As Profile.to_document has it; its paths are absolute."""
    examples: int = 3
    """How many of the first rows are shown."""
    row: int | None = None
    """Show the rows with this number in their files instead."""
    most: int | None = FIRST_ROWS
    """Rows that are counted at most; None: all."""
    examine: bool = True
    """Count, and look for mistakes; without, the examples are all."""


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Some text, of one token where it has whole characters; else of the tokens that make up a character."""

    text: str
    ids: tuple[int, ...]
    learnt: bool
    """Whether the loss counts it."""
    special: bool = False
    """Whether it is a token that no text becomes: an end of a turn, a beginning of a sequence."""


class Part(msgspec.Struct, frozen=True):
    """A stretch of an example: all of it, the prompt, an answer, or one of the rows that are packed together."""

    title: str
    """What it is; empty where it is all there is."""
    pieces: tuple[Piece, ...]
    place: str = ""
    """The file and the row, where it is another than the example's."""


class Began(msgspec.Struct, frozen=True, tag="began"):
    """The data has been read and the tokenizer loaded."""

    stage: str
    template: str
    """In words: the tokenizer's own, or a name."""
    rows: int
    eval_rows: int
    cutoff_len: int
    packed: bool
    """Whether rows are joined into sequences of cutoff_len tokens."""


class Shown(msgspec.Struct, frozen=True, tag="example"):
    """A row, or a packed sequence of rows, as the model sees it."""

    place: str
    """The file and the row."""
    parts: tuple[Part, ...]
    size: int
    """Tokens as they count against cutoff_len: the prompt and the longer answer."""
    learnt: int
    """Tokens with loss."""
    lost: int = 0
    """Tokens that cutoff_len takes away."""
    used: bool = True
    """False: the training leaves it out."""
    evaluation: bool = False
    """Whether it is evaluated on, not trained on."""
    why: Kind | None = None
    """The finding that it is shown for; None for one of the first."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far a part of the work is, in rows; `of` is 0 where that is not known."""

    doing: str
    done: int = 0
    of: int = 0


class Finding(msgspec.Struct, frozen=True):
    """A mistake that the data or the settings seem to have."""

    kind: Kind
    severity: Literal["error", "warning"]
    """An error: this cannot be trained on."""
    text: str
    """A sentence: what is so, what comes of it, and what to do."""
    rows: int = 0
    """How many rows are meant; 0: it is not about single rows."""
    places: tuple[str, ...] = ()
    """The first of them."""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """What the rows come to. Rows are those that are trained on."""

    looked: int
    """Rows that were looked at: the first ones."""
    of: int
    """Rows that there are."""
    lengths: dict[int, int]
    """How many rows have how many tokens, before anything is cut off."""
    cut: int = 0
    """Rows that are longer than cutoff_len."""
    left_out: int = 0
    """Rows with nothing to learn within cutoff_len."""
    tokens: int = 0
    """Of the rows that are used, after cutting."""
    learnt: int = 0
    """Those with loss among them."""
    sequences: int | None = None
    """What the rows are packed into; None where they are not."""
    good: int | None = None
    """Rows with a good answer (stage kto)."""
    findings: tuple[Finding, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It cannot be shown, or not trained on."""

    reason: str
    """A sentence for a person."""
    usage: bool = True
    """Whether the user can put it right."""


Told = Began | Shown | Progress | Counted | Failed


def encode(message: PreviewRequest | Told) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> PreviewRequest:
    """Raises msgspec.DecodeError or ValidationError for what is no request."""
    return msgspec.json.decode(line, type=PreviewRequest)


def decode_told(line: bytes) -> Told:
    """Raises msgspec.DecodeError or ValidationError for what is no message."""
    told: Told = msgspec.json.decode(line, type=Told)
    return told
