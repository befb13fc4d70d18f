"""Lines of styled text, and a widget base that sends only the lines that changed.

A slow SSH link is the reason for this file: Textual repaints a whole widget on `refresh()`.
`LineWidget` builds each visible line, compares it with the line that the terminal already
shows, and asks for a repaint of the changed part alone. (By itself Textual sends such a line
from its left edge up to the end of that part; `tui.repaint` makes it send just the part.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[str, Style]
"""A run of text in one style."""

_CONTROL = dict.fromkeys((*range(32), *range(127, 160), 8232, 8233), "?")
_CONTROL |= dict.fromkeys(map(ord, "\t\n\r\v\f"), " ")
# Bidirectional overrides reorder what follows them on the line, which a log or a dataset may hold.
_CONTROL |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "?")


def clean(text: str) -> str:
    """`text` without the control characters that could move the cursor or recolour the screen."""
    return text if text.isascii() and text.isprintable() else text.translate(_CONTROL)


def fit(text: str, width: int, *, align: str = "left", ascii: bool = False) -> str:
    """`text` in exactly `width` cells: padded on the side opposite to `align`, or cut with `…`.

    `align` is "left", "right" or "center". `ascii` cuts with `~` instead.
    """
    if width <= 0:
        return ""
    text = clean(text)
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + ("~" if ascii else "…")
    spare = width - length
    if align == "right":
        return " " * spare + text
    if align == "center":
        return " " * (spare // 2) + text + " " * (spare - spare // 2)
    return text + " " * spare


def merge(pieces: Iterable[Piece]) -> list[Segment]:
    """Join neighbours of equal style: every change of style costs 20 to 40 bytes on the wire."""
    segments: list[Segment] = []
    text, style = "", Style.null()
    for piece, piece_style in pieces:
        if not piece:
            continue
        if text and piece_style == style:
            text += piece
            continue
        if text:
            segments.append(Segment(text, style))
        text, style = piece, piece_style
    if text:
        segments.append(Segment(text, style))
    return segments


def line(pieces: Iterable[Piece], width: int, fill: Style) -> Strip:
    """A strip of exactly `width` cells made of `pieces`, cut or filled with blanks in `fill`."""
    return Strip(merge(pieces)).adjust_cell_length(width, fill)


def shorten(pieces: Sequence[Piece], width: int, *, ascii: bool = False) -> list[Piece]:
    """The pieces in at most `width` cells; where something is cut off, the last cell says so."""
    if cell_len("".join(text for text, _ in pieces).rstrip()) <= width:
        return list(pieces)
    kept: list[Piece] = []
    for text, style in pieces:
        cells = cell_len(text)
        if cells >= width:
            kept.append((fit(text + " ", width, ascii=ascii), style))
            break
        kept.append((text, style))
        width -= cells
    return kept


def changed_span(old: Strip, new: Strip) -> tuple[int, int] | None:
    """The cells, from start to before end, to repaint on a terminal that shows `old` for `new`.

    None if they look the same. Strips of different lengths count as changed altogether.
    """
    width = new.cell_length
    if old.cell_length != width:
        return 0, max(old.cell_length, width)
    if old == new:
        return None
    if _combines(old) or _combines(new):
        return 0, width
    before, after = list(old), list(new)
    start = _common(before, after)
    end = width - _common(before[::-1], after[::-1], backwards=True)
    # Both ends may claim the same cells where the styles of equal texts are split differently.
    return (start, end) if start < end else (0, width)


def _common(before: list[Segment], after: list[Segment], *, backwards: bool = False) -> int:
    """How many cells two lines have in common at their start (their end, if `backwards`)."""
    cells = 0
    for one, other in zip(before, after, strict=False):
        if one == other:
            cells += one.cell_length
            continue
        if one.style == other.style and _one_cell_each(one.text) and _one_cell_each(other.text):
            step = -1 if backwards else 1
            for a, b in zip(one.text[::step], other.text[::step], strict=False):
                if a != b:
                    break
                cells += 1
        break
    return cells


def _combines(strip: Strip) -> bool:
    """Whether characters without a cell of their own change a cell that lies before them."""
    return any(
        not segment.text.isascii() and any(cell_len(character) == 0 for character in segment.text)
        for segment in strip
    )


def _one_cell_each(text: str) -> bool:
    """Whether each character is a cell, so that no wide one is cut through."""
    return text.isascii() or all(cell_len(character) == 1 for character in text)


class LineWidget(Widget):
    """A widget drawn line by line, which repaints only what differs from what is shown.

    A subclass implements `build_line(y, width)` as a function of its present state and calls
    `sync()` after each change of that state.
    """

    # Dragging the mouse to select text repaints whole widgets; terminals select with Shift held.
    ALLOW_SELECT = False

    def __init__(
        self,
        *,
        ascii: bool = False,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.ascii = ascii
        self._painted: dict[int, Strip] = {}
        self._painted_size = Size(0, 0)

    def build_line(self, y: int, width: int) -> Strip:
        """The line at `y` (0 is the top of the content), `width` cells wide."""
        raise NotImplementedError

    def part_style(self, name: str) -> Style:
        """The style of a component class, with the widget's background under it."""
        return self.get_component_rich_style(name)

    def render_line(self, y: int) -> Strip:
        """Called by the compositor for each line to paint."""
        size = self.size
        if size != self._painted_size:
            self._painted.clear()
            self._painted_size = size
        strip = self._painted[y] = self.build_line(y, size.width)
        return strip

    def sync(self) -> None:
        """Ask for a repaint of those parts of lines that no longer look as they are shown."""
        if not self.is_attached or not self._painted or self.size != self._painted_size:
            # Nothing is on the screen yet, or a resize is about to paint everything anyway.
            self.refresh()
            return
        width, height = self.size
        regions = []
        for y in range(height):
            shown = self._painted.get(y)
            span = (0, width) if shown is None else changed_span(shown, self.build_line(y, width))
            if span is not None:
                regions.append(Region(span[0], y, span[1] - span[0], 1))
        if regions:
            self.refresh(*regions)
