"""The memory that a draft needs as a stacked bar against what each device has, a line a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.style import Style
from textual.strip import Strip

from tui import theme
from tui.ascii_text import ascii_text
from tui.memory_view import MemoryLine, MemoryView, Part, Verdict, gib
from tui.widgets.lines import LineWidget, Piece, fit, line

MOST_LINES = 3
"""Devices shown in a roomy terminal; those that count less are left out."""
_MIN_BAR, _MAX_BAR = 10, 44
_NARROW = 70
_LOOKS: Mapping[Part, tuple[str, str, str]] = {
    "CUDA": ("▂", "c", "#6b7488"),
    "process": ("▂", "p", "#6b7488"),
    "weights": ("▇", "w", "#6cb0f5"),
    "adapters": ("▅", "d", "#c7a0f0"),
    "gradients": ("▆", "g", "#7ecb8f"),
    "optimizer": ("▄", "o", "#55b8ad"),
    "activations": ("▇", "a", "#e8b864"),
    "logits": ("▅", "l", "#e3905a"),
    "workspace": ("▆", "k", "#a3b1c9"),
    "gaps": ("▃", "x", "#6b7488"),
}
"""Of each part: its block (neighbours differ in height, so that they are told apart without colour), its letter in
ASCII, its colour."""
_VERDICTS: Mapping[Verdict, tuple[str, str, str]] = {
    "fits": ("✓", "+", "success"),
    "tight": ("!", "!", "warning"),
    "over": ("✗", "x", "error"),
}


class MemoryBar(LineWidget):
    """One line, the one that counts most; with `roomy` one for each of a few devices and a legend."""

    DEFAULT_CSS = "MemoryBar { height: 1; width: 1fr; padding: 0 1; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._view = MemoryView()
        self._roomy = False

    def show(self, view: MemoryView, *, roomy: bool, proving: bool = False) -> None:
        """Show this forecast from now on; `proving`: a dry run of it is under way."""
        view = replace(view, proving=proving)
        self._view, self._roomy = view, roomy
        height = lines_needed(view, roomy=roomy)
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height
        self.sync()

    @property
    def text(self) -> str:
        """The lines as they are shown."""
        return "\n".join(
            "".join(text for text, _ in self._pieces(y, self.size.width)).rstrip()
            for y in range(self.size.height)
        )

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        pieces = [(text, base + style) for text, style in self._pieces(y, width)]
        return line(pieces, width, base)

    def _pieces(self, y: int, width: int) -> list[Piece]:
        return memory_pieces(self._view, y, width, roomy=self._roomy, ascii=self.ascii)


def lines_needed(view: MemoryView, *, roomy: bool) -> int:
    """How many lines the bar takes."""
    return min(MOST_LINES, len(view.lines)) + 1 if roomy and view.lines else 1


def memory_pieces(view: MemoryView, y: int, width: int, *, roomy: bool, ascii: bool) -> list[Piece]:
    """The line at `y` of the bar, at most `width` cells wide."""
    if not view.lines:
        pieces = _problem(view, width, ascii=ascii) if y == 0 else []
    else:
        shown = view.lines[: MOST_LINES if roomy else 1]
        if y < len(shown):
            pieces = _device(view, shown, y, width, roomy=roomy, ascii=ascii)
        else:
            pieces = legend(view, width, ascii=ascii) if roomy and y == len(shown) else []
    return [(ascii_text(text), style) for text, style in pieces] if ascii else pieces


def _problem(view: MemoryView, width: int, *, ascii: bool) -> list[Piece]:
    label = "memory "
    room = max(0, min(len(view.problem), width - len(label)))
    if not room:
        return []
    problem = fit(view.problem, room, ascii=ascii)
    return [(label, theme.style("muted")), (problem, theme.style("secondary"))]


def _device(
    view: MemoryView,
    lines: Sequence[MemoryLine],
    y: int,
    width: int,
    *,
    roomy: bool,
    ascii: bool,
) -> list[Piece]:
    """A device's line: its name, the bar, the numbers, the verdict. The lines' bars are equally long."""
    labels = max(len(one.label) for one in lines)
    numbers = max(len(one.numbers) for one in lines)
    heads = [[(f"{one.label:<{labels}} ", theme.style("secondary", bold=True))] for one in lines]
    tails = [
        [
            (f"  {one.numbers:>{numbers}}", theme.style("bright", bold=True)),
            *_ruling(one, view, short=width < _NARROW, ascii=ascii),
        ]
        for one in lines
    ]
    room = width - max(_cells([*h, *t]) for h, t in zip(heads, tails, strict=True)) - _MIN_BAR
    names = max(len(one.name) for one in lines)
    found = lines[y]
    head, tail = heads[y], tails[y]
    wanted = [] if roomy else [(tail, (f"  {found.why}", Style(color=_LOOKS[found.dominant][2])))]
    if names:
        wanted.append((head, (f"{found.name:<{names}} ", theme.style("muted"))))
    if not roomy and view.searched:
        wanted.append((tail, (", largest trial", theme.style("muted"))))
    if not roomy:
        wanted.append((tail, (f", {found.when}", theme.style("muted"))))
    for side, piece in wanted:
        if len(piece[0]) <= room:
            side.append(piece)
            room -= len(piece[0])
    drawn = bar_pieces(found, max(0, min(_MAX_BAR, room + _MIN_BAR)), ascii=ascii)
    if view.stale:
        drawn = [(text, theme.style("muted")) for text, _ in drawn]
    return [*head, *drawn, *tail]


def _ruling(found: MemoryLine, view: MemoryView, *, short: bool, ascii: bool) -> list[Piece]:
    if view.stale:
        return [(f"  {view.stale}", theme.style("muted"))]
    sign, plain, colour = _VERDICTS[found.verdict]
    told, source = found.ruling, "proving" if view.proving else found.source
    if short:
        told, source = told.replace(" GiB", ""), source.replace("estimate", "est.")
    busy = ", in use" if found.busy else ""
    return [
        (f"  {plain if ascii else sign} {told}", theme.style(colour, bold=True)),
        (f" ({source}{busy})", theme.style("muted")),
    ]


def bar_pieces(found: MemoryLine, cells: int, *, ascii: bool) -> list[Piece]:
    """The stacked bar in exactly `cells` cells: what is needed, and what is left; a mark where the room ends."""
    if cells <= 0:
        return []
    scale = max(found.room, found.total, 1)
    drawn: list[Piece] = []
    at = size = 0
    for part, part_size in found.segments:
        size += part_size
        end = min(cells, round(size * cells / scale))
        block, letter, colour = _LOOKS[part]
        drawn += [(letter if ascii else block, Style(color=colour))] * (end - at)
        at = max(at, end)
    if not drawn and found.total:
        part = found.segments[-1][0]
        drawn = [(_LOOKS[part][1] if ascii else _LOOKS[part][0], Style(color=_LOOKS[part][2]))]
    drawn += [("." if ascii else "·", theme.style("line"))] * (cells - len(drawn))
    if found.total > found.room:
        mark = min(cells - 1, found.room * cells // scale)
        drawn[mark] = ("|" if ascii else "┃", theme.style("error", bold=True))
    return drawn


def legend(view: MemoryView, width: int, *, ascii: bool) -> list[Piece]:
    """What the line that counts most is made of, the largest parts first to stay, and when it peaks."""
    found = view.lines[0]
    muted = theme.style("muted")
    listed = [(part, size) for part, size in found.segments if size * 200 >= found.total]
    tail: list[Piece] = [
        (f"  {found.when}, most: ", muted),
        (found.why, theme.style("text", bold=True)),
    ]
    head = "largest trial:  " if view.searched else ""
    room = width - _cells(tail) - len(head)
    kept: set[Part] = set()
    for part, size in sorted(listed, key=lambda pair: -pair[1]):
        cells = len(f"x {part} {gib(size)}   ")
        if cells <= room:
            kept.add(part)
            room -= cells
    pieces: list[Piece] = [(head, muted)] if head else []
    for part, size in listed:
        if part in kept:
            block, letter, colour = _LOOKS[part]
            pieces += [
                (f"{letter if ascii else block} ", Style(color=colour)),
                (f"{part} ", muted),
                (f"{gib(size)}   ", theme.style("text")),
            ]
    pieces += tail
    return pieces if _cells(pieces) <= width else [(fit(found.when, width, ascii=ascii), muted)]


def _cells(pieces: Sequence[Piece]) -> int:
    return sum(len(text) for text, _ in pieces)
