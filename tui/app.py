"""The dashboard: a client that may die at any moment. Trials belong to a study's daemon, not to it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from core.values import Scalar
from tui import words
from tui.keymap import bindings
from tui.modes import SCREENS
from tui.news import news, notice_lines
from tui.palette import ActionProvider
from tui.profile_path import path_note, path_problem, profile_path
from tui.repaint import LeanApp
from tui.screens.base import DeckScreen
from tui.snapshot import StudySummary, StudyView, TrialRow, study_view
from tui.source import DiskSource, Source, SourceError, StudyFeed, Wanted, shell_path, short_path
from tui.theme import tunedeck_theme

if TYPE_CHECKING:
    from core.doctor import NextStep
    from core.engine.messages import Request
    from core.profile import Profile
    from tui.screens.configure import ConfigureScreen

LIVE_SECONDS = 1.0
IDLE_SECONDS = 2.0
"""How often the files of a study are looked at, while a trial trains and while none does."""
Severity = Literal["information", "warning", "error"]
Value = TypeVar("Value")


class TunedeckApp(LeanApp[None]):
    """Screens over one open study. All reading and asking goes through `source`, in threads."""

    TITLE = "tunedeck"
    CSS_PATH: ClassVar[list[str | PurePath]] = [
        "styles/app.tcss",
        "styles/trials.tcss",
        "styles/gpus.tcss",
        "styles/results.tcss",
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("app"),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "To the shell", show=False),
    ]
    COMMANDS: ClassVar[set[type[ActionProvider]]] = {ActionProvider}  # type: ignore[assignment]
    COMMAND_PALETTE_BINDING = "ctrl+p"
    ENABLE_COMMAND_PALETTE = True
    ESCAPE_TO_MINIMIZE = False

    def __init__(
        self, source: Source | None = None, study: Path | None = None, *, ascii: bool = False
    ) -> None:
        # The mode that Textual starts in; an attribute of this app, as it depends on the command.
        self.DEFAULT_MODE = "trials" if study else "studies"  # type: ignore[misc]
        super().__init__()
        self.source: Source = source or DiskSource()
        self.ascii = ascii
        self.view: StudyView | None = None
        """The open study as it was read last."""
        self.register_theme(tunedeck_theme())
        self.theme = "tunedeck"
        self._first = study
        self._feed: StudyFeed | None = None
        self._poll_again = False
        self._polling = False
        self._listing = self._list_again = False
        self._asks_to_quit = False
        self._ticks = 0
        if ascii:
            self.add_class("-ascii")
        for name, make in SCREENS.items():
            self.add_mode(name, make)

    # -- start and end ------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.set_interval(LIVE_SECONDS, self._tick)
        if self._first is not None:
            self.open_study(self._first)

    def _fatal_error(self) -> None:
        """An error that nobody caught: into a file with it, and one line for the user."""
        from tui.crash import write_report

        self.bell()
        self.panic(write_report(sys.exc_info()[1] or self._exception))

    async def action_quit(self) -> None:
        """Leave; where the form holds changes that nothing else has, ask first. Twice means it."""
        if self._asks_to_quit or not self._changes_would_be_lost():
            self.exit()
        else:
            self.run_worker(self._quit_asking(), group="quit", exclusive=True)

    def _changes_would_be_lost(self) -> bool:
        stacks = self._screen_stacks.values()
        return any(getattr(screen, "may_lose", False) for stack in stacks for screen in stack)

    async def _quit_asking(self) -> None:
        from tui.screens.confirm import ConfirmDialog

        detail = (
            "The changes in Configure are not saved to a file: 2 shows them, w saves them there."
        )
        question = ConfirmDialog("Quit and lose the changes?", detail, yes="Quit")
        self._asks_to_quit = True
        try:
            if await self.push_screen_wait(question):
                self.exit()
        finally:
            self._asks_to_quit = False

    # -- screens ------------------------------------------------------------------------------

    def action_go(self, name: str) -> None:
        """Show the screen `name`."""
        while self.screen.is_modal:
            self.pop_screen()
        self.switch_mode(name)

    def action_command_palette(self) -> None:
        """Open the palette of actions."""
        from textual.command import CommandPalette

        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="what to do", id="--command-palette"))

    def action_help(self) -> None:
        """Show the keys that work on the present screen."""
        from tui.screens.help import HelpDialog

        screen = self.screen
        contexts = screen.help_contexts() if isinstance(screen, DeckScreen) else ("app",)
        self.push_screen(HelpDialog(contexts, ascii=self.ascii))

    def action_go_back(self) -> None:
        """Esc: whatever it means on the present screen."""
        if isinstance(self.screen, DeckScreen):
            self.screen.escape()

    @property
    def deck_screen(self) -> DeckScreen | None:
        """The present screen of the dashboard, below any dialog."""
        return next((s for s in reversed(self.screen_stack) if isinstance(s, DeckScreen)), None)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: Severity = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Say something in the footer's line; where a screen has none, beside it."""
        screen = self.screen
        if isinstance(screen, DeckScreen) and screen.ready:
            screen.say(message, severity)
        else:
            super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def fail(self, sentence: str) -> None:
        """Tell of something that cannot be done: in a line if it fits, else in a box."""
        from tui.screens.confirm import MessageDialog

        if "\n" in sentence or len(sentence) + 3 > self.size.width:
            self.push_screen(MessageDialog("That did not work", sentence, error=True))
        else:
            self.notify(sentence, severity="error")

    def get_system_commands(self, screen: Screen[object]) -> list[SystemCommand]:
        """None of Textual's own: the palette lists our actions."""
        return []

    # -- reading ------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticks += 1
        view = self.view
        quiet = view is None or (not view.live and view.status != "running")
        if self._feed is not None and not (quiet and self._ticks % round(IDLE_SECONDS)):
            self.poll_soon()

    def poll_soon(self) -> None:
        """Read the open study now, or once more right after the reading that is under way."""
        if self._feed is None:
            return
        if self._polling:
            self._poll_again = True
        else:
            self._polling = True
            self.run_worker(self._poll(), group="poll", exit_on_error=True)

    async def _poll(self) -> None:
        try:
            while True:
                self._poll_again = False
                feed = self._feed
                if feed is None:
                    return
                reading = await asyncio.to_thread(feed.read, self._wanted())
                now, before = self.source.now(), self.view_of(feed)
                # In a thread as well: with thousands of trials it takes longer than a key may wait.
                view = await asyncio.to_thread(study_view, reading, now, before)
                if feed is self._feed:
                    self._show(view)
                if not self._poll_again:
                    return
        finally:
            self._polling = False

    def view_of(self, feed: StudyFeed) -> StudyView | None:
        """The present view, if it is of this study."""
        return self.view if self.view is not None and self.view.folder == feed.folder else None

    def _wanted(self) -> Wanted:
        screen = self.deck_screen
        ask = getattr(screen, "wanted", None)
        return ask() if ask is not None and screen is not None and screen.ready else Wanted()

    def _show(self, view: StudyView) -> None:
        if view == self.view:
            return
        before, self.view = self.view, view
        screen = self.deck_screen
        if screen is not None and screen.ready:
            with self.batch_update():
                screen.update_view(view)
            if before is not None and (said := news(before, view)):
                screen.say(said)

    # -- studies ------------------------------------------------------------------------------

    def refresh_studies(self, *, say: bool = False, changed: bool = False) -> None:
        """Read the list of studies and show it; what is being read just now may be older than what has `changed`."""
        self._list_again = self._list_again or changed
        if not self._listing:
            self._listing, self._list_again = True, False
            self.run_worker(self._refresh_studies(say), group="studies")

    async def _refresh_studies(self, say: bool) -> None:
        from tui.screens.studies import StudiesScreen

        try:
            folders = await asyncio.to_thread(self.source.studies)
            summaries: list[StudySummary] = []
            for start in range(0, max(1, len(folders)), 8):
                part = folders[start : start + 8]
                summaries += await asyncio.to_thread(list, (self.source.summary(f) for f in part))
                screen = self.deck_screen
                if isinstance(screen, StudiesScreen) and screen.ready and not screen.loaded:
                    screen.show_studies(summaries)
            if isinstance(screen := self.deck_screen, StudiesScreen) and screen.ready:
                screen.show_studies(summaries, all=True)
            if say:
                self.notify(f"{words.plural(len(summaries), 'study')} found.")
        finally:
            self._listing = False
        if self._list_again:
            self.refresh_studies()

    def open_study(self, folder: Path) -> None:
        """Show the study in `folder` on the Trials screen; its engine is started if it is needed."""
        self.run_worker(self._open_study(folder), group="open", exclusive=True)

    async def _open_study(self, folder: Path) -> None:
        feed = await self._attempt(lambda: self.source.open(folder))
        if feed is None:
            return
        self._feed, self.view = feed, None
        self.action_go("trials")
        reading = await asyncio.to_thread(feed.read, Wanted())
        if feed is not self._feed:
            return
        self._show(study_view(reading, self.source.now()))
        self.poll_soon()
        if reading.engine == "missing":
            self.start_engine()

    def start_engine(self) -> None:
        """Start the open study's daemon."""
        if self.view is not None and self._readable(self.view):
            self.run_worker(self._start_engine(self.view.folder), group="engine", exclusive=True)

    async def _start_engine(self, folder: Path) -> None:
        self.notify("Starting the study's engine.")
        if await self._attempt(lambda: self.source.start_engine(folder) or True):  # type: ignore[func-returns-value]
            self.notify("The engine runs.")
        self.poll_soon()

    def start_study(self, profile: Profile) -> None:
        """Make a study of `profile`, start it and show it."""
        self.run_worker(self._start_study(lambda: profile), group="create", exclusive=True)

    def start_demo(self) -> None:
        """Make and start the study of the demo."""
        self.run_worker(self._start_study(self.source.demo_profile), group="create", exclusive=True)

    async def _start_study(self, profile: Callable[[], Profile]) -> None:
        self.notify("Starting the study.")
        folder = await self._attempt(lambda: self.source.create(profile()))
        if folder is not None:
            await self._open_study(folder)

    def delete_study(self, study: StudySummary) -> None:
        """Ask, then delete a study's folder."""
        self.run_worker(self._delete_study(study), group="delete")

    async def _delete_study(self, study: StudySummary) -> None:
        from tui.screens.confirm import ConfirmDialog

        detail = (
            f"{short_path(study.folder)}\n{words.plural(study.planned, 'trial')}, with all metrics, "
            "logs, checkpoints and saved models. This cannot be undone."
        )
        question = ConfirmDialog(f"Delete the study {study.name}?", detail, yes="Delete")
        if not await self.push_screen_wait(question):
            return
        if await self._attempt(lambda: self.source.delete(study.folder) or True):  # type: ignore[func-returns-value]
            if self.view is not None and self.view.folder == study.folder:
                self._feed, self.view = None, None
            self.notify(f"{study.name} is deleted.")
        self.refresh_studies(changed=True)

    # -- steering -----------------------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """Send a request to the open study's daemon and show the answer."""
        if self.view is not None and self._readable(self.view):
            self.run_worker(self._ask(self.view.folder, request), group="ask")

    def _readable(self, view: StudyView) -> bool:
        if view.reading.problem:
            self.fail(view.reading.problem)
        return not view.reading.problem

    async def _ask(self, folder: Path, request: Request) -> None:
        reply = await self._attempt(lambda: self.source.send(folder, request))
        if reply is not None:
            text = reply.text[:1].upper() + reply.text[1:]
            if not reply.ok:
                self.fail(text)
            else:
                self.notify(text if text.endswith(".") else f"{text}.")
        self.poll_soon()

    def confirm(self, question: str, detail: str, *, yes: str, then: Request) -> None:
        """Ask before something is destroyed, then send `then`."""
        self.run_worker(self._confirm(question, detail, yes, then, danger=True), group="confirm")

    async def _confirm(
        self, question: str, detail: str, yes: str, then: Request, *, danger: bool
    ) -> None:
        from tui.screens.confirm import ConfirmDialog

        if await self.push_screen_wait(ConfirmDialog(question, detail, yes=yes, danger=danger)):
            self.ask(then)

    def promote(self, view: StudyView, number: int) -> None:
        """Ask, as it takes its time, then train fully with a trial's settings."""
        self.run_worker(self._promote(view.by_number[number]), group="confirm")

    async def _promote(self, row: TrialRow) -> None:
        from tui.screens.promote import ask_promotion

        request = await ask_promotion(self, row)
        if request is not None:
            self.ask(request)

    def add_trial(self, start: Mapping[str, Scalar]) -> None:
        """Ask for a trial's settings, then plan it."""
        self.run_worker(self._add_trial(start), group="add", exclusive=True)

    async def _add_trial(self, start: Mapping[str, Scalar]) -> None:
        from core.engine.messages import Request
        from tui.screens.confirm import TextDialog

        settings = await asyncio.to_thread(import_module, "tui.trial_settings")
        dialog = TextDialog(
            "Add a trial",
            "Its settings, as name=value with blanks between them; all else is as in the profile.",
            value=settings.settings_text(start),
            placeholder="learning_rate=3e-4 lora_rank=16",
            check=settings.problem,
        )
        text = await self.push_screen_wait(dialog)
        if text:
            self.ask(Request("add", changes=settings.parse_settings(text)))

    def show_trial(self, number: int) -> None:
        """Show a trial on the Trials screen."""
        from tui.screens.trials import TrialsScreen

        self.action_go("trials")
        if isinstance(screen := self.screen, TrialsScreen):
            screen.select(number)

    def show_range_test(self, folder: Path) -> None:
        """Show a learning-rate range test over the form, which may take its range over."""
        self._go_to_form(lambda form: form.show_range_test(folder))

    def search_on(self, folder: Path, steps: Sequence[NextStep]) -> None:
        """Make a new draft of a study's profile in Configure that searches what its doctor proposes."""
        self._go_to_form(lambda form: form.search_on(folder, steps))

    def _go_to_form(self, then: Callable[[ConfigureScreen], None]) -> None:
        """Show the form itself, without a range test over it."""
        from tui.screens.configure import ConfigureScreen

        self.action_go("configure")
        form = next((s for s in self.screen_stack if isinstance(s, ConfigureScreen)), None)
        if form is not None:
            while self.screen is not form:
                self.pop_screen()
            self.call_after_refresh(then, form)

    def save_profile(self, folder: Path, number: int, start: Path) -> None:
        """Ask for a path, then write the profile of a trial there."""
        self.run_worker(self._save_profile(folder, number, start), group="save", exclusive=True)

    async def _save_profile(self, folder: Path, number: int, start: Path) -> None:
        from tui.screens.confirm import ConfirmDialog, TextDialog

        dialog = TextDialog(
            f"Save the settings of trial {number}",
            "As a profile that `tunedeck train` runs. Where to?",
            value=str(start),
            check=path_problem,
            note=path_note,
        )
        answer = await self.push_screen_wait(dialog)
        if not answer:
            return
        path = profile_path(answer)
        if path.exists():
            question = ConfirmDialog(
                f"Replace {path}?", "What is in the file now is lost.", yes="Replace"
            )
            if not await self.push_screen_wait(question):
                return
        if await self._attempt(lambda: self.source.save_profile(folder, number, path) or True):  # type: ignore[func-returns-value]
            self.notify(f"Saved: tunedeck train {shell_path(path)}")

    def copy_profile(self, folder: Path, number: int) -> None:
        """Copy the profile of a trial to the clipboard."""
        self.run_worker(self._copy_profile(folder, number), group="copy")

    async def _copy_profile(self, folder: Path, number: int) -> None:
        text = await self._attempt(lambda: self.source.profile_text(folder, number))
        if text is not None:
            await self._copy(text)

    def show_notices(self, view: StudyView) -> None:
        """What the engine had to say, newest first."""
        from tui.screens.confirm import MessageDialog

        text = "\n".join(notice_lines(view, self.source.now())) or "Nothing so far."
        self.push_screen(MessageDialog("What the engine says", text))

    def copy(self, text: str) -> None:
        """Copy a text to the clipboard in front of the user, or show it."""
        self.run_worker(self._copy(text), group="copy")

    async def _copy(self, text: str) -> None:
        from tui import clipboard
        from tui.screens.confirm import MessageDialog

        sent: list[str] = []
        result = await asyncio.to_thread(
            lambda: clipboard.copy(text, env=os.environ, write_osc52=sent.append)
        )
        for part in sent:
            self.copy_to_clipboard(part)
        if result.method == "shown":
            self.push_screen(MessageDialog(result.message, text))
        else:
            self.notify(result.message)

    async def _attempt(self, act: Callable[[], Value]) -> Value | None:
        """Run `act` in a thread; None if it could not be done, which the user is told."""
        try:
            return await asyncio.to_thread(act)
        except SourceError as error:
            self.fail(str(error))
            return None
