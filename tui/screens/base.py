"""What all screens share: tabs above, keys below, a filter line, and a word when there is no room."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Input, Static

from tui.actions import Context
from tui.widgets.bars import FooterLine, Severity, TabsLine

if TYPE_CHECKING:
    from tui.app import TunedeckApp
    from tui.snapshot import StudyView

SMALLEST = (60, 15)
"""Columns and rows below which nothing can be shown."""
WIDE = (110, 24)
"""From here on there is room for two things side by side."""


class DeckScreen(Screen[None]):
    """A screen of the dashboard. `show_view` gets the open study each time that it has changed."""

    TITLE_NAME: ClassVar[str] = ""
    """Its name among the tabs."""
    CONTEXTS: ClassVar[tuple[Context, ...]] = ()
    """Which actions work here."""
    FILTERS: ClassVar[str] = ""
    """What the filter line suggests; a screen without one has no filter."""
    ESCAPE_TO_MINIMIZE = False
    _mounted = False

    def on_mount(self) -> None:
        # Textual calls this besides a subclass's own.
        self._mounted = True

    @property
    def ready(self) -> bool:
        """Whether its widgets are there: not before it is mounted, nor while the dashboard closes, when a reading that
        was under way may still come."""
        return self._mounted and self.app.is_running

    @property
    def deck(self) -> TunedeckApp:
        """The app, as what it is."""
        return cast("TunedeckApp", self.app)

    @property
    def ascii(self) -> bool:
        """Whether nothing but ASCII may be shown."""
        return self.deck.ascii

    def compose(self) -> ComposeResult:
        yield TabsLine(self.TITLE_NAME, ascii=self.ascii)
        yield from self.body()
        if self.FILTERS:
            yield Input(placeholder=f"filter: {self.FILTERS}", id="filter", compact=True)
        yield FooterLine(self.CONTEXTS, ascii=self.ascii)
        yield Static("", id="too-small")

    def body(self) -> ComposeResult:
        """Everything between the tabs and the footer."""
        raise NotImplementedError

    def show_view(self, view: StudyView | None) -> None:
        """Show the open study, None where none is open."""

    def help_contexts(self) -> tuple[Context, ...]:
        """The contexts whose keys work now."""
        return (*self.CONTEXTS, "app")

    # -- size ---------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        small = width < SMALLEST[0] or height < SMALLEST[1]
        self.set_class(small, "-too-small")
        self.set_class(width >= WIDE[0] and height >= WIDE[1], "-wide")
        self.set_class(not small and (width < 80 or height < 20), "-narrow")
        if small:
            words = f"{width}×{height} is too small: {SMALLEST[0]}×{SMALLEST[1]} or more is needed"
            words = words.replace("×", "x") if self.ascii else words
            self.query_one("#too-small", Static).update(words)
        self.sized()

    def sized(self) -> None:
        """The terminal has another size."""

    @property
    def wide(self) -> bool:
        return self.has_class("-wide")

    @property
    def narrow(self) -> bool:
        return self.has_class("-narrow")

    def on_screen_resume(self) -> None:
        self.update_view(self.deck.view)

    def update_view(self, view: StudyView | None) -> None:
        """Show the open study, its name among the tabs included."""
        self.query_one(TabsLine).set_study(view.reading.name if view else "")
        self.show_view(view)

    # -- messages -----------------------------------------------------------------------------

    def say(self, text: str, severity: Severity = "information") -> None:
        """Show a message in the footer's place."""
        self.query_one(FooterLine).say(text, severity)

    @property
    def message(self) -> str:
        """The message that is shown."""
        return self.query_one(FooterLine).message

    async def on_footer_line_clicked(self, event: FooterLine.Clicked) -> None:
        await self.run_action(event.call)

    def on_tabs_line_clicked(self, event: TabsLine.Clicked) -> None:
        self.deck.action_go(event.screen_name)

    # -- filter -------------------------------------------------------------------------------

    def action_filter(self) -> None:
        line = self.query_one("#filter", Input)
        line.add_class("-open")
        line.focus()

    @property
    def query_text(self) -> str:
        """What is filtered for."""
        return self.query_one("#filter", Input).value.strip() if self.FILTERS else ""

    def close_filter(self, *, clear: bool) -> bool:
        """Leave the filter line; True if there was something to leave."""
        if not self.FILTERS:
            return False
        line = self.query_one("#filter", Input)
        changed = line.has_class("-open") or bool(line.value)
        if clear:
            line.value = ""
        line.set_class(bool(line.value), "-open")
        self.focus_main()
        return changed

    def focus_main(self) -> None:
        """Put the focus where it belongs when nothing else wants it."""

    def filtered(self) -> None:
        """The text of the filter has changed."""

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self.filtered()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self.close_filter(clear=False)

    def escape(self) -> None:
        """Esc: out of the filter, or whatever the screen makes of it."""
        self.close_filter(clear=True)
