"""One-line widgets: a bar for a share of something, and a history of a percentage."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import ClassVar

from rich.cells import cell_len
from textual.strip import Strip

from tui.widgets.braille import sparkline
from tui.widgets.lines import LineWidget, Piece, clean, fit, line

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_UNKNOWN = "n/a"


def bar(fraction: float | None, width: int, ascii: bool = False) -> str:
    """A bar of exactly `width` cells, filled to `fraction` of it; outside 0 … 1 it clamps.

    None and NaN, which a device that does not report a value gives, show "n/a". Whatever is not
    zero shows at least a sliver, whatever is not full never looks full.
    """
    if width <= 0:
        return ""
    if fraction is None or math.isnan(fraction):
        return fit(_UNKNOWN, width, align="center", ascii=ascii) if width >= 3 else "?" * width
    fraction = min(1.0, max(0.0, fraction))
    parts = 1 if ascii else 8
    filled = round(fraction * width * parts)
    if 0 < fraction < 1:
        filled = min(width * parts - 1, max(1, filled)) if width * parts > 1 else 1
    full, rest = divmod(filled, parts)
    if ascii:
        return "#" * full + "-" * (width - full)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def marked_bar(fraction: float, mark: float, width: int, ascii: bool = False) -> tuple[str, int]:
    """A bar filled to `fraction` with a line across it at `mark`, and the cell of that line; both clamp to 0 … 1."""
    text = bar(fraction, width, ascii)
    at = min(max(0, width - 1), max(0, round(mark * width) - 1))
    return text[:at] + ("|" if ascii else "│") + text[at + 1 :], at


class Gauge(LineWidget):
    """A label, a bar and a text on one line, repainted only when they look different.

    From `high` on, a share of 0 … 1, the bar takes the colour of a warning.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"gauge--label", "gauge--bar", "gauge--bar-high"}
    DEFAULT_CSS = """
    Gauge { height: 1; width: 1fr; }
    Gauge > .gauge--label { color: $text-muted; }
    Gauge > .gauge--bar { color: $primary; background: $foreground 12%; }
    Gauge > .gauge--bar-high { color: $warning; background: $foreground 12%; }
    """

    def __init__(
        self,
        label: str = "",
        fraction: float | None = None,
        text: str = "",
        *,
        high: float = 0.9,
        label_width: int | None = None,
        ascii: bool = False,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(ascii=ascii, name=name, id=id, classes=classes)
        self._label = label
        self._fraction = fraction
        self._text = text
        self._high = high
        self._label_width = label_width

    def update(
        self,
        *,
        fraction: float | None,
        text: str | None = None,
        label: str | None = None,
    ) -> None:
        """Show another share of 0 … 1 (None: not known); text and label stay unless given."""
        self._fraction = fraction
        self._text = self._text if text is None else text
        self._label = self._label if label is None else label
        self.sync()

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if y > 0:
            return Strip.blank(width, base)
        label, text, room = _shares(self._label, self._text, self._label_width, width)
        high = self._fraction is not None and self._fraction >= self._high
        kind = "gauge--bar-high" if high else "gauge--bar"
        pieces: list[Piece] = [
            (fit(label, cell_len(label), ascii=self.ascii), self.part_style("gauge--label")),
            (bar(self._fraction, room, self.ascii), self.part_style(kind)),
            (text, base),
        ]
        return line(pieces, width, base)


class HistoryLine(LineWidget):
    """The last values of a percentage as one row of blocks, with the present value at the end.

    `per_column` samples share a cell, so that the row moves on only once in so many samples:
    a row that moves at every sample would be sent anew each time.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"history-line--label", "history-line--blocks"}
    DEFAULT_CSS = """
    HistoryLine { height: 1; width: 1fr; }
    HistoryLine > .history-line--label { color: $text-muted; }
    HistoryLine > .history-line--blocks { color: $primary; }
    """
    _KEPT_COLUMNS = 400

    def __init__(
        self,
        label: str = "",
        *,
        per_column: int = 5,
        top: float = 100.0,
        unit: str = "%",
        label_width: int | None = None,
        ascii: bool = False,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(ascii=ascii, name=name, id=id, classes=classes)
        self._label = label
        self._unit = unit
        self._top = top
        self._label_width = label_width
        self._per_column = max(1, per_column)
        self._columns: list[float | None] = []
        self._samples_in_last = 0
        self._last: float | None = None
        self._text: str | None = None

    def push(self, value: float | None, text: str | None = None) -> None:
        """Add the newest sample (None: not measured); `text` replaces the number at the end."""
        self._add(value)
        self._text = text
        self.sync()

    def set_values(self, values: Iterable[float | None]) -> None:
        """Replace the whole history, oldest first."""
        self._columns.clear()
        self._samples_in_last, self._last, self._text = 0, None, None
        for value in values:
            self._add(value)
        self.sync()

    def _add(self, value: float | None) -> None:
        if self._samples_in_last in (0, self._per_column) or not self._columns:
            self._columns.append(value)
            self._samples_in_last = 0
        elif value is not None:
            before = self._columns[-1]
            self._columns[-1] = value if before is None or value > before else before
        self._samples_in_last += 1
        self._last = value
        if len(self._columns) > self._KEPT_COLUMNS:
            del self._columns[: len(self._columns) - self._KEPT_COLUMNS]

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if y > 0:
            return Strip.blank(width, base)
        text = self._text if self._text is not None else _number(self._last, self._unit)
        text = fit(text, max(5, cell_len(text)), align="right")
        label, text, room = _shares(self._label, text, self._label_width, width)
        shown = list(islice(self._columns, max(0, len(self._columns) - room), None))
        blocks = sparkline(shown, room, self.ascii, low=0.0, high=self._top)
        pieces: list[Piece] = [
            (label, self.part_style("history-line--label")),
            (blocks, self.part_style("history-line--blocks")),
            (text, base),
        ]
        return line(pieces, width, base)


def _number(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    return f"{value:.0f}{unit}"


def _shares(label: str, text: str, label_width: int | None, width: int) -> tuple[str, str, int]:
    """Label and text as they are shown, each with its gap, and the cells left between them.

    On a narrow line the label goes first, then the bar: the number is what one looks for.
    """
    label, text = clean(label), clean(text)
    label = fit(label, label_width) if label_width is not None else label
    label = label + " " if label else ""
    text = " " + text if text.strip() else ""
    room = width - cell_len(label) - cell_len(text)
    if room < 4:
        label, room = "", width - cell_len(text)
    return label, text, max(0, room)
