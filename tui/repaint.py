"""An app that sends only the cells that look different from what the terminal shows already.

Textual 8.2 repaints generously: a part of a line from its widget's left edge on, a whole widget
for one changed word, the whole screen three times at start and once whenever the terminal loses
or gains focus (a change of tmux panes). `LeanApp` remembers each line that it has sent and
compares, as curses does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Protocol, TypeVar, runtime_checkable

from rich.console import Console, RenderableType
from rich.control import Control
from rich.style import Style
from textual.app import App
from textual.driver import Driver
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip

from tui.widgets.lines import changed_span, merge

Result = TypeVar("Result")


class Update(Protocol):
    """What Textual hands over to be written. Its kinds are named here by their shape, for they
    are private to Textual: should a later version change them, that version's own way is used.
    """

    render_segments: Callable[[Console], str]


@runtime_checkable
class WholeUpdate(Update, Protocol):
    """All lines of the screen (Textual's `LayoutUpdate`)."""

    strips: Sequence[Iterable[Strip | None]]
    region: Region


@runtime_checkable
class PartialUpdate(Update, Protocol):
    """Parts of lines (Textual's `ChopsUpdate`)."""

    chops: Sequence[Mapping[int, Strip | None]]
    """By line of the screen: strips by the column at which they start."""
    chop_ends: Sequence[Sequence[int]]
    """By line: the columns before which those strips end."""
    spans: Sequence[tuple[int, int, int]]
    """Line, first column and end column of each part."""


class SentLines:
    """The lines that the terminal shows, as far as they are known."""

    def __init__(self) -> None:
        self._lines: list[Strip] = []

    def forget(self) -> None:
        """Take nothing for known: the next update of the whole screen is sent in full."""
        self._lines = []

    def whole(self, update: WholeUpdate, console: Console) -> str:
        """What to write so that the terminal shows `update`, a screen's worth of lines."""
        lines = [_joined(line) for line in update.strips]
        known = self._lines
        if len(known) != len(lines) or update.region.offset != (0, 0):
            known = []
        self._lines = lines if update.region.offset == (0, 0) else []
        written = []
        for y, new in enumerate(lines):
            span = changed_span(known[y], new) if known else (0, new.cell_length)
            if span is not None:
                written.append(_at(update.region.x + span[0], update.region.y + y))
                written.append(new.crop(*span).render(console))
        return "".join(written)

    def parts(self, update: PartialUpdate, console: Console) -> str:
        """What to write so that the terminal shows the spans of `update`."""
        written = []
        for y, x1, x2 in update.spans:
            for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                start, stop = max(x, x1), min(end, x2)
                if strip is None or start >= stop:
                    continue
                part = _joined([strip.crop(start - x, stop - x)])
                if (span := self._replace(y, start, part)) is not None:
                    written.append(_at(start + span[0], y))
                    written.append(part.crop(*span).render(console))
        return "".join(written)

    def _replace(self, y: int, start: int, part: Strip) -> tuple[int, int] | None:
        """Put `part` into line `y` at column `start`; which cells of it are to be sent."""
        stop = start + part.cell_length
        if y >= len(self._lines) or self._lines[y].cell_length < stop:
            return 0, part.cell_length
        line = self._lines[y]
        span = changed_span(_joined([line.crop(start, stop)]), part)
        if span is not None:
            rest = line.crop(stop, line.cell_length)
            self._lines[y] = _joined([line.crop(0, start), part, rest])
        return span


def _joined(strips: Iterable[Strip | None]) -> Strip:
    """One strip, its neighbours of equal style merged, so that lines can be compared."""
    return Strip(
        merge(
            (segment.text, segment.style or Style.null())
            for strip in strips
            if strip is not None
            for segment in strip
            if not segment.control
        )
    )


def _at(x: int, y: int) -> str:
    return Control.move_to(x, y).segment.text


class LeanApp(App[Result]):
    """The base of an app for slow links; looks and behaves like any other."""

    def __init__(
        self,
        driver_class: type[Driver] | None = None,
        css_path: str | PurePath | list[str | PurePath] | None = None,
        watch_css: bool = False,
        ansi_color: bool | None = None,
    ) -> None:
        self._sent = SentLines()
        if ansi_color is None and "NO_COLOR" in os.environ:
            # Textual would send shades of grey, which are colours all the same.
            ansi_color = True
        super().__init__(driver_class, css_path, watch_css, ansi_color)

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, WholeUpdate):
            renderable.render_segments = partial(self._sent.whole, renderable)
        elif isinstance(renderable, PartialUpdate):
            renderable.render_segments = partial(self._sent.parts, renderable)
        super()._display(screen, renderable)

    def redraw(self) -> None:
        """Send the whole screen again, whatever the terminal shows."""
        self._sent.forget()
        self.screen.refresh()

    def on_mount(self) -> None:
        """After Ctrl+Z and `fg` the terminal shows something else."""
        self.app_resume_signal.subscribe(self, lambda _: self.redraw())

    def on_resize(self) -> None:
        """Terminals move or cut their lines when their size changes."""
        self._sent.forget()
