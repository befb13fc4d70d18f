"""The dashboard over a fake source, ready to be typed at."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.app import App
from textual.pilot import Pilot

from tests.tui.fake import FOLDER, FakeSource
from tui.app import TunedeckApp

Opened = Callable[..., AbstractAsyncContextManager[tuple[TunedeckApp, Pilot[None]]]]


async def settle(app: TunedeckApp, pilot: Pilot[None]) -> None:
    """Wait until everything that was typed has had its effect; questions may stay open."""
    for _ in range(3):
        await pilot.pause()
        running = [w for w in app.workers if w.group in ("poll", "open", "studies", "devices")]
        if running:
            await app.workers.wait_for_complete(running)
    await pilot.pause()


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def opened(source: FakeSource) -> Opened:
    @asynccontextmanager
    async def run(
        size: tuple[int, int] = (80, 24), study: Path | None = FOLDER, *, ascii: bool = False
    ) -> AsyncIterator[tuple[TunedeckApp, Pilot[None]]]:
        app = TunedeckApp(source, study, ascii=ascii)
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            yield app, pilot

    return run


async def paste(pilot: Pilot[None], text: str) -> None:
    """Put `text` in place of what the focused field holds: key by key it would take seconds."""
    await pilot.press("ctrl+u")
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()


def screen_text(app: TunedeckApp) -> str:
    """What a terminal shows."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


@asynccontextmanager
async def painting(app: App[Any]) -> AsyncIterator[list[object]]:
    """What is sent to the terminal from now on, once what came before has been.

    On a busy machine a layout may come long after the pause that should have waited for it. What paints again and
    again never comes to rest, and fails here.
    """
    painted: list[object] = []
    display = app._display

    def record(screen: Any, what: Any) -> None:
        painted.append(what)
        display(screen, what)

    app._display = record  # type: ignore[method-assign]
    try:
        for _ in range(50):
            painted.clear()
            for _ in range(10):
                await asyncio.sleep(0.02)
            if not painted:
                break
        assert painted == [], "it never comes to rest"
        yield painted
    finally:
        app._display = display  # type: ignore[method-assign]
