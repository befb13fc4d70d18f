"""The ranking, and what is made of the winner."""

from pathlib import Path
from typing import Any

import pytest

from core.engine.messages import Request
from tests.tui.fake import FakeSource
from tests.tui.screens.conftest import Opened, paste, screen_text, settle
from tui.screens.confirm import ConfirmDialog, TextDialog
from tui.screens.results import ResultsScreen
from tui.screens.trials import TrialsScreen


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


async def test_trials_stand_in_order_with_their_distance_to_the_best(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "5")
        lines = screen_text(app).splitlines()
    assert "Best: trial 2, eval loss 1.8940, lr 3e-4  rank 16" in lines[1]
    assert "Took 33 % of running all" in lines[2] and "1 diverged, 1 OOM" in lines[2]
    assert lines[4].split()[:3] == ["1", "2", "1.8940"]
    assert lines[5].split()[:4] == ["2", "1", "1.9720", "+0.0780"]
    assert "diverged" in lines[6] and "OOM" in lines[7]


async def test_the_best_curve_is_bright_and_the_field_dim(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "5", "down")
        screen = app.screen
        assert isinstance(screen, ResultsScreen)
        assert screen.wanted().whole == {1, 2}
        drawn = [(p.source.label, p.source.dim) for p in screen.chart._series]
        assert drawn == [("best (2)", False), ("1", False)]
        await press(app, pilot, "down")
        drawn = [(p.source.label, p.source.dim) for p in screen.chart._series]
        assert drawn == [("best (2)", False), ("3", False), ("1", True)]
        await press(app, pilot, "l", "m")
        assert "[log] [smooth]" in screen_text(app)


async def test_a_profile_is_saved_where_one_says(
    opened: Opened, source: FakeSource, tmp_path: Path
) -> None:
    target = tmp_path / "winner.toml"
    async with opened() as (app, pilot):
        await press(app, pilot, "5", "w")
        assert isinstance(app.screen, TextDialog) and "sft-night-2.toml" in screen_text(app)
        await paste(pilot, str(tmp_path))
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, TextDialog) and "add a file" in screen_text(app)
        assert source.asked == []
        await paste(pilot, str(target))
        await pilot.press("enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
    assert source.asked == [("save", 2, target)]


async def test_a_file_is_replaced_only_after_a_yes(
    opened: Opened, source: FakeSource, tmp_path: Path
) -> None:
    target = tmp_path / "winner.toml"
    target.write_text("mine")
    async with opened() as (app, pilot):
        for answer, asked in (("n", []), ("y", [("save", 2, target)])):
            await press(app, pilot, "5", "w")
            await paste(pilot, str(target))
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(app.screen, ConfirmDialog)
            await pilot.press(answer)
            await app.workers.wait_for_complete()
            assert source.asked == asked


async def test_promoting_is_confirmed_with_what_it_costs(
    opened: Opened, source: FakeSource
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "5", "P")
        text = screen_text(app)
        assert "Train fully with the settings of trial 2?" in text
        assert "1200 steps, about 10m 04s" in text
        await press(app, pilot, "y")
        await app.workers.wait_for_complete()
    assert source.asked == [Request("promote", 2)]


async def test_enter_shows_the_trial(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "5", "down", "enter")
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        assert screen.selected is not None and screen.selected.number == 1


@pytest.mark.parametrize(
    ("key", "copied"),
    [
        ("y", "# trial 2\n[train]\nlearning_rate = 0.0003\n"),
        ("c", "tunedeck save /studies/sft-night --trial 2 -o tuned.toml"),
    ],
)
async def test_profile_and_command_are_copied(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, key: str, copied: str
) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    async with opened() as (app, pilot):
        await press(app, pilot, "5", key)
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert app.clipboard == copied
        assert "Copied" in screen_text(app)


async def test_a_study_without_results_says_so(opened: Opened, source: FakeSource) -> None:
    source.feed.state.trials.clear()
    async with opened() as (app, pilot):
        await press(app, pilot, "5")
        assert "No trial has completed yet; 8 trials to go." in screen_text(app)
        await press(app, pilot, "w")
        assert "nothing to choose from" in screen_text(app)
