"""Memory on the Trials and GPUs screens: endings, fixes to pick from, and what was held against the forecast."""

from typing import Any

import pytest
from rich.text import Text

from core.devices.gpu import GpuReading
from core.engine.messages import Request
from core.study.events import (
    AdviceAsked,
    AdviceGiven,
    FixOption,
    FixSuggested,
    TrialEnded,
)
from tests.tui.fake import NOW, FakeSource, gpu, trial_forecast
from tests.tui.screens.conftest import Opened, painting, screen_text, settle
from tui.screens.trial_detail import TrialDetail
from tui.screens.trials import TrialsScreen

GIB = 2**30
SMALLER = FixOption(
    changes={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    text="batch per device 8 → 4, accumulation 2 → 4",
    needed=int(17.2 * GIB),
    headroom=int(5.9 * GIB),
    slowdown=(1.0, 1.06),
    effect="the same result",
    proven=True,
)
FOUR_BITS = FixOption(
    changes={"quantization_bit": 4},
    text="4-bit weights",
    needed=9 * GIB,
    headroom=14 * GIB,
    slowdown=(1.3, 1.6),
    numerics="different",
    effect="the weights are rounded",
)


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


def suggest(source: FakeSource, *fixes: FixOption, trial: int = 4) -> None:
    first = fixes[0]
    source.feed.tell(
        AdviceGiven(t=NOW, trial=trial, attempt=1, about="fix", text="activations hold 63 %"),
        FixSuggested(
            t=NOW, trial=trial, attempt=1, changes=first.changes, text=first.text, fixes=fixes
        ),
    )


async def test_a_trial_that_does_not_fit_is_named_and_found(
    opened: Opened, source: FakeSource
) -> None:
    reason = "proven not to fit: needs 31.2 GiB, GPU 0 has 23.1 GiB free"
    source.feed.tell(TrialEnded(t=NOW, trial=7, attempt=1, ending="skipped", reason=reason))
    async with opened(size=(120, 36)) as (app, pilot):
        assert "□ won't fit" in screen_text(app)
        await press(app, pilot, "slash", *"state:skipped", "enter")
        assert isinstance(app.screen, TrialsScreen)
        assert [row.key for row in app.screen.table.rows] == ["7"]
        text = screen_text(app)  # The advice stands beside the chart of a trial in trouble.
        assert "It was not started" in text and "needs 31.2 GiB" in text
        assert "f  starts it all the same" in text


async def test_while_a_fix_is_looked_for_it_says_so(opened: Opened, source: FakeSource) -> None:
    async with opened() as (app, pilot):
        source.feed.tell(
            TrialEnded(t=NOW, trial=5, attempt=1, ending="oom", reason="CUDA out of memory"),
            AdviceAsked(t=NOW, trial=5, attempt=1, about="fix"),
        )
        app.poll_soon()
        await settle(app, pilot)
        assert "looking for a fix that fits" in screen_text(app)
        await press(app, pilot, "shift+tab")
        assert "Looking for a fix that fits: dry runs" in screen_text(app)
        assert "f  tries again" not in screen_text(app)


async def test_ascii_means_ascii_for_advice_and_fixes_too(
    opened: Opened, source: FakeSource
) -> None:
    suggest(source, SMALLER, FOUR_BITS)
    source.feed.tell(AdviceAsked(t=NOW, trial=8, attempt=1, about="start"))
    async with opened(size=(120, 36), ascii=True) as (app, pilot):
        await press(app, pilot, "up")
        assert "batch per device 8 -> 4, accumulation 2 -> 4" in screen_text(app).lower()
        for key in ("f", "escape", "end", "tab"):
            await press(app, pilot, key)
            assert screen_text(app).isascii()
        assert "a dry run finds out whether it fits..." in screen_text(app)


async def test_the_advice_lists_the_fixes_with_what_they_need_and_cost(
    opened: Opened, source: FakeSource
) -> None:
    suggest(source, SMALLER, FOUR_BITS)
    async with opened(size=(160, 45)) as (app, pilot):
        await press(app, pilot, "up")
        text = screen_text(app)
        for words in (
            "Activations hold 63 %.",
            "1 Batch per device 8 → 4",
            "needs 17.2 GiB (proven), 5.9 GiB to spare; up to 6 %",
            "2 4-bit weights",
            "Changes the result: the weights are rounded",
            "f  tries again with one of them",
        ):
            assert words in text


@pytest.mark.parametrize(
    ("key", "chosen"), [("enter", 1), ("1", 1), ("2", 2), ("3", 0), ("escape", None)]
)
async def test_of_several_fixes_one_is_picked(
    opened: Opened, source: FakeSource, key: str, chosen: int | None
) -> None:
    suggest(source, SMALLER, FOUR_BITS)
    async with opened() as (app, pilot):
        await press(app, pilot, "up", "f")
        assert "Try trial 4 again" in screen_text(app)
        assert "Activations hold 63 %." in screen_text(app)
        assert source.asked == []
        await press(app, pilot, key)
        wanted = [] if chosen is None else [Request("retry", 4, fix=chosen)]
        assert source.asked == wanted


async def test_a_single_fix_with_the_same_result_is_tried_at_once(
    opened: Opened, source: FakeSource
) -> None:
    suggest(source, SMALLER)
    async with opened() as (app, pilot):
        await press(app, pilot, "up", "f")
        assert source.asked == [Request("retry", 4)]


async def test_a_single_fix_that_changes_the_result_is_asked_about(
    opened: Opened, source: FakeSource
) -> None:
    suggest(source, FOUR_BITS)
    async with opened() as (app, pilot):
        await press(app, pilot, "up", "f")
        assert source.asked == [] and "Changes the result" in screen_text(app)
        await press(app, pilot, "2")
        assert source.asked == [Request("retry", 4, fix=0)]


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 36), (200, 50)])
async def test_memory_is_drawn_against_its_forecast(opened: Opened, size: tuple[int, int]) -> None:
    async with opened(size=size) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        assert screen.wanted().memory is None
        screen.detail.show_pane("memory")
        screen.action_open_trial()
        await press(app, pilot, "comma", "full_stop")
        assert screen.wanted().memory == 5
        text = screen_text(app)
        assert "peak" in text and "reserved" in text and "forecast" in text


async def test_the_keys_of_the_chart_reach_the_memory_where_it_stands_alone(
    opened: Opened,
) -> None:
    async with opened() as (app, pilot):
        await press(app, pilot, "tab", "tab", "tab", "left")
        assert "step 85" in screen_text(app) and "peak 11.2" in screen_text(app)


async def test_a_trial_without_a_forecast_shows_what_was_measured(
    opened: Opened, source: FakeSource
) -> None:
    source.feed.forecasts = {}
    async with opened(size=(160, 45)) as (app, pilot):
        await press(app, pilot, "tab", "tab")
        text = screen_text(app)
        assert "peak" in text and "forecast" not in text and "limit" not in text


async def test_the_forecast_and_what_came_of_it_stand_among_the_settings(
    opened: Opened, source: FakeSource
) -> None:
    source.feed.tell(
        TrialEnded(
            t=NOW, trial=6, attempt=1, ending="completed", loss=1.9, eval_loss=1.95,
            peak_memory=int(17.4 * GIB), forecast=int(17.2 * GIB), proven=True,
        )
    )  # fmt: skip
    async with opened(size=(160, 45)) as (app, pilot):
        assert "forecast 11.0, measured 11.2 GiB" in screen_text(app)
        await press(app, pilot, "down")
        assert "forecast 17.2, measured 17.4 GiB" in screen_text(app)


async def test_nothing_is_painted_while_the_memory_stays(opened: Opened) -> None:
    async with opened(size=(160, 45)) as (app, pilot):
        await press(app, pilot, "tab", "tab")
        async with painting(app) as painted:
            for _ in range(3):
                app.poll_soon()
                await settle(app, pilot)
            assert painted == []


@pytest.mark.parametrize("ascii", [False, True])
async def test_a_gpu_shows_where_its_trials_should_come_to(
    opened: Opened, source: FakeSource, ascii: bool
) -> None:
    source.feed.forecasts = {5: trial_forecast(), 6: trial_forecast(needed=5 * GIB)}
    async with opened(ascii=ascii) as (app, pilot):
        await press(app, pilot, "4")
        line = next(row for row in screen_text(app).splitlines() if "forecast" in row)
        assert "17.4 GiB" in line and "more is in use" not in line
        assert ("|" if ascii else "│") in line
        source.reading = GpuReading((gpu(memory_used=20 * GIB),))
        await press(app, pilot, "3", "4")
        assert "more is in use" in screen_text(app)
        await press(app, pilot, "c")


async def test_a_gpu_without_forecasts_has_no_such_line(opened: Opened, source: FakeSource) -> None:
    source.feed.forecasts = {}
    async with opened() as (app, pilot):
        await press(app, pilot, "4")
        assert "forecast" not in screen_text(app)


async def test_after_the_memory_a_text_is_read_from_its_beginning(opened: Opened) -> None:
    async with opened(size=(80, 24)) as (app, pilot):
        detail = app.screen.query_one(TrialDetail)
        await press(app, pilot, "3")
        detail.show_pane("log")
        detail.pane.set_lines([Text(str(number)) for number in range(400)], follow=True)
        await settle(app, pilot)
        detail.show_pane("memory")
        await settle(app, pilot)
        detail.show_pane("advice")
        await settle(app, pilot)
        first = detail.pane.plain.splitlines()[0]
        assert first and first in screen_text(app)
