"""The explanation beside the form, laid out for the room that there is."""

from __future__ import annotations

import textwrap

from rich.style import Style
from textual import events
from textual.strip import Strip

from tui import theme
from tui.ascii_text import ascii_text
from tui.explain import Explanation
from tui.widgets.lines import LineWidget, Piece, clean, line

_ROOMY = 12
"""Lines from which each fact gets a line of its own."""


def compact(explanation: Explanation, width: int) -> list[list[Piece]]:
    """What matters most in few lines: the problem and what works before the prose."""
    works = next((text for label, text in explanation.facts if label == "Works"), "")
    rest = [f"{label}: {text}" for label, text in explanation.facts if label != "Works"]
    laid = [_heading(explanation, width)]
    if explanation.problem:
        laid += _wrapped(explanation.problem, width, theme.style("error"))
    if explanation.note:
        laid += _wrapped(explanation.note, width, theme.style("accent"))
    if works:
        laid += _wrapped(f"Works: {works}", width, theme.style("success"))
    laid += _wrapped(explanation.help, width, theme.style("text"))
    laid += _wrapped("   ".join(rest), width, theme.style("muted"))
    return laid


def roomy(explanation: Explanation, width: int) -> list[list[Piece]]:
    """Everything, with air between."""
    laid = [_heading(explanation, width), []]
    if explanation.problem:
        laid += [*_wrapped(explanation.problem, width, theme.style("error")), []]
    if explanation.note:
        laid += [*_wrapped(explanation.note, width, theme.style("accent")), []]
    laid += [*_wrapped(explanation.help, width, theme.style("text")), []]
    labels = max((len(label) for label, _ in explanation.facts), default=0) + 2
    for label, text in explanation.facts:
        colour = "success" if label == "Works" else "text"
        lines = textwrap.wrap(clean(text), max(8, width - labels)) or [""]
        laid.append([(label.ljust(labels), theme.style("muted")), (lines[0], theme.style(colour))])
        laid += [[(" " * labels + more, theme.style(colour))] for more in lines[1:]]
    return laid


def _heading(explanation: Explanation, width: int) -> list[Piece]:
    heading = [(explanation.title, theme.style("bright", bold=True))]
    if len(explanation.title) + len(explanation.key) + 2 <= width:
        heading.append((f"  {explanation.key}", theme.style("muted")))
    return heading


def _wrapped(text: str, width: int, style: Style) -> list[list[Piece]]:
    return [[(part, style)] for part in textwrap.wrap(clean(text), max(8, width))]


class HelpPane(LineWidget):
    """Shows one explanation; the wheel and `scroll_lines` move it where it does not fit."""

    DEFAULT_CSS = "HelpPane { height: 1fr; width: 1fr; padding: 0 1; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._explanation: Explanation | None = None
        self._laid: list[list[Piece]] = []
        self._laid_for = (0, 0)
        self._top = 0

    def show(self, explanation: Explanation | None) -> None:
        """Show this explanation from now on, from its beginning where it is another parameter's."""
        if explanation == self._explanation:
            return
        before = self._explanation.key if self._explanation else None
        self._explanation = explanation
        if explanation is None or explanation.key != before:
            self._top = 0
        self._laid_for = (0, 0)
        self.sync()

    @property
    def text(self) -> str:
        """The lines as they are laid out, without styles."""
        rows = self._lay_out()
        return "\n".join("".join(self._plain(text) for text, _ in pieces) for pieces in rows)

    def scroll_lines(self, lines: int) -> None:
        """Move on by so many lines."""
        last = max(0, len(self._lay_out()) - self.size.height)
        self._top = min(last, max(0, self._top + lines))
        self.sync()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.scroll_lines(2)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.scroll_lines(-2)

    def _lay_out(self) -> list[list[Piece]]:
        size = (self.size.width, self.size.height)
        if self._laid_for != size:
            self._laid_for = size
            lay = roomy if size[1] >= _ROOMY else compact
            self._laid = lay(self._explanation, size[0]) if self._explanation else []
            self._top = min(self._top, max(0, len(self._laid) - size[1]))
        return self._laid

    def _plain(self, text: str) -> str:
        return ascii_text(text) if self.ascii else text

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        laid = self._lay_out()
        index = self._top + y
        if index >= len(laid):
            return Strip.blank(width, base)
        pieces = [(self._plain(text), base + style) for text, style in laid[index]]
        left = len(laid) - index - 1
        if y < self.size.height - 1 or not left:
            return line(pieces, width, base)
        more = f" {left} more: h"
        body = line(pieces, width - len(more), base)
        note = (more, base + theme.style("muted"))
        return line([*((s.text, s.style or base) for s in body), note], width, base)
