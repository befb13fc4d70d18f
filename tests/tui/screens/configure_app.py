"""The dashboard on its Configure screen, with what it would start noted instead of started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from textual.pilot import Pilot

from core.engine.messages import Reply, Request
from core.profile import Profile
from core.study.files import RangeTest
from core.study.preview import PreviewRequest
from tests.tui.fake_data import FakePreview
from tests.tui.fake_memory import FakeDesk
from tests.tui.fake_range import FakeWatch
from tui.app import TunedeckApp
from tui.plan import PastTime
from tui.screens.configure import ConfigureScreen
from tui.screens.pick import PickDialog
from tui.source import SourceError


class NoStudies:
    """A source without studies."""

    def __init__(self, desk: FakeDesk) -> None:
        self.desk = desk
        self.watch = FakeWatch()
        self.data = FakePreview()
        self.tested: list[tuple[Profile, RangeTest]] = []
        self.past: PastTime | None = None
        self.refuse = ""

    def create_range_test(self, profile: Profile, test: RangeTest) -> Path:
        if self.refuse:
            raise SourceError(self.refuse)
        self.tested.append((profile, test))
        return self.watch.view.folder

    def range_test(self, folder: Path) -> FakeWatch:
        return self.watch

    def preview(self, asked: PreviewRequest) -> FakePreview:
        self.data.asked.append(asked)
        return self.data

    def past_time(self, profile: Profile) -> PastTime | None:
        return self.past

    def send(self, folder: Path, request: Request) -> Reply:
        return Reply(True, f"trial {request.trial} will stop within seconds")

    def memory(self) -> FakeDesk:
        return self.desk

    def now(self) -> float:
        return 1_800_000_000.0

    def studies(self) -> list[Path]:
        return []


def configure_app(
    *, ascii: bool = False, desk: FakeDesk | None = None
) -> tuple[TunedeckApp, list[Profile]]:
    """The app, and the list of what is started."""
    app = TunedeckApp(source=cast(Any, NoStudies(desk or FakeDesk())), ascii=ascii)
    started: list[Profile] = []
    app.start_study = started.append  # type: ignore[method-assign]
    return app, started


async def settle(pilot: Pilot[None]) -> None:
    """Until the files that the draft names have been looked at.

    A pause alone is not enough on a busy machine: it ends when the process gets no time, too. And
    of workers that are waited for together, one that was cancelled ends the waiting for all.
    """
    for _ in range(3):
        await pilot.pause()
    screen = pilot.app.screen
    if isinstance(screen, ConfigureScreen):
        timer = screen._look_timer
        if timer is not None:
            timer.stop()
            screen._look()
        if screen._memory_timer is not None:
            screen._memory_timer.stop()
            screen._look_at_memory()
        if screen._past_timer is not None:
            screen._past_timer.stop()
            screen._look_at_past()
    while any(
        w.group in ("rows", "memory", "past", "range", "data") and not w.is_finished
        for w in pilot.app.workers
    ):
        await asyncio.sleep(0.01)
    await pilot.pause()


class Deck:
    """The Configure screen under a pilot."""

    def __init__(self, pilot: Pilot[None], screen: ConfigureScreen, started: list[Profile]) -> None:
        self.pilot, self.screen, self.started = pilot, screen, started
        self.source: NoStudies = cast(Any, pilot.app).source

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        names = {
            " ": "space",
            ".": "full_stop",
            ",": "comma",
            "-": "minus",
            "/": "slash",
            "_": "underscore",
        }
        await self.press(*(names.get(c, c) for c in text))

    async def write(self, text: str) -> None:
        """Put `text` in place of what the editor holds, as a paste does."""
        assert self.screen.editor.has_focus
        self.screen.editor.value = text
        await self.pilot.pause()

    async def at(self, key: str) -> None:
        assert self.screen.form.move_to(key), key
        await self.pilot.pause()

    @property
    def dialog(self) -> str:
        return type(self.pilot.app.screen).__name__

    def pick(self) -> PickDialog:
        assert isinstance(self.pilot.app.screen, PickDialog)
        return self.pilot.app.screen


@asynccontextmanager
async def deck(
    profile: Path | None,
    size: tuple[int, int] = (80, 24),
    *,
    ascii: bool = False,
    desk: FakeDesk | None = None,
) -> AsyncIterator[Deck]:
    """The Configure screen with `profile` open."""
    app, started = configure_app(ascii=ascii, desk=desk)
    async with app.run_test(size=size) as pilot:
        screen = ConfigureScreen(profile)
        await app.push_screen(screen)
        await settle(pilot)
        yield Deck(pilot, screen, started)
