"""The lines at the edges of a screen: tabs on top, keys or a message at the bottom, and headings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer

from tui import keymap, theme
from tui.actions import Context
from tui.widgets.lines import LineWidget, Piece, fit, line, shorten

Severity = Literal["information", "warning", "error"]
MESSAGE_SECONDS = 8.0
TABS: tuple[tuple[str, str, str], ...] = (
    ("1", "studies", "Studies"),
    ("2", "configure", "Configure"),
    ("3", "trials", "Trials"),
    ("4", "gpus", "GPUs"),
    ("5", "results", "Results"),
)


class Pieces(LineWidget):
    """One or more lines of styled text, each cut to the width with a mark that it goes on."""

    DEFAULT_CSS = "Pieces { height: 1; width: 1fr; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._lines: list[list[Piece]] = []

    def show(self, *lines: Sequence[Piece]) -> None:
        """Show these lines from now on."""
        self._lines = [list(pieces) for pieces in lines]
        self.sync()

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if y >= len(self._lines):
            return Strip.blank(width, base)
        pieces = shorten(self._lines[y], width, ascii=self.ascii)
        return line([(t, base + s) for t, s in pieces], width, base)


class TabsLine(LineWidget):
    """The screens by their digits, the present one lit, and the open study on the right."""

    DEFAULT_CSS = "TabsLine { height: 1; width: 1fr; background: $panel; }"

    def __init__(self, here: str, *, ascii: bool = False) -> None:
        super().__init__(ascii=ascii)
        self._here = here
        self._study = ""

    def set_study(self, name: str) -> None:
        """The name of the open study."""
        self._study = name
        self.sync()

    class Clicked(Message):
        """A tab was clicked."""

        def __init__(self, screen_name: str) -> None:
            super().__init__()
            self.screen_name = screen_name

    def _tabs(self) -> list[tuple[int, str, str]]:
        """Where each tab starts, its screen and its text."""
        at, placed = (12 if self.size.width >= 72 else 0), []
        for digit, name, title in TABS:
            text = f" {digit} {title} "
            placed.append((at, name, text))
            at += len(text)
        return placed

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        tabs = self._tabs()
        pieces: list[Piece] = []
        if tabs[0][0]:
            pieces.append((fit(" tunedeck", tabs[0][0]), base + theme.style("bright", bold=True)))
        for _, name, text in tabs:
            if name == self._here:
                style = Style(color=theme.BACKGROUND, bgcolor=theme.COLOURS["primary"], bold=True)
                if self.app.no_color:
                    style = Style(reverse=True, bold=True)
                pieces.append((text, base + style))
            else:
                pieces.append((text, base + theme.style("secondary")))
        used = tabs[-1][0] + len(tabs[-1][2])
        room = width - used - 1
        if self._study and room >= 6:
            name = fit(self._study, min(room, cell_len(self._study)), ascii=self.ascii)
            blank = " " * (width - used - cell_len(name) - 1)
            pieces += [(blank, base), (name, base + theme.style("text")), (" ", base)]
        return line(pieces, width, base)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for at, name, text in self._tabs():
            if at <= offset.x < at + len(text):
                self.post_message(self.Clicked(name))


class FooterLine(LineWidget):
    """The most useful keys; for some seconds a message takes their place."""

    DEFAULT_CSS = "FooterLine { height: 1; width: 1fr; background: $panel; }"

    def __init__(self, contexts: Sequence[Context], *, ascii: bool = False) -> None:
        super().__init__(ascii=ascii)
        self._contexts = tuple(contexts)
        self._message: tuple[str, Severity] | None = None
        self._timer: Timer | None = None

    class Clicked(Message):
        """A hint was clicked."""

        def __init__(self, call: str) -> None:
            super().__init__()
            self.call = call

    def say(self, text: str, severity: Severity = "information") -> None:
        """Show a message; the next one replaces it, an empty one takes it away."""
        if not text:
            self.clear()
            return
        self._message = (text, severity)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(MESSAGE_SECONDS, self.clear)
        self.sync()

    def clear(self) -> None:
        """Show the keys again."""
        if self._timer is not None:
            self._timer.stop()
        self._timer, self._message = None, None
        self.sync()

    @property
    def message(self) -> str:
        """The message that is shown, or ""."""
        return self._message[0] if self._message else ""

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if self._message is not None:
            text, severity = self._message
            colour = {"information": "text", "warning": "warning", "error": "error"}[severity]
            sign = {"information": "", "warning": "! ", "error": "! "}[severity]
            words = fit(f" {sign}{text}", width, ascii=self.ascii)
            return line([(words, base + theme.style(colour))], width, base)
        pieces: list[Piece] = [(" ", base)]
        for hint in keymap.hints(self._contexts, width - 1, ascii=self.ascii):
            pieces.append((hint.key, base + theme.style("primary", bold=True)))
            pieces.append((f" {hint.word}  ", base + theme.style("secondary")))
        return line(pieces, width, base)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or self._message is not None:
            return
        at = 1
        for hint in keymap.hints(self._contexts, self.size.width - 1, ascii=self.ascii):
            if at <= offset.x < at + hint.width - 2:
                self.post_message(self.Clicked(hint.call))
            at += hint.width


class Heading(LineWidget):
    """A rule with a title in it and, behind it, the names of panes of which one is shown."""

    DEFAULT_CSS = "Heading { height: 1; width: 1fr; }"

    def __init__(self, title: str = "", *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._title = title
        self._panes: tuple[str, ...] = ()
        self._shown = ""

    class Clicked(Message):
        """The name of a pane was clicked."""

        def __init__(self, heading: Heading, pane: str) -> None:
            super().__init__()
            self.heading = heading
            self.pane = pane

        @property
        def control(self) -> Heading:
            return self.heading

    def show(self, title: str, panes: Sequence[str] = (), shown: str = "") -> None:
        """Title, the panes' names, and which one is shown."""
        self._title, self._panes, self._shown = title, tuple(panes), shown
        self.sync()

    def _parts(self, width: int) -> tuple[str, int]:
        """The title as it is cut, and where the panes' names start."""
        names = sum(len(name) + 2 for name in self._panes)
        room = max(0, width - names - 5)
        title = fit(self._title, min(room, cell_len(self._title)), ascii=self.ascii)
        return title, max(0, width - names - 2) if self._panes else width

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        rule = "-" if self.ascii else "─"
        ruled, lit = base + theme.style("line"), base + theme.style("text", bold=True)
        title, start = self._parts(width)
        pieces: list[Piece] = [(rule, ruled)]
        if title:
            pieces += [(f" {title} ", lit)]
        used = 1 + (cell_len(title) + 2 if title else 0)
        pieces.append((rule * (start - used), ruled))
        for name in self._panes:
            if name == self._shown:
                style = base + theme.style("primary", bold=True) + Style(underline=True)
                pieces += [(" ", base), (name, style), (" ", base)]
            else:
                pieces.append((f" {name} ", base + theme.style("muted")))
        pieces.append((rule * 2, ruled))
        return line(pieces, width, ruled)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        at = self._parts(self.size.width)[1]
        for name in self._panes:
            if at <= offset.x < at + len(name) + 2:
                self.post_message(self.Clicked(self, name))
            at += len(name) + 2
