"""A learning-rate range test while it runs and when it is over: its curve, what it says, one key to take it over.

The test is an ordinary study in an engine of its own: leaving this screen changes nothing about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.strip import Strip
from textual.timer import Timer

from core.engine.messages import Request
from core.search.lr_range import RangeReading
from tui import theme, words
from tui.actions import Context
from tui.keymap import bindings
from tui.paths import shell_path, short_path
from tui.range_picture import Role
from tui.range_test import TRIAL, RangeView, progress_text, view_picture
from tui.screens.base import DeckScreen
from tui.source import RangeWatch, SourceError
from tui.widgets.bars import Pieces
from tui.widgets.lines import LineWidget, line
from tui.widgets.text_pane import TextPane

LOOK_EVERY = 0.5
"""Seconds between two looks at a test that runs."""

COLOURS: Mapping[Role, str] = {
    "axis": "muted",
    "raw": "muted",
    "smooth": "primary",
    "steepest": "accent",
    "diverged": "error",
    "range": "success",
    "text": "secondary",
}


class RangeChart(LineWidget):
    """The curve of a range test."""

    DEFAULT_CSS = "RangeChart { height: 1fr; width: 1fr; min-height: 6; padding: 0 1; }"

    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__(ascii=ascii, id="range-chart")
        self._view: RangeView | None = None
        self._drawn: tuple[tuple[int, int], list[Strip]] | None = None

    def show(self, view: RangeView) -> None:
        """Show this test from now on."""
        if self._view is None or view != self._view:
            self._view, self._drawn = view, None
            self.sync()

    def build_line(self, y: int, width: int) -> Strip:
        size = (width, self.size.height)
        if self._drawn is None or self._drawn[0] != size:
            self._drawn = (size, self._draw(size))
        lines = self._drawn[1]
        return lines[y] if y < len(lines) else Strip.blank(width, self.rich_style)

    def _draw(self, size: tuple[int, int]) -> list[Strip]:
        base = self.rich_style
        if self._view is None:
            return []
        cells = view_picture(self._view, size, ascii=self.ascii)
        return [
            line([(t, base + theme.style(COLOURS[role])) for t, role in row], size[0], base)
            for row in cells
        ]


class RangeScreen(DeckScreen):
    """Follows one range test. `take` gets the reading that a person takes over."""

    TITLE_NAME = "configure"
    CSS_PATH = "../styles/lr_range.tcss"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("range",)
    BINDINGS: ClassVar[list[BindingType]] = bindings("range")

    def __init__(
        self,
        folder: Path,
        *,
        take: Callable[[RangeReading], None],
        again: Callable[[], None],
    ) -> None:
        """`again` asks for another test."""
        super().__init__()
        self.folder = folder
        self._take, self._again = take, again
        self._watch: RangeWatch | None = None
        self._timer: Timer | None = None
        self._looking = False
        self.shown: RangeView | None = None
        """The test as it was read last."""

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="range-status")
        yield RangeChart(ascii=self.ascii)
        yield TextPane(ascii=self.ascii, id="range-text")

    def on_mount(self) -> None:
        self._timer = self.set_interval(LOOK_EVERY, self.look_soon)
        self._say_state("Reading the test.")
        self.look_soon()

    def look_soon(self) -> None:
        """Read the test, unless a reading is under way or there is nothing more to read."""
        if not self._looking and self.is_attached:
            self._looking = True
            self.run_worker(self._look(), group="range", exit_on_error=True)

    async def _look(self) -> None:
        try:
            view = await asyncio.to_thread(self._read)
        except SourceError as error:
            self._say_state(str(error), "error")
            self._rest()
            return
        finally:
            self._looking = False
        if self.ready:
            self.show_test(view)

    def _read(self) -> RangeView:
        """Runs in a thread."""
        if self._watch is None:
            self._watch = self.deck.source.range_test(self.folder)
        return self._watch.look()

    def show_test(self, view: RangeView) -> None:
        """Show the test as it is now."""
        before, self.shown = self.shown, view
        look = words.LOOKS[view.status]
        sign = look.text(ascii=self.ascii)
        pieces = [(f" {sign} ", theme.style(look.colour, bold=True))]
        said = progress_text(view).removeprefix(look.word).removeprefix(": ")
        pieces.append((f" {said}" if said else f" {short_path(view.folder)}", theme.style("text")))
        self.query_one("#range-status", Pieces).show(pieces)
        self.query_one(RangeChart).show(view)
        self.query_one(TextPane).set_lines(lines(view))
        if view.ended:
            self._rest()
            if before is not None and not before.ended:
                self.say(
                    "The test is over: Enter takes its range over."
                    if view.useful
                    else "The test is over; it suggests no range."
                )

    def _say_state(self, text: str, colour: str = "secondary") -> None:
        self.query_one("#range-status", Pieces).show([(f" {text}", theme.style(colour))])

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.stop()

    def help_contexts(self) -> tuple[Context, ...]:
        return ("range", "app")

    def escape(self) -> None:
        """Esc: back to the form; a test that runs goes on."""
        running = self.shown is not None and not self.shown.ended
        self.dismiss()
        if running:
            self.deck.notify("The test goes on: l shows it again.")

    # -- keys ---------------------------------------------------------------------------------

    def action_take_over(self) -> None:
        """Search the suggested range in the form."""
        view = self.shown
        if view is None or view.reading is None or not view.useful:
            over = view is not None and view.ended
            self.say(
                "No range is suggested: n makes another test." if over else "The test still runs.",
                "warning",
            )
            return
        reading = view.reading
        self.dismiss()
        self._take(reading)

    def action_new_test(self) -> None:
        """Ask for another test; this one stays what it is."""
        self.dismiss()
        self._again()

    def action_show_study(self) -> None:
        """The test's study on the Trials screen."""
        self.deck.open_study(self.folder)

    def action_stop_test(self) -> None:
        """Stop the test; what it has logged stays."""
        if self.shown is None or self.shown.ended:
            self.say("The test is over already.", "warning")
            return
        self.run_worker(self._stop(), group="stop", exclusive=True)

    async def _stop(self) -> None:
        try:
            reply = await asyncio.to_thread(
                self.deck.source.send, self.folder, Request("stop", TRIAL)
            )
        except SourceError as error:
            self.deck.fail(str(error))
            return
        self.say(reply.text[:1].upper() + reply.text[1:], "information" if reply.ok else "error")
        self.look_soon()

    def action_copy_command(self) -> None:
        """Copy the command that shows the test."""
        self.deck.copy(f"tunedeck attach {shell_path(self.folder)}")


def lines(view: RangeView) -> list[Text]:
    """What a test says so far, and what can be done."""
    found: list[Text] = []
    reading = view.reading
    if view.failed:
        found.append(Text("The test was not run to its end.", style=theme.COLOURS["error"]))
        if view.reason:
            found.append(Text(view.reason))
        found.append(_key("o", "shows its study, with the log"))
        found.append(_key("n", "makes another test"))
        return found
    if reading is not None and (view.ended or reading.useful):
        found += [Text(text) for text in reading.text.splitlines()]
    elif not view.ended:
        found.append(
            _muted(
                "The rate rises with every update, until the loss is lost or the last rate is reached."
            )
        )
    if view.useful:
        found.append(
            _key("Enter", "searches this range in the form, in place of what is searched there")
        )
    elif view.ended:
        found.append(_key("n", "makes another test, at other rates or with more updates"))
    if view.ended:
        found.append(_muted("A first look: a short run bears rates that a long training does not."))
    return found


def _key(key: str, said: str) -> Text:
    text = Text("  ")
    text.append(key, style=f"bold {theme.COLOURS['primary']}")
    return text.append(f"  {said}", style=theme.COLOURS["text"])


def _muted(said: str) -> Text:
    return Text(said, style=theme.COLOURS["muted"])
