"""The list of studies: open, start, delete."""

from pathlib import Path
from typing import Any

import pytest

from tests.tui.fake import FOLDER, FakeSource
from tests.tui.rest import PATIENCE, Gate
from tests.tui.screens.conftest import Opened, screen_text, settle
from tui.screens.confirm import ConfirmDialog
from tui.screens.studies import StudiesScreen
from tui.screens.trials import TrialsScreen
from tui.snapshot import StudySummary


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


async def test_a_study_that_is_deleted_while_the_list_is_read_is_not_left_in_it(
    opened: Opened, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(study=None) as (app, pilot):
        await press(app, pilot, "down", "D")
        listed, summary = Gate(), source.summary

        def summary_of_before(folder: Path) -> StudySummary:
            found = summary(folder)
            listed.wait(PATIENCE)
            return found

        monkeypatch.setattr(source, "summary", summary_of_before)
        app.refresh_studies()
        await pilot.pause()
        await pilot.press("y")
        await pilot.pause()
        assert ("delete", Path("/studies/first-try")) in source.asked
        listed.set()
        await settle(app, pilot)
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


async def test_a_recipe_whose_step_did_not_come_is_opened_with_a_word_and_its_trouble(
    opened: Opened, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("/studies/shop")
    waits = StudySummary(folder, "1/3 general of recipe-domain", "not begun", problem="no data")
    monkeypatch.setattr(source, "studies", lambda: [folder, FOLDER])
    real = source.summary
    monkeypatch.setattr(source, "summary", lambda f: waits if f == folder else real(f))
    told: list[str] = []
    say = StudiesScreen.say

    def noted(screen: StudiesScreen, text: str, *rest: Any) -> None:
        told.append(text)
        say(screen, text, *rest)

    monkeypatch.setattr(StudiesScreen, "say", noted)
    async with opened(study=None) as (app, pilot):
        row = next(line for line in screen_text(app).splitlines() if "1/3 general" in line)
        assert "1/3 general of recipe-domain" in row and "not begun" in row, "whose step it is"
        await press(app, pilot, "enter")
        await app.workers.wait_for_complete()
        await settle(app, pilot)
        assert "holds no study" in screen_text(app)
    assert told[0] == "Beginning this step of the recipe."
