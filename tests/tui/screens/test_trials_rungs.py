"""The Trials screen over a search that stops trials early: rungs, stalls, the doctor's words."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from core.engine.messages import Request
from core.study.events import StudyChanged, StudyCreated, TrialAdded, TrialEnded, TrialStalled
from core.study.state import StudyState
from tests.tui.fake import FOLDER, NOW, FakeSource, _start
from tests.tui.fake_range import range_view
from tests.tui.rungs_fake import DECIDED, FINDING, STALLED, source
from tests.tui.screens.conftest import paste, screen_text, settle
from tui.app import TunedeckApp
from tui.screens.confirm import ConfirmDialog, MessageDialog
from tui.screens.lr_range import RangeScreen
from tui.screens.pick import PickDialog
from tui.screens.trials import TrialsScreen

SIZES = [(80, 24), (160, 45)]
Shown = Callable[..., AbstractAsyncContextManager[tuple[TunedeckApp, Any]]]


@asynccontextmanager
async def shown(
    made: FakeSource, size: tuple[int, int] = (80, 24), *, ascii: bool = False
) -> AsyncIterator[tuple[TunedeckApp, Any]]:
    app = TunedeckApp(made, FOLDER, ascii=ascii)
    async with app.run_test(size=size) as pilot:
        await settle(app, pilot)
        yield app, pilot


async def press(app: TunedeckApp, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


def trials(app: TunedeckApp) -> TrialsScreen:
    assert isinstance(app.screen, TrialsScreen)
    return app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_rows_say_who_waits_who_was_dropped_and_who_stalls(size: tuple[int, int]) -> None:
    async with shown(source(), size) as (app, _):
        text = screen_text(app)
    for said in ("◇ at rung 2", "↓ dropped 1", "▷ stalled", "1 k", DECIDED, "1 at a rung"):
        assert said in text


async def test_ascii_has_signs_of_its_own() -> None:
    async with shown(source(), ascii=True) as (app, _):
        text = screen_text(app)
    assert "~ at rung 2" in text and "v dropped 1" in text and text.isascii()


@pytest.mark.parametrize("size", SIZES)
async def test_the_doctor_speaks_beside_the_chart_and_says_what_to_do(
    size: tuple[int, int],
) -> None:
    async with shown(source(), size) as (app, pilot):
        assert FINDING.text in screen_text(app)
        await press(app, pilot, "shift+tab")
        assert "Lower learning_rate from 6e-4 to 3e-4." in screen_text(app)
        await press(app, pilot, "down")
        assert "doctor" not in screen_text(app)


async def test_the_doctor_does_not_repeat_why_a_trial_was_ended() -> None:
    made, reason = source(), "2.21 against 1.95 of the last one kept"
    made.feed.findings[4] = replace(FINDING, text=reason, advice="lower the rate")
    async with shown(made) as (app, pilot):
        await press(app, pilot, "down", "down", "down")
        assert screen_text(app).count(reason) == 1
        await press(app, pilot, "shift+tab")
        assert screen_text(app).count(reason) == 1 and "Lower the rate." in screen_text(app)


async def test_in_ascii_what_a_study_came_to_is_spelled_in_ascii() -> None:
    made = source()
    reason = "no trial completed: 4 diverged at learning rates ≥ 40"
    made.feed.tell(StudyChanged(t=NOW, status="paused", reason=reason))
    async with shown(made, ascii=True) as (app, _):
        assert "rates >= 40" in screen_text(app)


async def test_the_detail_says_where_a_trial_was_dropped_and_why() -> None:
    async with shown(source()) as (app, pilot):
        await press(app, pilot, "down", "down", "down")
        assert "2.21 against 1.95 of the last one kept" in screen_text(app)
        await press(app, pilot, "tab", "enter")
        text = screen_text(app)
        assert "rungs, eval loss" in text and "2.2100 at 10 %, step 12" in text
        assert "dropped at rung 1" in text


async def test_the_detail_of_a_stalled_and_of_a_known_good_trial_says_so() -> None:
    async with shown(source(), (160, 45)) as (app, pilot):
        assert "known-good settings, tried first" in screen_text(app)
        await press(app, pilot, "down", "down")
        assert STALLED in screen_text(app)


async def test_a_trial_that_waits_at_its_rung_says_that_it_holds_no_gpu() -> None:
    async with shown(source(), (160, 45)) as (app, pilot):
        await press(app, pilot, "down", "shift+tab")
        text = screen_text(app)
        assert "waits at rung 2 (30 % of the probe), with a checkpoint" in text
        assert "holds no GPU" in text


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("state:dropped", ["4", "5", "6"]),
        ("state:rung", ["2"]),
        ("stalled", ["3"]),
        ("source:portfolio", ["1", "2", "3"]),
        ("rung>1", ["2"]),
    ],
)
async def test_the_filter_knows_the_new_states(query: str, kept: list[str]) -> None:
    async with shown(source()) as (app, pilot):
        await press(app, pilot, "slash")
        await paste(pilot, query)
        await press(app, pilot, "enter")
        assert [row.key for row in trials(app).table.rows] == kept


async def test_sorting_by_state_puts_what_goes_on_first() -> None:
    async with shown(source()) as (app, pilot):
        await press(app, pilot, "s")
        assert [row.key for row in trials(app).table.rows][:4] == ["1", "3", "2", "8"]


async def test_decisions_with_everybody_dropped_stand_among_what_the_engine_said() -> None:
    async with shown(source()) as (app, pilot):
        await press(app, pilot, "w")
        assert isinstance(app.screen, MessageDialog)
        assert "trial 5 is dropped: 2.02 against 1.95" in app.screen._text
        assert "How it is searched: portfolio" in app.screen._text


async def test_a_stall_and_its_end_are_news() -> None:
    made = source()
    async with shown(made) as (app, pilot):
        made.feed.tell(TrialStalled(t=NOW, trial=1, attempt=2, text="nothing logged for 7 min"))
        app.poll_soon()
        await settle(app, pilot)
        assert "Trial 1 stalls: nothing logged for 7 min" in screen_text(app)
        made.feed.tell(TrialStalled(t=NOW, trial=3, attempt=2))
        app.poll_soon()
        await settle(app, pilot)
        assert "3 k ▶ running" in screen_text(app)


async def test_second_runs_name_their_trial() -> None:
    made = source()
    made.feed.tell(
        TrialAdded(t=NOW, trial=9, settings={"learning_rate": 3e-4, "seed": 7}, source="confirm", parent=1)
    )  # fmt: skip
    async with shown(made, (160, 45)) as (app, pilot):
        assert "9 c" in screen_text(app)
        assert "seed" not in {column.key for column in trials(app)._columns}
        trials(app).select(9)
        await settle(app, pilot)
        assert "trial 1 once more, with another seed" in screen_text(app)


async def test_a_kept_checkpoint_lets_the_full_training_go_on_from_it() -> None:
    made = source()
    ended = TrialEnded(
        t=NOW, trial=1, attempt=2, ending="completed", step=120, total_steps=120, loss=1.8,
        eval_loss=1.81, value=1.81, seconds=60.0, checkpoint="checkpoints/checkpoint-120",
    )  # fmt: skip
    made.feed.tell(ended)
    async with shown(made) as (app, pilot):
        trials(app).select(1)
        await settle(app, pilot)
        await press(app, pilot, "P")
        assert isinstance(app.screen, PickDialog)
        text = screen_text(app)
        assert "120 of 1200 steps are done" in text and "down to 1.5e-4 may end" in text
        await press(app, pilot, "down", "enter")
        await app.workers.wait_for_complete()
    assert made.asked == [Request("promote", 1, continues=True)]


async def test_without_one_the_horizon_is_told_before_it_starts_anew() -> None:
    made = source()
    made.feed.tell(replace_checkpoint(made))
    async with shown(made) as (app, pilot):
        trials(app).select(1)
        await settle(app, pilot)
        await press(app, pilot, "P")
        assert isinstance(app.screen, ConfirmDialog)
        assert "1.5e-4 may end better" in screen_text(app).replace("\n", " ")
        await press(app, pilot, "y")
        await app.workers.wait_for_complete()
    assert made.asked == [Request("promote", 1)]


def replace_checkpoint(made: FakeSource) -> TrialEnded:
    """Trial 1 completes and keeps nothing."""
    return TrialEnded(
        t=NOW, trial=1, attempt=2, ending="completed", step=120, total_steps=120, value=1.81,
        eval_loss=1.81, seconds=60.0,
    )  # fmt: skip


def range_study() -> FakeSource:
    made = FakeSource()
    feed = made.feed
    feed.state, feed.metrics, feed.engine = StudyState(), {}, "idle"
    feed.tell(
        StudyCreated(
            t=NOW - 90, version=3, name="rates", tunedeck="0.2.0", rank_by="loss", planned=1
        ),
        TrialAdded(t=NOW - 90, trial=1, settings={}, kind="range", source="user"),
        *_start(1),
        TrialEnded(t=NOW - 9, trial=1, attempt=1, ending="completed", step=100, total_steps=100),
        StudyChanged(t=NOW - 9, status="finished"),
    )
    made.watch.view = replace(range_view(100), folder=FOLDER)
    return made


async def test_enter_on_a_range_test_shows_its_curve() -> None:
    async with shown(range_study()) as (app, pilot):
        text = screen_text(app)
        assert "1 R" in text and "shows the loss over the rates" in text
        await press(app, pilot, "enter")
        await pilot.pause()
        assert isinstance(app.screen, RangeScreen)
        assert "Suggested:" in screen_text(app)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    app = TunedeckApp(source(), FOLDER)

    async def wait(pilot: Any) -> None:
        await settle(app, pilot)

    assert snap_compare(app, terminal_size=size, run_before=wait)
