"""How many rows are how long, as bars with a line at the cut-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.strip import Strip

from core.study.preview import Began, Counted
from tui import theme
from tui.data_view import Line, Role, histogram
from tui.widgets.lines import LineWidget, line

COLOURS: Mapping[Role, str] = {
    "text": "text",
    "learnt": "success",
    "special": "primary",
    "mark": "muted",
    "escape": "warning",
    "border": "line",
    "head": "secondary",
    "note": "muted",
    "bar": "primary",
    "beyond": "warning",
    "warning": "warning",
    "error": "error",
}
"""What the theme has for each role of a text about data."""


class LengthChart(LineWidget):
    """A histogram of rows by their length."""

    DEFAULT_CSS = "LengthChart { height: 1fr; width: 1fr; padding: 0 1; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._told: tuple[Counted, Began] | None = None
        self._drawn: tuple[tuple[int, int], Sequence[Line]] | None = None

    def show(self, counted: Counted | None, began: Began | None) -> None:
        """Show these lengths from now on; None: nothing."""
        self._told = (counted, began) if counted is not None and began is not None else None
        self._drawn = None
        self.sync()

    def build_line(self, y: int, width: int) -> Strip:
        size = (width, self.size.height)
        if self._drawn is None or self._drawn[0] != size:
            self._drawn = (size, self._draw(size))
        base, lines = self.rich_style, self._drawn[1]
        pieces = lines[y] if y < len(lines) else []
        return line([(t, base + theme.style(COLOURS[role])) for t, role in pieces], width, base)

    def _draw(self, size: tuple[int, int]) -> list[Line]:
        width, height = size
        if self._told is None or height < 3:
            return []
        counted, began = self._told
        rows = [(told, "head") for told in ("tokens", "rows")]
        title: Line = [(f"{rows[0][0]}{rows[1][0]:>{max(1, width - len(rows[0][0]))}}", "head")]
        # The cut-off may divide a bar, and has a line of its own.
        most = max(1, height - 3)
        return [title, *histogram(counted, began, width, ascii=self.ascii, most=most)]
