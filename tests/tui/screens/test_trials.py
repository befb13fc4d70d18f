"""The Trials screen: what it shows, and what each key does."""

from dataclasses import replace
from typing import Any

import pytest

from core.engine.messages import Reply, Request
from core.study.events import StudyChanged, TrialAdded, TrialEnded
from core.study.metrics import Point
from tests.tui.fake import NOW, FakeSource
from tests.tui.screens.conftest import Opened, painting, paste, screen_text, settle
from tui.screens.confirm import ConfirmDialog, MessageDialog, TextDialog
from tui.screens.trials import TrialsScreen


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


async def test_a_study_is_shown_with_its_state_its_trials_and_the_best_of_them(
    opened: Opened,
) -> None:
    async with opened() as (app, _):
        text = screen_text(app)
    assert "running" in text and "4/8 done" in text and "2 live" in text
    assert "best eval 1.8940 (trial 2)" in text
    for word in ("completed", "diverged", "OOM", "queued", "NaN", "3e-4"):
        assert word in text
    assert "trial 5" in text and "step 85/120" in text


async def test_the_cursor_starts_on_the_first_live_trial(opened: Opened) -> None:
    async with opened() as (app, _):
        assert isinstance(app.screen, TrialsScreen)
        assert app.screen.selected is not None and app.screen.selected.number == 5


async def test_what_a_trial_logs_appears(opened: Opened, source: FakeSource) -> None:
    async with opened() as (app, pilot):
        source.feed.train(5, [Point(t=NOW, step=90, loss=1.7777)])
        app.poll_soon()
        await settle(app, pilot)
        assert "1.7777" in screen_text(app)


async def test_a_trial_that_ends_loses_its_place_among_the_live_ones(
    opened: Opened, source: FakeSource
) -> None:
    async with opened() as (app, pilot):
        source.feed.tell(
            TrialEnded(t=NOW, trial=5, attempt=1, ending="completed", loss=1.5, eval_loss=1.51)
        )
        app.poll_soon()
        await settle(app, pilot)
        text = screen_text(app)
    assert "5/8 done" in text and "1 live" in text and "best eval 1.5100 (trial 5)" in text


@pytest.mark.parametrize(
    ("key", "request_"),
    [
        ("p", Request("pause", 5)),
        ("r", Request("resume", 5)),
        ("f", Request("retry", 5)),
        ("z", Request("pause")),
    ],
)
async def test_a_key_asks_the_engine_at_once(
    opened: Opened, source: FakeSource, key: str, request_: Request
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, key)
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert source.asked == [request_]
        assert f"{request_.command.capitalize()} done." in screen_text(app)


async def test_a_completed_trial_keeps_its_result_when_one_tries_to_retry_it(
    opened: Opened, source: FakeSource
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "home", "f")
        assert source.asked == [] and "nothing to try again" in screen_text(app)


async def test_a_paused_study_goes_on_with_the_same_key(opened: Opened, source: FakeSource) -> None:
    source.feed.tell(StudyChanged(t=NOW, status="paused", reason="the disk is full"))
    async with opened() as (app, pilot):
        assert "paused: the disk is full" in screen_text(app)
        await press(app, pilot, "z")
        await app.workers.wait_for_complete()
    assert source.asked == [Request("resume")]


@pytest.mark.parametrize(
    ("key", "request_"),
    [("S", Request("stop", 5)), ("X", Request("stop")), ("P", Request("promote", 5))],
)
async def test_what_destroys_or_costs_is_asked_first(
    opened: Opened, source: FakeSource, key: str, request_: Request
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, key)
        assert isinstance(app.screen, ConfirmDialog)
        await press(app, pilot, "enter")
        assert not isinstance(app.screen, ConfirmDialog) and source.asked == []
        await press(app, pilot, key, "escape")
        assert source.asked == []
        await press(app, pilot, key, "n")
        assert source.asked == []
        await press(app, pilot, key, "y")
        await app.workers.wait_for_complete()
        assert source.asked == [request_]


async def test_a_trial_that_has_ended_is_not_stopped_again(
    opened: Opened, source: FakeSource
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "home", "S")
        assert "Trial 1 has ended already (completed)." in screen_text(app)
    assert source.asked == []


async def test_a_refusal_and_an_error_are_sentences(opened: Opened, source: FakeSource) -> None:
    source.reply = lambda request: Reply(False, "trial 5 is not paused: there is nothing to resume")
    async with opened() as (app, pilot):
        await press(app, pilot, "r")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "Trial 5 is not paused: there is nothing to resume" in screen_text(app)
        source.refuse = "the daemon of /studies/sft-night cannot be reached. " * 3
        await press(app, pilot, "p")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert isinstance(app.screen, MessageDialog)
        assert "cannot be reached" in screen_text(app)
        await press(app, pilot, "escape")
        assert isinstance(app.screen, TrialsScreen)


async def test_a_trial_is_added_and_what_is_wrong_is_said_while_typing(
    opened: Opened, source: FakeSource
) -> None:
    async with opened() as (app, pilot):
        await pilot.press("a")
        for _ in range(200):
            await pilot.pause(0.02)
            if isinstance(app.screen, TextDialog):
                break
        assert isinstance(app.screen, TextDialog)
        assert "learning_rate=0.0002" in screen_text(app)
        await paste(pilot, "learning_rat=3e-4")
        assert "did you mean" in screen_text(app)
        await pilot.press("enter")
        assert source.asked == []
        await paste(pilot, "learning_rate=-1")
        assert "is not allowed" in screen_text(app)
        await paste(pilot, "learning_rate=3e-4 lora_rank=4")
        await pilot.press("enter")
        await app.workers.wait_for_complete()
    assert source.asked == [Request("add", changes={"learning_rate": 3e-4, "lora_rank": 4})]


async def test_the_filter_leaves_what_matches_and_escape_takes_it_away(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "slash")
        await paste(pilot, "state:diverged")
        await press(app, pilot, "enter")
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        assert [row.key for row in screen.table.rows] == ["3"]
        assert screen.selected is not None and screen.selected.number == 3
        assert screen.table.has_focus
        await press(app, pilot, "escape")
        assert screen.table.row_count == 8


async def test_s_sorts_by_the_next_column_and_i_turns_the_order_round(opened: Opened) -> None:
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        await press(app, pilot, "s", "s")
        assert [row.key for row in screen.table.rows][:2] == ["2", "1"]
        assert "Sorted by eval_loss, smallest first." in screen_text(app)
        await press(app, pilot, "i")
        assert [row.key for row in screen.table.rows][:2] == ["6", "5"]


async def test_a_click_on_a_title_sorts_by_it(opened: Opened) -> None:
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        title = screen_text(app).splitlines()[2].index("rank")
        await pilot.click(screen.table, offset=(title + 1, 0))
        await settle(app, pilot)
        assert [row.key for row in screen.table.rows][:3] == ["1", "3", "7"]


async def test_marked_trials_are_drawn_together(opened: Opened) -> None:
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        await press(app, pilot, "space", "home", "space")
        assert [row.key for row in screen.table.rows if row.marked] == ["1", "5"]
        assert screen.wanted().whole == {1, 5}
        legend = screen_text(app).splitlines()[13]
        assert " 1 " in legend and " 5" in legend
        await press(app, pilot, "u")
        assert not any(row.marked for row in screen.table.rows)


async def test_the_panes_follow_each_other(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "tab")
        assert "differs from the profile" in screen_text(app) and "was 1e-4" in screen_text(app)
        await press(app, pilot, "tab")
        assert "step 85 of 120" in screen_text(app)
        await press(app, pilot, "tab")
        assert "peak" in screen_text(app) and "GiB" in screen_text(app)
        await press(app, pilot, "tab", "up")
        text = screen_text(app)
        assert "It ran out of memory." in text and "tries again with it" in text
        await press(app, pilot, *["shift+tab"] * 4)
        assert "train" in screen_text(app)


async def test_enter_gives_a_trial_the_screen_and_escape_takes_it_back(opened: Opened) -> None:
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        await press(app, pilot, "enter")
        assert screen.large and "completed" not in screen_text(app)
        await press(app, pilot, "comma")
        assert "trial 4" in screen_text(app)
        await press(app, pilot, "full_stop", "full_stop")
        assert "trial 6" in screen_text(app)
        await press(app, pilot, "escape")
        assert not screen.large and screen.table.has_focus


async def test_the_keys_of_the_chart_reach_it(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "l")
        assert "[log]" in screen_text(app)
        await press(app, pilot, "m")
        assert "[smooth]" in screen_text(app)
        await press(app, pilot, "plus")
        assert "[zoom]" in screen_text(app)
        zoomed = screen_text(app)
        await press(app, pilot, "left_square_bracket")
        earlier = screen_text(app)
        assert earlier != zoomed
        await press(app, pilot, "right_square_bracket")
        assert screen_text(app) != earlier
        await press(app, pilot, "0")
        assert "[zoom]" not in screen_text(app)
        await press(app, pilot, "plus", "minus")
        assert "[zoom]" not in screen_text(app)
        await press(app, pilot, "left", "left")
        assert "step 80" in screen_text(app)
        await press(app, pilot, "right")
        assert "step 85" in screen_text(app)
        await press(app, pilot, "escape")
        assert "step 85  " not in screen_text(app)


async def test_a_dead_engine_is_started_on_opening_and_said_when_it_dies_later(
    opened: Opened, source: FakeSource
) -> None:
    source.feed.engine = "missing"
    async with opened() as (app, pilot):
        await app.workers.wait_for_complete()
        await settle(app, pilot)
        assert source.asked == [("start", source.feed.folder)]
        source.feed.engine = "missing"
        app.poll_soon()
        await settle(app, pilot)
        text = screen_text(app)
        assert "engine not running" in text and "e starts it" in text
        await press(app, pilot, "e")
        await app.workers.wait_for_complete()
        assert len(source.asked) == 2


async def test_what_the_engine_said_is_listed(opened: Opened) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "w")
        assert "trial 4: GPU 0 was busy" in screen_text(app)


async def test_a_study_that_cannot_be_read_any_more_says_so_and_shows_what_was_read(
    opened: Opened, source: FakeSource
) -> None:
    async with opened() as (app, pilot):
        source.feed.problem = "/studies/sft-night: the journal is damaged"
        app.poll_soon()
        await settle(app, pilot)
        text = screen_text(app)
    assert "the journal is damaged" in text and "completed" in text


async def test_of_two_thousand_trials_only_those_on_the_screen_are_read(
    opened: Opened, source: FakeSource
) -> None:
    feed = source.feed
    points = feed.metrics[1]
    for number in range(9, 2001):
        feed.tell(
            TrialAdded(t=NOW, trial=number, settings={"learning_rate": number * 1e-6}),
            TrialEnded(t=NOW, trial=number, attempt=1, ending="completed", loss=2.0, eval_loss=2.1),
        )
        feed.metrics[number] = points
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen) and screen.table.row_count == 2000
        assert len(feed.opened) < 60
        await press(app, pilot, "end")
        assert screen.selected is not None and screen.selected.number == 2000
        assert len(feed.opened) < 120


async def test_nothing_is_painted_while_nothing_changes(opened: Opened, source: FakeSource) -> None:
    async with opened() as (app, pilot), painting(app) as painted:
        for _ in range(3):
            app.poll_soon()
            await settle(app, pilot)
        assert painted == []


async def test_the_chart_goes_through_what_the_trial_logs(opened: Opened) -> None:
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        seen = []
        for _ in range(4):
            await press(app, pilot, "v")
            seen.append(screen.detail.measure)
        assert seen == ["grad_norm", "lr", "tokens_per_s", "loss"]
        await press(app, pilot, "v")
        assert "grad_norm" in screen_text(app)
        assert app.view is not None
        screen.show_view(app.view)
        assert screen.detail.measure == "grad_norm"
        other = replace(app.view.reading, folder=app.view.folder / "other")
        screen.show_view(replace(app.view, reading=other))
        assert screen.detail.measure == "loss"
