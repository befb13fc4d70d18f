"""The list of studies: open, start, delete."""

from typing import Any

from tests.tui.fake import FOLDER, FakeSource
from tests.tui.screens.conftest import Opened, screen_text, settle
from tui.screens.confirm import ConfirmDialog
from tui.screens.studies import StudiesScreen
from tui.screens.trials import TrialsScreen


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


async def test_studies_are_listed_with_state_progress_and_best_value(opened: Opened) -> None:
    async with opened(study=None) as (app, _):
        lines = screen_text(app).splitlines()
    night = next(line for line in lines if "sft-night" in line)
    assert "running, 2 live" in night and "4/8" in night and "1.8940" in night
    assert any("first-try" in line and "finished" in line and "1/2" in line for line in lines)


async def test_enter_opens_a_study_and_attaching_starts_an_engine_that_is_missing(
    opened: Opened, source: FakeSource
) -> None:
    source.feed.engine = "missing"
    async with opened(study=None) as (app, pilot):
        assert "engine not running" in screen_text(app)
        await press(app, pilot, "enter")
        await app.workers.wait_for_complete()
        await settle(app, pilot)
        assert isinstance(app.screen, TrialsScreen)
        assert source.asked == [("start", FOLDER)]


async def test_a_machine_without_studies_says_how_to_begin(
    opened: Opened, source: FakeSource
) -> None:
    source.feeds.clear()
    async with opened(study=None) as (app, _):
        assert "d runs the demo" in screen_text(app)


async def test_the_demo_is_created_and_shown(opened: Opened, source: FakeSource) -> None:
    async with opened(study=None) as (app, pilot):
        await press(app, pilot, "d")
        await app.workers.wait_for_complete()
        await settle(app, pilot)
        assert source.asked == [("create", "the demo's profile")]
        assert isinstance(app.screen, TrialsScreen)


async def test_a_study_that_runs_is_not_deleted(opened: Opened, source: FakeSource) -> None:
    async with opened(study=None) as (app, pilot):
        await press(app, pilot, "D")
        assert "2 trials running: stop it first" in screen_text(app)
    assert source.asked == []


async def test_deleting_is_confirmed_and_what_hinders_it_is_said(
    opened: Opened, source: FakeSource
) -> None:
    async with opened(study=None) as (app, pilot):
        await press(app, pilot, "down", "D")
        assert isinstance(app.screen, ConfirmDialog)
        assert "/studies/first-try" in screen_text(app)
        await press(app, pilot, "n")
        assert source.asked == []
        source.refuse = "it is in use by its daemon: stop the study first"
        await press(app, pilot, "D", "y")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "in use by its daemon" in screen_text(app)
        source.refuse = ""
        await press(app, pilot, "D", "y")
        await app.workers.wait_for_complete()
        await settle(app, pilot)
        assert "first-try is deleted." in screen_text(app)
        screen = app.screen
        assert isinstance(screen, StudiesScreen) and screen.table.row_count == 1


async def test_the_filter_narrows_the_list(opened: Opened) -> None:
    async with opened(study=None) as (app, pilot):
        await press(app, pilot, "slash", *"finish", "enter")
        screen = app.screen
        assert isinstance(screen, StudiesScreen)
        assert [row.key for row in screen.table.rows] == ["/studies/first-try"]
        await press(app, pilot, "escape")
        assert screen.table.row_count == 2


async def test_new_studies_are_found_again_with_r(opened: Opened, source: FakeSource) -> None:
    async with opened(study=None) as (app, pilot):
        first = source.feeds.pop(FOLDER)
        await press(app, pilot, "r")
        assert "1 study found." in screen_text(app)
        source.feeds[FOLDER] = first
        await press(app, pilot, "r")
        assert "2 studies found." in screen_text(app)
