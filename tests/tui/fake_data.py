"""A look at data that no process reads: what it tells is what a test says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from core.study.preview import (
    Began,
    Counted,
    Finding,
    Part,
    Piece,
    PreviewRequest,
    Progress,
    Shown,
    Told,
)
from tests.tui.rest import PATIENCE, Gate
from tui.source import SourceError

BEGAN = Began("sft", "the tokenizer's own", 1234, 65, 512, packed=False)


def pieces(*texts: str, learnt: bool = False, special: bool = False) -> tuple[Piece, ...]:
    """A piece for each text, numbered by their lengths."""
    return tuple(Piece(text, (100 + len(text),), learnt, special) for text in texts)


def chat(question: str, answer: str, row: int, **more: object) -> Shown:
    """A row with a question and an answer, as chatml has it."""
    parts = (
        *pieces("<|im_start|>", special=True),
        *pieces("user", "\n", *_words(question)),
        *pieces("<|im_end|>", special=True),
        *pieces("\n"),
        *pieces("<|im_start|>", special=True),
        *pieces("assistant", "\n"),
        *pieces(*_words(answer), learnt=True),
        *pieces("<|im_end|>", learnt=True, special=True),
        *pieces("\n"),
    )
    shown = {"size": len(parts), "learnt": len(_words(answer)) + 1, **more}
    return Shown(f"/data/night/questions.jsonl, row {row}", (Part("", parts),), **shown)  # type: ignore[arg-type]


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]


PAIR = Shown(
    "/data/night/pairs.jsonl, row 7",
    (
        Part("prompt", pieces("How", " are", " you", "?")),
        Part("chosen", pieces("Well", ",", " thanks", ".", learnt=True)),
        Part("rejected", pieces("Go", " away", learnt=True)),
    ),
    8,
    6,
)
EXAMPLES = (
    chat("What is a hole?", "An opening in something.", 1),
    chat("Say it twice, please.", "It  is\tsaid twice. ", 2),
    chat("Recolour my screen.", "\x1b[31mred\x1b[0m \u202eevil", 3),
)
FINDINGS = (
    Finding(
        "cut",
        "warning",
        "in 57 of 1,234 rows the end is cut off at cutoff_len = 512, and the token that ends the answer with it: raise "
        "data.cutoff_len (the longest row has 803 tokens), or shorten them",
        57,
        ("/data/night/questions.jsonl, row 12", "/data/night/questions.jsonl, row 40"),
    ),
    Finding(
        "empty answer", "warning", "in 2 of 1,234 rows an answer is empty", 2, ("a.jsonl, row 9",)
    ),
)
LENGTHS = {64: 130, 120: 300, 190: 410, 250: 190, 330: 90, 400: 57, 560: 40, 803: 17}
COUNTED = Counted(
    looked=1234,
    of=1234,
    lengths=LENGTHS,
    cut=57,
    left_out=2,
    tokens=251_000,
    learnt=99_000,
    findings=FINDINGS,
)
ALL: tuple[Told, ...] = (
    Progress("the rows are read"),
    BEGAN,
    *EXAMPLES,
    Progress("the rows are examined", 512, 1234),
    chat("And?", "", 9, why="empty answer", used=False, learnt=0),
    COUNTED,
)


@dataclass
class FakePreview:
    """Tells `told`; with a `gate`, it waits before the last message until the gate is set or it is closed."""

    told: Sequence[Told] = ALL
    gate: Gate | None = None
    error: str = ""
    asked: list[PreviewRequest] = field(default_factory=list)
    closed: int = 0

    def __enter__(self) -> "FakePreview":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __iter__(self) -> Iterator[Told]:
        yield from self.told[:-1]
        if self.error:
            raise SourceError(self.error)
        if self.gate is not None:
            self.gate.wait(PATIENCE)
            if self.closed:
                return
        yield self.told[-1]

    def close(self) -> None:
        self.closed += 1
        if self.gate is not None:
            self.gate.set()
