"""The studies of this machine: open one, start one, delete one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType

from tui import words
from tui.actions import Context
from tui.keymap import bindings
from tui.screens.base import DeckScreen
from tui.snapshot import StudySummary
from tui.source import short_path
from tui.theme import COLOURS
from tui.widgets.bars import Heading
from tui.widgets.trial_table import Column, LiveTable, Row

SECONDS = 5.0
"""How often the list is read again while it is shown."""
EMPTY = "no studies yet:  d runs the demo,  n sets up a study of your own"
COLUMNS = (
    Column("name", "study", min_width=24, max_width=40, priority=100),
    Column("state", "state", width=20, priority=90),
    Column("trials", "trials", width=9, align="right", priority=80),
    Column("best", "best", width=8, align="right", priority=85),
    Column("age", "changed", width=8, align="right", priority=70),
    Column("folder", "folder", min_width=12, priority=20),
)


class StudiesScreen(DeckScreen):
    """A list of studies, newest first."""

    TITLE_NAME = "studies"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("studies",)
    FILTERS = "name, state or folder"
    BINDINGS: ClassVar[list[BindingType]] = bindings("studies")

    def __init__(self) -> None:
        super().__init__()
        self._summaries: tuple[StudySummary, ...] = ()
        self.loaded = False
        """Whether the list has been read to its end once."""

    def body(self) -> ComposeResult:
        yield Heading("Studies", ascii=self.ascii)
        yield LiveTable(COLUMNS, empty_text="looking for studies", ascii=self.ascii)

    @property
    def table(self) -> LiveTable:
        return self.query_one(LiveTable)

    def on_mount(self) -> None:
        self.table.focus()
        self.deck.refresh_studies()
        self.set_interval(SECONDS, self._refresh)

    def _refresh(self) -> None:
        if self.is_current:
            self.deck.refresh_studies()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self.loaded:
            self.deck.refresh_studies()

    def focus_main(self) -> None:
        self.table.focus()

    def filtered(self) -> None:
        self._fill()

    def show_studies(self, summaries: Sequence[StudySummary], *, all: bool = False) -> None:
        """Show these studies from now on; `all` says that these are all there are."""
        self._summaries, self.loaded = tuple(summaries), self.loaded or all
        self._fill()

    def _fill(self) -> None:
        query = self.query_text.lower()
        shown = [s for s in self._summaries if not query or _matches(s, query)]
        now = self.deck.source.now()
        self.table.set_empty_text("no study matches" if self._summaries else EMPTY)
        opened = self.deck.view.folder if self.deck.view else None
        self.table.set_rows(
            [study_row(s, now, opened=s.folder == opened, ascii=self.ascii) for s in shown]
        )
        count = words.plural(len(self._summaries), "study") if self._summaries else "Studies"
        if query:
            count += f", {len(shown)} shown"
        self.query_one(Heading).show(count)

    @property
    def selected(self) -> StudySummary | None:
        """The study under the cursor."""
        key = self.table.cursor_key
        return next((s for s in self._summaries if s.key == key), None)

    # -- actions ------------------------------------------------------------------------------

    def on_live_table_row_selected(self, event: LiveTable.RowSelected) -> None:
        self._open(Path(event.row_key))

    def action_open_study(self) -> None:
        if self.selected is not None:
            self._open(self.selected.folder)

    def _open(self, folder: Path) -> None:
        study = next((s for s in self._summaries if s.folder == folder), None)
        if study is not None and study.status == "not begun":
            # Processes start before there is anything to show.
            self.say("Beginning this step of the recipe.")
        self.deck.open_study(folder)

    def action_new_study(self) -> None:
        self.deck.action_go("configure")

    def action_demo(self) -> None:
        self.deck.start_demo()

    def action_refresh(self) -> None:
        self.deck.refresh_studies(say=True)

    def action_delete_study(self) -> None:
        study = self.selected
        if study is None:
            self.say("There is no study to delete.", "warning")
            return
        if study.live:
            running = words.plural(study.live, "trial")
            self.say(f"{study.name} has {running} running: stop it first (Trials, X).", "warning")
            return
        self.deck.delete_study(study)


def _matches(study: StudySummary, query: str) -> bool:
    text = f"{study.name} {study.status} {study.folder}".lower()
    return all(word.removeprefix("state:") in text for word in query.split())


def study_row(study: StudySummary, now: float, *, opened: bool, ascii: bool) -> Row:
    """A study as a row of the table; `opened` marks the one that the other screens show."""
    look = words.STUDY_LOOKS.get(study.status, words.STUDY_LOOKS[""])
    state = look.text(ascii=ascii)
    if study.status == "running" and study.live:
        state += f", {study.live} live"
    trials = f"{study.done}/{study.planned}" if study.planned else ""
    return Row(
        study.key,
        {
            "name": Text(study.name, style="bold"),
            "state": Text(state, style=COLOURS[look.colour]),
            "trials": trials,
            "best": words.loss(study.best),
            "age": Text(words.age(now - study.updated), COLOURS["muted"]) if study.updated else "",
            "folder": Text(study.problem or short_path(study.folder), style=COLOURS["muted"]),
        },
        marked=opened,
    )
