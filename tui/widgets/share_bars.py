"""Names with a bar each: how much of a whole belongs to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.strip import Strip

from tui import theme
from tui.widgets.gauge import bar
from tui.widgets.lines import LineWidget, Piece, clean, fit, line


@dataclass(frozen=True)
class Share:
    """A name and its share, 0 … 1; None where it is not known."""

    name: str
    share: float | None
    note: str = ""


class ShareBars(LineWidget):
    """A line for each share, the bars below one another; where there are none, a sentence says why."""

    DEFAULT_CSS = "ShareBars { height: 1fr; width: 1fr; min-height: 1; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._shares: tuple[Share, ...] = ()
        self._empty_text = ""
        self._note = ""

    def set_shares(self, shares: Sequence[Share], empty_text: str = "", note: str = "") -> None:
        """Show these shares in this order, a `note` on what they are below; `empty_text` where there are none."""
        self._shares, self._empty_text, self._note = tuple(shares), empty_text, note
        self.sync()

    def build_line(self, y: int, width: int) -> Strip:
        base, height = self.rich_style, self.size.height
        if not self._shares:
            text = self._empty_text if y == height // 2 else ""
            style = base + theme.style("muted")
            return line([(fit(text, width, align="center", ascii=self.ascii), style)], width, base)
        if y >= len(self._shares):
            # Behind a blank line, where there is room for both.
            text = self._note if y == len(self._shares) + 1 else ""
            note = fit(f" {text}", width, ascii=self.ascii)
            return line([(note, base + theme.style("muted"))], width, base)
        hidden = len(self._shares) - height
        if hidden > 0 and y == height - 1:
            text = f" and {hidden + 1} that matter less"
            return line(
                [(fit(text, width, ascii=self.ascii), base + theme.style("muted"))], width, base
            )
        return line(self._pieces(self._shares[y], width), width, base)

    def _pieces(self, item: Share, width: int) -> list[Piece]:
        base = self.rich_style
        names = min(max(cell_len(clean(s.name)) for s in self._shares), max(8, width // 3))
        percent = "      " if item.share is None else f"{item.share:5.0%} "
        room = max(4, min(60, width - names - len(percent) - 3 - (14 if item.note else 0)))
        pieces: list[Piece] = [
            (f" {fit(item.name, names, ascii=self.ascii)} ", base),
            (percent, base),
            (bar(item.share, room, self.ascii), base + theme.style("primary")),
        ]
        if item.note:
            pieces.append((f" {clean(item.note)}", base + theme.style("muted")))
        return pieces
