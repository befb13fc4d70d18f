"""What the Configure screen looks like."""

from typing import Any

import pytest
from textual.pilot import Pilot

from core.profile import resolve
from tests.tui.screens.configure_app import configure_app, settle
from tui.screens.configure import ConfigureScreen

SIZES = [(80, 24), (160, 45)]


def _open(*keys: str) -> Any:
    async def before(pilot: Pilot[None]) -> None:
        await pilot.app.push_screen(ConfigureScreen(resolve("lora-small")))
        await settle(pilot)
        await pilot.press(*keys)
        await pilot.pause()

    return before


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_a_ready_made_profile(snap_compare: Any, size: tuple[int, int]) -> None:
    app, _ = configure_app()
    assert snap_compare(app, terminal_size=size, run_before=_open("tab", "tab", "tab", "tab"))


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_a_search_that_is_typed_wrong(snap_compare: Any, size: tuple[int, int]) -> None:
    app, _ = configure_app()
    keys = ("tab", "tab", "tab", "tab", "x", "ctrl+a", "ctrl+k", "1", "comma", "x")
    assert snap_compare(app, terminal_size=size, run_before=_open(*keys))


def test_the_smallest_terminal(snap_compare: Any) -> None:
    app, _ = configure_app()
    assert snap_compare(app, terminal_size=(60, 15), run_before=_open("tab", "tab", "tab", "tab"))


def test_ascii(snap_compare: Any) -> None:
    app, _ = configure_app(ascii=True)
    assert snap_compare(app, terminal_size=(80, 24), run_before=_open("tab", "tab", "tab", "tab"))
