"""Configure: open a profile, change it in the form, save it, start it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from core.catalogue import UnknownParameterError
from core.doctor import NextStep
from core.profile import READY_MADE, Profile, ProfileError, resolve, save
from core.study.store import PROFILE_FILE
from tui.draft import Draft, History, changed_key, open_file, with_proposal
from tui.explain import problem_text
from tui.plan import Plan
from tui.profile_path import path_note, path_problem, profile_path, slug
from tui.row_count import quick_look
from tui.screens.configure_data import ConfigureData
from tui.screens.confirm import ConfirmDialog, MessageDialog, TextDialog
from tui.screens.pick import Choice, PickDialog, profile_choices
from tui.source import short_path
from tui.space_text import space_text
from tui.words import duration, plural

_EMPTY = "empty"


class ConfigureScreen(ConfigureData):
    """The form with what is done to a whole profile. Starting goes through the app's `start_study`."""

    def __init__(self, profile_path: Path | None = None) -> None:
        super().__init__()
        self._first = profile_path

    def on_mount(self) -> None:
        # Textual calls the base class's `on_mount` as well.
        if self._first is not None:
            self._load(self._first)

    def action_open_profile(self) -> None:
        self.run_worker(self._open(), group="dialog", exclusive=True)

    async def _open(self) -> None:
        choices = await asyncio.to_thread(profile_choices, Path.cwd())
        choices.append(Choice(_EMPTY, "(empty)", "Every parameter at its default."))
        dialog = PickDialog(
            "Open a profile",
            choices,
            placeholder="type to narrow the list, or the path of a .toml file",
            typed=True,
        )
        picked = await self.app.push_screen_wait(dialog)
        if picked is None or not await self._may_lose_changes():
            return
        if picked == _EMPTY:
            self._path = None
            self._begin(Draft())
        else:
            self._load(resolve(str(Path(picked).expanduser())))

    async def _may_lose_changes(self) -> bool:
        if not self.unsaved:
            return True
        question = ConfirmDialog(
            "Leave the changes unsaved?", "They have not been saved to a file.", yes="Leave them"
        )
        answer = await self.app.push_screen_wait(question)
        return bool(answer)

    def load(self, path: Path) -> None:
        """Open the profile in `path`, asking first where changes would be lost."""
        self.run_worker(self._load_asking(path), group="dialog", exclusive=True)

    async def _load_asking(self, path: Path) -> None:
        if await self._may_lose_changes():
            self._load(path)

    def search_on(self, study: Path, steps: Sequence[NextStep]) -> None:
        """Make a new draft of a study's profile that searches what its doctor proposes; `u` takes the proposals back.

        Asks first where changes would be lost.
        """
        self.run_worker(self._search_on(study, steps), group="dialog", exclusive=True)

    async def _search_on(self, study: Path, steps: Sequence[NextStep]) -> None:
        if self.may_lose and not await self._may_lose_changes():
            return
        try:
            before, _ = await asyncio.to_thread(open_file, study / PROFILE_FILE)
            draft = before
            for step in steps:
                draft = with_proposal(draft, step.space, step.search)
        except (ProfileError, UnknownParameterError) as error:
            self.app.push_screen(MessageDialog("This cannot be taken over", str(error), error=True))
            return
        # The study keeps its own profile: this one is saved under a name of its own.
        self._path = None
        self._begin(before)
        self._change(draft)
        if changed := changed_key(before, draft):
            self._go_to(changed)
        self.say("As the doctor proposes: r runs it as a new study, u takes it back.")

    def _load(self, path: Path) -> None:
        try:
            draft, left_out = open_file(path)
        except ProfileError as error:
            self._show_draft()
            self.app.push_screen(MessageDialog("This cannot be opened", str(error), error=True))
            return
        self._path = path
        self._begin(draft)
        if left_out:
            text = "\n".join(left_out)
            self.app.push_screen(MessageDialog("Left out, as it is no parameter", text))

    def _begin(self, draft: Draft) -> None:
        self._history, self._saved, self._live = History(draft), draft, None
        self._show_draft()
        self.form.action_first()

    def action_save_profile(self) -> None:
        self.run_worker(self._save(), group="dialog", exclusive=True)

    async def _save(self) -> None:
        profile = await self._checked("Saved is what is right; this is not yet:")
        if profile is None:
            return
        own = self._path is not None and self._path.parent != READY_MADE
        proposed = str(self._path) if own else f"{slug(profile.profile.name)}.toml"
        dialog = TextDialog(
            "Save the profile",
            "A name in this folder, or a path.",
            value=proposed,
            check=path_problem,
            note=path_note,
        )
        answer = await self.app.push_screen_wait(dialog)
        if not answer:
            return
        path = profile_path(answer)
        if path.exists():
            question = ConfirmDialog(
                f"Replace {path.name}?", f"{short_path(path)} exists.", yes="Replace"
            )
            if not await self.app.push_screen_wait(question):
                return
        draft = self._history.present
        try:
            await asyncio.to_thread(save, profile, path)
        except OSError as error:
            wrong = f"{path}: {error.strerror or error}"
            self.app.push_screen(MessageDialog("This cannot be saved", wrong, error=True))
            return
        self._path, self._saved = path, draft
        self._show_draft()
        self.app.notify(f"Saved as {short_path(path)}.")

    def action_start(self) -> None:
        self.run_worker(self._start(), group="dialog", exclusive=True)

    async def _start(self) -> None:
        profile = await self._checked("This has to be put right before it can start:")
        if profile is None:
            return
        numbers = self.plan
        if not profile.search.space:
            await self._start_training(profile, numbers)
            return
        question = ConfirmDialog(
            f"Start {plural(numbers.trials or 0, 'trial')}?",
            start_text(profile, numbers),
            yes="Start",
            danger=False,
        )
        if await self.app.push_screen_wait(question):
            self._start_study(profile)

    async def _start_training(self, profile: Profile, numbers: Plan) -> None:
        choices = [
            Choice("train", "Train once", "with the settings as they are"),
            Choice("mark", "Search the learning rate", "marks it, for you to look at"),
        ]
        steps = f" of {numbers.full} steps" if numbers.full else ""
        dialog = PickDialog(
            f"No parameter is searched: this is one training{steps}", choices, placeholder=""
        )
        picked = await self.app.push_screen_wait(dialog)
        if picked == "train":
            self._start_study(profile)
        elif picked == "mark":
            self._go_to("train.learning_rate")
            self.action_mark()

    def _start_study(self, profile: Profile) -> None:
        self._started = self._history.present
        self.deck.start_study(profile)

    async def _checked(self, otherwise: str) -> Profile | None:
        """The profile, with its files looked at; else the problems are listed and the first one is shown."""
        names = self._names
        if names is not None:
            data = await asyncio.to_thread(quick_look, names, self._counter)
            if data is not None:
                self._show_data(names, data)
        if not self._problems and self._review.profile is not None:
            return self._review.profile
        text = "\n".join(
            f"{key}: {problem_text(problem)}" for key, problem in self._problems.items()
        )
        await self.app.push_screen_wait(MessageDialog(otherwise, text, error=True))
        if self._problems:
            self._go_to(next(iter(self._problems)))
        return None


def start_text(profile: Profile, numbers: Plan) -> str:
    """What is about to be started, in a few lines."""
    searched = [f"{name}: {space_text(entry)}" for name, entry in profile.search.space.items()]
    lines = [*searched]
    if numbers.choice is not None:
        lines.append(f"{numbers.choice.why}.")
    if profile.search.budget_tokens is not None:
        return "\n".join(
            [*lines, f"Each trial runs {profile.search.budget_tokens:,} tokens at most."]
        )
    share = f"{profile.search.budget:.0%}"
    steps = f"{numbers.probe} steps" if numbers.probe else "a part of the training"
    most = " at most" if numbers.expected != numbers.cost else ""
    lines.append(f"Each trial runs {steps}{most} ({share} of a full run){_cost_text(numbers)}.")
    return "\n".join(lines)


def _cost_text(numbers: Plan) -> str:
    """What the search costs, in full trainings, and in time where that is known."""
    if numbers.cost is None:
        return ""
    text = f", together {numbers.cost:.3g} full runs"
    if numbers.expected is not None and numbers.expected < 0.995 * numbers.cost:
        text = (
            f", together about {numbers.expected:.2g} full trainings instead of {numbers.cost:.2g}"
        )
    return text + (f", about {duration(numbers.seconds)}" if numbers.seconds else "")
