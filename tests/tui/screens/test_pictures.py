"""Every screen as a picture, so that a change of looks is seen. Clock, data and sizes are fixed."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.tui.fake import FOLDER, FakeSource
from tests.tui.screens.conftest import settle
from tui.app import TunedeckApp

SIZES = [(80, 24), (160, 45)]
SCREENS: dict[str, tuple[str, ...]] = {
    "studies": ("1",),
    "trials": ("3",),
    "trials-advice": ("3", "up", "shift+tab"),
    "gpus": ("4",),
    "results": ("5",),
    "help": ("question_mark",),
    "confirm": ("S",),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCREENS)
def test_picture(snap_compare: Callable[..., bool], name: str, size: tuple[int, int]) -> None:
    app = TunedeckApp(FakeSource(), FOLDER)

    async def type_keys(pilot: Any) -> None:
        await settle(app, pilot)
        for key in SCREENS[name]:
            await pilot.press(key)
            await settle(app, pilot)

    assert snap_compare(app, terminal_size=size, run_before=type_keys)
