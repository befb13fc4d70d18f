"""Configure's search: what it costs in time, and the learning-rate range test."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from textual.timer import Timer
from textual.worker import get_current_worker

from core.profile import Profile, ProfileError
from core.search.lr_range import RangeReading
from core.study.files import RangeTest
from core.study.store import PROFILE_FILE
from core.values import number
from tui.draft import Draft, open_file
from tui.plan import PastTime, Plan, plan
from tui.range_picture import rate_text
from tui.range_test import bounds_text, parse_bounds
from tui.screens.configure_memory import ConfigureMemory
from tui.screens.confirm import TextDialog
from tui.source import SourceError

if TYPE_CHECKING:
    from tui.screens.lr_range import RangeScreen

RATE = "train.learning_rate"
_LOOK_AFTER = 0.5
"""Seconds without a key after which a study of the same training is looked for."""


class ConfigureSearch(ConfigureMemory):
    """The form with the cost of its search, and with a look at the learning rates before it."""

    def __init__(self) -> None:
        super().__init__()
        self._past: PastTime | None = None
        self._past_of: Profile | None = None
        self._past_timer: Timer | None = None
        self._test: RangeTest = RangeTest()
        """What was asked for last."""
        self._tested: Path | None = None
        """The folder of the last test."""
        self._tested_profile: Profile | None = None

    @property
    def plan(self) -> Plan:
        """The numbers that are shown below."""
        profile = self._review.profile
        at_hand = self.forecasting.gpus(profile) if profile is not None else None
        gpus = self._review.values["resources.gpus_per_trial"]
        each = (
            gpus
            if isinstance(gpus, int) and "resources.gpus_per_trial" not in self._problems
            else 1
        )
        return plan(self._review, self._data, each, at_hand=at_hand, past=self._past)

    def _show(self, *, keep: str = "") -> None:
        super()._show(keep=keep)
        profile = self._review.profile
        if profile is not None and profile != self._past_of:
            if self._past_timer is not None:
                self._past_timer.stop()
            self._past_timer = self.set_timer(_LOOK_AFTER, self._look_at_past)

    # -- time ---------------------------------------------------------------------------------

    def _look_at_past(self) -> None:
        profile = self._review.profile
        if profile is not None:
            self._past_of = profile
            self.run_worker(
                lambda: self._find_past(profile), group="past", exclusive=True, thread=True
            )

    def _find_past(self, profile: Profile) -> None:
        """Runs in a thread."""
        try:
            found = self.deck.source.past_time(profile)
        except SourceError:
            found = None  # What a study cannot tell is no reason to disturb somebody who types.
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take_past, found)

    def _take_past(self, found: PastTime | None) -> None:
        if found != self._past and self.is_attached:
            self._past = found
            self._show(keep=self.form.current or "")

    # -- range test ---------------------------------------------------------------------------

    def action_test_rates(self) -> None:
        """l: show the last test of this very training, or ask for one."""
        self.run_worker(self._test_rates(), group="dialog", exclusive=True)

    async def _test_rates(self) -> None:
        profile = self._review.profile
        if (
            profile is not None
            and self._tested is not None
            and _same(profile, self._tested_profile)
        ):
            self._show_test(self._tested)
            return
        await self._ask_for_test()

    def ask_for_test(self) -> None:
        """Ask for another test."""
        self.run_worker(self._ask_for_test(), group="dialog", exclusive=True)

    async def _ask_for_test(self) -> None:
        profile = await self._checked("This has to be put right before rates can be tested:")
        if profile is None:
            return
        dialog = TextDialog(
            "Test learning rates",
            "One short run in which the rate rises with every update shows which rates train. From, to, and how many "
            "updates:",
            value=bounds_text(self._test),
            check=_bounds_problem,
        )
        answer = await self.app.push_screen_wait(dialog)
        if not answer:
            return
        self._test = test = parse_bounds(answer)
        self.say("Starting the test.")
        try:
            folder = await asyncio.to_thread(self.deck.source.create_range_test, profile, test)
        except SourceError as error:
            self.deck.fail(str(error))
            return
        self._tested, self._tested_profile = folder, profile
        self._show_test(folder)

    async def _checked(self, otherwise: str) -> Profile | None:
        """The profile, or None where something is wrong with it, which the user is told."""
        raise NotImplementedError

    def _show_test(self, folder: Path) -> None:
        from tui.screens.lr_range import RangeScreen

        screen: RangeScreen = RangeScreen(folder, take=self.take_range, again=self.ask_for_test)
        self.app.push_screen(screen)

    def show_range_test(self, folder: Path) -> None:
        """Show a test that is there already; a form without a model takes the test's profile first."""
        if not self.draft.text("model.model_name_or_path"):
            with suppress(ProfileError):
                self._begin(open_file(folder / PROFILE_FILE)[0])
        self._tested = folder
        self._show_test(folder)

    def _begin(self, draft: Draft) -> None:
        """Show another draft."""
        raise NotImplementedError

    def take_range(self, reading: RangeReading) -> None:
        """Search the range that a test suggests, as one step of undo."""
        if reading.low is None or reading.high is None:
            return
        text = f"{number(reading.low)} .. {number(reading.high)} log"
        self._change(self._history.present.with_space(RATE, text))
        self._go_to(RATE)
        told = f"{rate_text(reading.low)} to {rate_text(reading.high)}"
        self.say(f"Searched now: learning rates from {told}. u takes that back.")


def _bounds_problem(text: str) -> str | None:
    try:
        parse_bounds(text)
    except ValueError as error:
        return str(error)
    return None


def _same(profile: Profile, tested: Profile | None) -> bool:
    """Whether a test of one says the same of the other: all but the search and the rate itself."""
    if tested is None:
        return False
    plain = {RATE: 1e-4}
    return profile.as_training().with_changes(plain) == tested.as_training().with_changes(plain)
