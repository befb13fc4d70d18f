"""Every screen at every size, in colour and without, with Unicode and without."""

from typing import Any

import pytest

from core.study.events import StudyChanged
from tests.tui.fake import NOW, FakeSource
from tests.tui.screens.conftest import Opened, screen_text, settle

SCREENS = {"1": "sft-night", "3": "trial 5", "4": "GPU 0", "5": "Best:"}


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (160, 45)])
async def test_every_screen_fits(opened: Opened, size: tuple[int, int]) -> None:
    async with opened(size=size) as (app, pilot):
        for key, words in SCREENS.items():
            await press(app, pilot, key, *(["enter"] if key == "3" else []))
            lines = screen_text(app).splitlines()
            assert len(lines) == size[1] and {len(line) for line in lines} == {size[0]}
            assert words in "\n".join(lines)
            assert "? keys" in lines[-1] and "q quit" in lines[-1]


async def test_in_the_smallest_terminal_one_thing_is_shown_at_a_time(opened: Opened) -> None:
    async with opened(size=(60, 15)) as (app, pilot):
        assert "trial 5" not in screen_text(app) and "completed" in screen_text(app)
        await press(app, pilot, "tab")
        text = screen_text(app)
        assert "differs from the profile" in text and "completed" not in text
        await press(app, pilot, "escape")
        assert "completed" in screen_text(app)


async def test_a_terminal_that_is_too_small_says_so_and_recovers(
    opened: Opened, source: FakeSource
) -> None:
    source.feed.tell(StudyChanged(t=NOW, status="paused", reason="the disk is full"))
    async with opened() as (app, pilot):
        assert "the disk is full" in screen_text(app)
        await pilot.resize_terminal(40, 10)
        await settle(app, pilot)
        assert "40×10 is too small" in screen_text(app)
        assert "the disk is full" not in screen_text(app)
        for key in ("1", "4", "5", "3", "question_mark", "escape", "S", "escape"):
            await press(app, pilot, key)
        await pilot.resize_terminal(80, 24)
        await settle(app, pilot)
        assert "completed" in screen_text(app)


async def test_few_trials_stand_above_the_chart_and_many_beside_it(opened: Opened) -> None:
    async with opened(size=(160, 45)) as (app, pilot):
        wide = next(line for line in screen_text(app).splitlines() if "trial 5" in line)
        assert wide.startswith("─ trial 5")
        await pilot.resize_terminal(160, 24)
        await settle(app, pilot)
        assert app.screen.has_class("-wide") and not app.screen.has_class("-many")


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (160, 45)])
async def test_ascii_means_ascii_everywhere(opened: Opened, size: tuple[int, int]) -> None:
    async with opened(size=size, ascii=True) as (app, pilot):
        for keys in (
            ("1",), ("D", "escape"), ("3",), ("question_mark", "escape"), ("S", "escape"), ("left",),
            ("w", "escape"), ("enter", "tab"), ("tab",), ("tab",), ("escape",), ("space",),
            ("ctrl+p", "escape"), ("4",), ("5",), ("w", "escape"),
        ):  # fmt: skip
            for key in keys:
                await press(app, pilot, key)
                shown = {c for c in screen_text(app) if not c.isascii()}
                assert not shown, f"after {keys}: {shown}"


async def test_states_are_told_apart_without_colour(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened() as (app, _):
        assert app.no_color
        text = screen_text(app)
        segments = [s for strip in app.screen._compositor.render_strips() for s in strip]
    for sign in ("✓ completed", "↑ diverged", "! OOM", "▶ running", "· queued", "2 ★"):
        assert sign in text
    cursor = next(s for s in segments if "running" in s.text and s.style and s.style.reverse)
    assert cursor.text
