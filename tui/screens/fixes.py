"""The dialog that looks for memory fixes and lets one be picked."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.timer import Timer
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from tui.ascii_text import ascii_text
from tui.fix_view import FixView, fix_lines, sentence
from tui.memory_desk import GivenUpError
from tui.screens.confirm import Dialog
from tui.source import SourceError
from tui.theme import COLOURS
from tui.widgets.lines import Piece
from tui.widgets.text_pane import spelled, wrap

MOST_FIXES = 9
_ROWS_AROUND = 11
"""Lines of the dialog and around it besides the list and the headline."""
_COLUMNS_AROUND = 6
_SCROLLBAR = 2
_LEAST_LIST = 7
"""Lines that a long headline leaves to the list."""
_INDENT = 3
_WIDEST = 100


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to pick from, and what is said above it."""

    headline: str
    fixes: tuple[FixView, ...] = ()


Search = Callable[[Callable[[str], bool]], Found]
"""Looks for fixes; it is given what to tell of its progress with, which answers False when nobody waits any more."""


class FixDialog(Dialog[FixView]):
    """Shows fixes to pick from: 1 to 9 pick at once, Enter the marked one. With `search` it looks for them first.

    The search runs in a thread; Esc gives it up.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move(1)", "Down", show=False),
        Binding("k", "move(-1)", "Up", show=False),
        *(
            Binding(str(number), f"pick({number - 1})", f"Pick {number}", show=False)
            for number in range(1, MOST_FIXES + 1)
        ),
    ]

    def __init__(
        self, title: str, *, search: Search | None = None, found: Found | None = None
    ) -> None:
        super().__init__()
        self._title, self._search, self._found = title, search, found
        self._begun = monotonic()
        self._progress = ""
        self._clock: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -fixes"):
            yield Static(self._plain(self._title), classes="dialog-title", markup=False)
            yield Static("", id="fix-headline", markup=False)
            yield OptionList(id="fix-list", compact=True, markup=False)
            yield Static("", classes="dialog-hint", markup=False)

    def on_mount(self) -> None:
        listed = self.query_one(OptionList)
        listed.display = False
        if self._found is not None:
            self._show(self._found)
        elif self._search is not None:
            search = self._search
            self._hint("Esc gives up")
            self._tick()
            self._clock = self.set_interval(1.0, self._tick)
            self.run_worker(lambda: self._look(search), group="fixes", thread=True)

    # -- the search ---------------------------------------------------------------------------

    def _tick(self) -> None:
        seconds = round(monotonic() - self._begun)
        done = f", {self._progress}" if self._progress else ""
        text = f"Looking for changes that fit, each tried by a dry run: {seconds} s{done}"
        self.query_one("#fix-headline", Static).update(self._plain(text))

    def _look(self, search: Search) -> None:
        """Runs in a thread."""
        worker = get_current_worker()

        def told(text: str) -> bool:
            self._progress = text
            return not worker.is_cancelled

        try:
            found = search(told)
        except GivenUpError:
            return
        except SourceError as error:
            found = Found(sentence(str(error)))
        if not worker.is_cancelled:
            self.app.call_from_thread(self._show, found)

    def _show(self, found: Found) -> None:
        if self._clock is not None:
            self._clock.stop()
        self._found = found
        self.query_one("#fix-headline", Static).update(self._plain(found.headline))
        listed = self.query_one(OptionList)
        listed.display = bool(found.fixes)
        if not found.fixes:
            self._hint("Esc closes this")
            return
        room = self.app.size.height - _ROWS_AROUND
        parts = found.headline.splitlines()
        said = sum(max(1, len(textwrap.wrap(part, self._headline_width))) for part in parts)
        said = min(said, max(1, room - _LEAST_LIST))
        self.query_one("#fix-headline", Static).styles.max_height = said
        options = [self._option(place, fix) for place, fix in enumerate(found.fixes)]
        listed.add_options([Option(text) for text in options])
        listed.styles.height = "auto"
        listed.styles.max_height = max(3, room - said)
        listed.highlighted = 0
        listed.focus()
        numbers = f"1-{len(found.fixes)}" if len(found.fixes) > 1 else "1"
        self._hint(f"{numbers} or Enter takes it, Esc closes this")

    def _option(self, place: int, fix: FixView) -> Text:
        """A fix's lines, wrapped, with its number before the first."""
        option = Text(f"{place + 1:<{_INDENT}}", style=f"bold {COLOURS['primary']}")
        rows = [pieces for line in fix_lines(fix) for pieces in self._wrapped(line)]
        for number, pieces in enumerate(rows):
            option.append("\n" + " " * _INDENT if number else "")
            for text, style in pieces:
                option.append(text, style)
        return option

    def _wrapped(self, line: Text) -> list[list[Piece]]:
        ascii = getattr(self.app, "ascii", False)
        return wrap(spelled(line) if ascii else line, self._width)

    @property
    def _width(self) -> int:
        """Cells of a line of the list."""
        return max(20, self._headline_width - _SCROLLBAR - _INDENT)

    @property
    def _headline_width(self) -> int:
        return max(20, min(_WIDEST, self.app.size.width * 95 // 100) - _COLUMNS_AROUND)

    def _hint(self, text: str) -> None:
        self.query_one(".dialog-hint", Static).update(text)

    def _plain(self, text: str) -> str:
        return ascii_text(text) if getattr(self.app, "ascii", False) else text

    # -- picking ------------------------------------------------------------------------------

    def action_move(self, lines: int) -> None:
        listed = self.query_one(OptionList)
        if self._found is not None and self._found.fixes:
            at = (listed.highlighted or 0) + lines
            listed.highlighted = min(len(self._found.fixes) - 1, max(0, at))

    def action_pick(self, place: int) -> None:
        if self._found is not None and place < len(self._found.fixes):
            self.dismiss(self._found.fixes[place])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_pick(event.option_index)
