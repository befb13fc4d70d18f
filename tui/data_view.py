"""A profile's data in lines of text: examples with what is learnt marked, lengths, findings. Pure.

Each line is a list of runs, a text with the role of its characters: the dashboard and a terminal colour the roles, a
pipe gets the text alone. Nothing of the data that could move a cursor gets through: it is spelled out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

from core.study.preview import Began, Counted, Finding, Part, Piece, Shown
from tui.words import share

Role = Literal[
    "text", "learnt", "special", "mark", "escape", "border", "head", "note",
    "bar", "beyond", "warning", "error",
]  # fmt: skip
"""`mark`: white space made visible, brackets; `escape`: what is spelled out; `beyond`: longer than the cut-off."""
Run = tuple[str, Role]
Line = list[Run]

MOST_BINS = 8
_ENDS = 200
"""Tokens at each end of a part that is shown in part."""


@dataclass(frozen=True, slots=True)
class Style:
    """How examples are written."""

    ascii: bool = False
    brackets: bool = True
    """Learnt tokens stand in brackets, for who sees no colours."""
    tokens: bool = False
    """Each token apart."""
    ids: bool = False
    """Each token apart, with its number."""
    most: int | None = 1000
    """Tokens of a part that are shown; of a longer one its two ends. None: all."""

    @property
    def apart(self) -> bool:
        return self.tokens or self.ids


# -- characters -------------------------------------------------------------------------------

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Kinds of characters that show nothing, or do something to a terminal: control, format (text that runs from right to
left among them), halves of pairs, private, unassigned, separators."""


def spelled(character: str, *, ascii: bool) -> str:
    """A character as it may be printed: as it is, or as an escape like \\x1b where it would be invisible or worse."""
    code = ord(character)
    if 32 <= code < 127:
        return character
    shown = not ascii and unicodedata.category(character) not in _HIDDEN
    if shown and not (character.isspace() or character in "\u115f\u1160\u3164\uffa0"):
        return character
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def spelled_out(text: str, *, ascii: bool = False) -> str:
    """Text from the data, or that quotes it, in one line and with nothing in it that a terminal obeys."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(spelled(character, ascii=ascii) for character in text)


# -- examples ---------------------------------------------------------------------------------


def marked(stage: str) -> str:
    """What it means that a token is marked: a reward model learns no tokens, but to score what they say."""
    return "scored" if stage == "rm" else "with loss"


def example_head(
    shown: Shown, number: int | None = None, *, stage: str = "sft", ascii: bool = False
) -> str:
    """An example in a line: where it stands, how long it is."""
    name = f"Example {number}: " if number is not None else ""
    told = [f"{name}{short_place(shown.place, ascii=ascii)}"]
    if shown.why is not None:
        told.append(f"shown for: {shown.why}")
    told.append(_many(shown.size, "token"))
    if shown.learnt:
        told.append(f"{shown.learnt:,} {marked(stage)}")
    if shown.lost:
        told.append(f"{shown.lost:,} cut off")
    if shown.evaluation:
        told.append("to evaluate on")
    if not shown.used:
        told.append("LEFT OUT of the training")
    return ", ".join(told)


def example_lines(shown: Shown, style: Style) -> list[Line]:
    """An example's parts, each under its title."""
    lines: list[Line] = []
    for part in shown.parts:
        if part.title:
            place = f" ({short_place(part.place, ascii=style.ascii)})" if part.place else ""
            dash = "--" if style.ascii else "──"
            lines.append([(f"{dash} {spelled_out(part.title)}{place}", "head")])
        lines += _part_lines(part, style)
    return lines


def _part_lines(part: Part, style: Style) -> list[Line]:
    pieces = part.pieces
    if not pieces:
        return [[("(no tokens)", "note")]]
    if style.most is None or len(pieces) <= style.most:
        return _lines(pieces, style)
    ends = min(_ENDS, style.most // 2)
    between = len(pieces) - 2 * ends
    told = f"{'...' if style.ascii else '⋯'} {_many(between, 'token')} between are not shown"
    return [*_lines(pieces[:ends], style), [(told, "note")], *_lines(pieces[-ends:], style)]


class _Writer:
    """Puts runs together to lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = [[]]

    def add(self, text: str, role: Role) -> None:
        line = self.lines[-1]
        if not text:
            return
        if line and line[-1][1] == role:
            line[-1] = (line[-1][0] + text, role)
        else:
            line.append((text, role))

    def end_line(self) -> None:
        self.lines.append([])


def _lines(pieces: Sequence[Piece], style: Style) -> list[Line]:
    out = _Writer()
    opening, closing = ("[[", "]]") if style.ascii else ("⟦", "⟧")
    border = "|" if style.ascii else "│"
    # At a special token a line of the text ends as well: a space before it is not seen either.
    text = "".join("\n" * len(p.text) if p.special else p.text for p in pieces)
    at, learnt = 0, False
    for number, piece in enumerate(pieces):
        if piece.learnt != learnt:
            if style.brackets:
                out.add(opening if piece.learnt else closing, "mark")
            learnt = piece.learnt
        elif style.apart and number:
            out.add(border, "border")
        _write(out, piece, text, at, style)
        at += len(piece.text)
    if learnt and style.brackets:
        out.add(closing, "mark")
    return out.lines if out.lines[-1] else out.lines[:-1]


def _write(out: _Writer, piece: Piece, text: str, at: int, style: Style) -> None:
    """A piece that stands at `at` of the whole `text`."""
    role: Role = "learnt" if piece.learnt else "special" if piece.special else "text"
    for offset, character in enumerate(piece.text):
        ends = offset + 1 == len(piece.text)
        if character == "\n":
            out.add("\\n" if style.ascii else "↵", "mark")
            if ends and style.ids:
                out.add(_number(piece, style), "note")
            out.end_line()
        elif character == "\t":
            out.add("\\t" if style.ascii else "⇥", "mark")
        elif character == " ":
            if style.apart or _counts(text, at + offset):
                out.add("\\s" if style.ascii else "·", "mark")
            else:
                out.add(" ", role)
        else:
            told = spelled(character, ascii=style.ascii)
            out.add(told, role if told == character else "escape")
    if style.ids and not piece.text.endswith("\n"):
        out.add(_number(piece, style), "note")


def _number(piece: Piece, style: Style) -> str:
    ids = "+".join(map(str, piece.ids))
    return f"<{ids}>" if style.ascii else f"⟨{ids}⟩"


def _counts(text: str, at: int) -> bool:
    """Whether a space is one that a reader would not see: at an end of a line, or next to another."""
    before = text[at - 1] if at else "\n"
    after = text[at + 1] if at + 1 < len(text) else "\n"
    return before in " \n" or after in " \n"


# -- lengths ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of more than `low` and at most `high` tokens."""

    low: int
    high: int
    rows: int
    beyond: bool
    """Whether they are longer than the cut-off."""

    @property
    def label(self) -> str:
        return f"{self.low + 1}-{self.high}" if self.high > self.low + 1 else str(self.high)


def bins(lengths: Mapping[int, int], cutoff: int | None, most: int = MOST_BINS) -> list[Bin]:
    """At most `most` bins (one more where the cut-off divides one), of equal width, or, where few rows are far longer
    than the rest, each twice as wide as the one before."""
    if not lengths:
        return []
    longest = max(lengths)
    uneven = longest > 8 * percentile(lengths, 0.5)
    edges = _doubling(longest, most) if uneven else _equal(min(lengths), longest, most)
    if cutoff is not None and edges[0] < cutoff < longest:
        edges = sorted({*edges, cutoff})
    made = []
    for low, high in pairwise(edges):
        rows = sum(n for size, n in lengths.items() if low < size <= high)
        made.append(Bin(low, high, rows, cutoff is not None and low >= cutoff))
    return made


def _equal(shortest: int, longest: int, most: int) -> list[int]:
    step = 1
    while True:
        first = max(0, (shortest - 1) // step * step)
        count = max(1, -(-(longest - first) // step))
        if count <= most:
            return [first + step * i for i in range(count + 1)]
        step *= 2


def _doubling(longest: int, most: int) -> list[int]:
    edges = [1]
    while edges[-1] < longest:
        edges.append(edges[-1] * 2)
    return [0, *edges[-most:]]


def percentile(lengths: Mapping[int, int], part: float) -> int:
    """The length that `part` of the rows do not exceed."""
    wanted = part * sum(lengths.values())
    seen = 0
    for size in sorted(lengths):
        seen += lengths[size]
        if seen >= wanted:
            return size
    return max(lengths, default=0)


def histogram(counted: Counted, began: Began, width: int, *, ascii: bool, most: int) -> list[Line]:
    """Bars of how many rows are how long, `width` cells wide, with a line at the cut-off."""
    cutoff = None if began.stage == "pt" else began.cutoff_len
    made = bins(counted.lengths, cutoff, most)
    if not made:
        return []
    labels = max(len(b.label) for b in made)
    numbers = max(len(f"{b.rows:,}") for b in made)
    room = max(1, width - labels - numbers - 2)
    highest = max(b.rows for b in made) or 1
    lines: list[Line] = []
    for one in made:
        if one.beyond and not (lines and any(role == "beyond" for _, role in lines[-1])):
            lines.append(_cut_line(began.cutoff_len, width, ascii=ascii))
        filled = -(-one.rows * room // highest)
        role: Role = "beyond" if one.beyond else "bar"
        sign = ("%" if one.beyond else "#") if ascii else ("▓" if one.beyond else "█")
        lines.append(
            [
                (f"{one.label:>{labels}} ", "note"),
                (sign * filled + " " * (room - filled), role),
                (f" {one.rows:>{numbers},}", "text"),
            ]
        )
    return lines


def _cut_line(cutoff: int, width: int, *, ascii: bool) -> Line:
    told = f" cutoff_len {cutoff} "
    dash = "-" if ascii else "─"
    return [((dash * 2 + told).ljust(width, dash)[:width], "beyond")]


def length_text(counted: Counted, began: Began) -> str:
    """The lengths in a sentence."""
    lengths = counted.lengths
    if not lengths:
        return "there are no rows"
    told = (
        f"median {percentile(lengths, 0.5):,}, 95 % up to {percentile(lengths, 0.95):,}, longest "
        f"{max(lengths):,} tokens"
    )
    if began.stage == "pt":
        return told
    cut = f"{counted.cut:,} ({share(counted.cut, counted.looked)})" if counted.cut else "none"
    are = "is" if counted.cut <= 1 else "are"
    verb = "too long for" if began.stage == "ppo" else "cut at"
    return f"{told}; {cut} {are} {verb} cutoff_len = {began.cutoff_len}"


def amount_text(counted: Counted, began: Began) -> str:
    """How much there is to learn."""
    told = [f"{counted.tokens:,} tokens"]
    if began.stage != "ppo":
        told[0] += (
            f", {counted.learnt:,} {marked(began.stage)} ({share(counted.learnt, counted.tokens)})"
        )
    if counted.sequences:
        full = share(counted.tokens, counted.sequences * began.cutoff_len)
        told.append(f"packed into {_many(counted.sequences, 'sequence')}, {full} full")
    if counted.good is not None:
        told.append(f"{counted.good:,} good and {counted.looked - counted.good:,} bad answers")
    if counted.left_out:
        told.append(f"{_many(counted.left_out, 'row')} left out")
    return "; ".join(told)


def rows_text(counted: Counted) -> str:
    """Which rows were looked at."""
    if counted.looked < counted.of:
        return f"of the first {counted.looked:,} of {counted.of:,} rows"
    return f"of all {_many(counted.of, 'row')}" if counted.of != 1 else "of the one row"


def began_text(began: Began) -> str:
    """What is shown: stage, template and rows."""
    evaluation = f", {began.eval_rows:,} to evaluate on" if began.eval_rows else ""
    packed = ", packed" if began.packed else ""
    return f"stage {began.stage}, template {began.template}: {_many(began.rows, 'row')} to train on{packed}{evaluation}"


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"


# -- findings ---------------------------------------------------------------------------------


def finding_text(finding: Finding, *, ascii: bool = False) -> str:
    """A finding in a sentence, with the first rows that it means."""
    text = finding.text[:1].upper() + finding.text[1:]
    if not finding.places:
        return spelled_out(f"{text}.", ascii=ascii)
    more = ", ..." if finding.rows > len(finding.places) else ""
    return spelled_out(f"{text}. First: {join_places(finding.places)}{more}", ascii=ascii)


def join_places(places: Iterable[str]) -> str:
    """Rows of files, a file named once: `a.jsonl, rows 3, 5; b.jsonl, row 1`."""
    by_file: dict[str, list[str]] = {}
    for place in places:
        name, _, row = short_place(place).rpartition(", row ")
        by_file.setdefault(name, []).append(row)
    return "; ".join(
        f"{name}, row{'s' * (len(rows) > 1)} {', '.join(rows)}" if name else ", ".join(rows)
        for name, rows in by_file.items()
    )


def short_place(place: str, *, ascii: bool = False) -> str:
    """A file's name and a row, without the folders."""
    file, comma, row = place.rpartition(", row ")
    return spelled_out(f"{PurePath(file).name}{comma}{row}" if comma else place, ascii=ascii)
