"""Configure's search: what it costs, and the learning-rate range test behind a key."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.profile import resolve
from core.study.files import RangeTest
from tests.tui.fake_range import FOLDER, range_view
from tests.tui.screens.configure_app import Deck, configure_app, deck, settle
from tests.tui.screens.conftest import screen_text
from tui.plan import PastTime
from tui.screens.configure import ConfigureScreen
from tui.screens.confirm import MessageDialog, TextDialog
from tui.screens.lr_range import RangeScreen
from tui.widgets.plan_bar import PlanBar

SIZES = [(80, 24), (160, 45)]
RATE = "train.learning_rate"


async def ready(d: Deck) -> None:
    """A draft of which nothing is wrong."""
    draft = d.screen.draft.with_text("model.model_name_or_path", "demo")
    draft = draft.with_text("data.dataset", "demo").with_text("data.val_size", "0.1")
    d.screen._change(draft)
    await settle(d.pilot)


async def start_test(d: Deck) -> RangeScreen:
    """The screen of a test that has just been started with the proposed rates."""
    await ready(d)
    await d.press("l")
    assert d.dialog == "TextDialog"
    await d.press("enter")
    await settle(d.pilot)
    screen = d.pilot.app.screen
    assert isinstance(screen, RangeScreen)
    screen.look_soon()
    await settle(d.pilot)
    return screen


@pytest.mark.parametrize("size", SIZES)
async def test_the_bar_says_how_the_search_runs_and_what_it_costs(size: tuple[int, int]) -> None:
    async with deck(resolve("lora-small"), size) as d:
        await ready(d)
        text = d.screen.query_one(PlanBar).text
        assert "full trainings instead of 1.2" in text
        assert "search grid: as the profile says; halving: 5 trials are" in text
        assert all(len(line) <= size[0] for line in text.splitlines())


async def test_time_is_told_by_a_study_of_the_same_training() -> None:
    async with deck(resolve("lora-small"), (160, 45)) as d:
        d.source.past = PastTime(3600.0, "night")
        await ready(d)
        assert "GPU time ≈ " in d.screen.query_one(PlanBar).text
        assert "(by night)" in d.screen.query_one(PlanBar).text
        numbers = d.screen.plan
        assert numbers.expected is not None and numbers.seconds == 3600.0 * numbers.expected
        d.source.past = None
        await d.at("data.cutoff_len")
        d.screen._change(d.screen.draft.with_text("data.cutoff_len", "64"))
        await settle(d.pilot)
        assert "GPU time" not in d.screen.query_one(PlanBar).text


async def test_what_is_started_is_told_with_its_choice_and_cost() -> None:
    async with deck(resolve("lora-small"), (160, 45)) as d:
        await ready(d)
        await d.press("r")
        await settle(d.pilot)
        text = screen_text(d.pilot.app)  # type: ignore[arg-type]
        assert "Start 5 trials?" in text and "halving: 5 trials are compared" in text
        assert "full trainings instead of 1.2" in text


async def test_the_whole_choice_stands_in_the_explanation_of_the_strategy() -> None:
    async with deck(resolve("lora-small")) as d:
        await ready(d)
        await d.at("search.strategy")
        await d.press("h")
        assert isinstance(d.pilot.app.screen, MessageDialog)
        assert "This search: grid: as the profile says; halving:" in d.pilot.app.screen._text


@pytest.mark.parametrize("size", SIZES)
async def test_a_key_tests_learning_rates_with_the_draft_as_it_is(size: tuple[int, int]) -> None:
    async with deck(resolve("lora-small"), size) as d:
        screen = await start_test(d)
        profile, test = d.source.tested[0]
        assert test == RangeTest(1e-7, 1.0, 100)
        assert profile.model.model_name_or_path == "demo"
        text = screen_text(d.pilot.app)  # type: ignore[arg-type]
        assert "running" in text and "update 60 of 100" in text and "1e-5" in text
        assert screen.shown is not None and screen.shown.folder == FOLDER


async def test_it_can_be_read_in_the_smallest_terminal_and_in_ascii() -> None:
    async with deck(resolve("lora-small"), (60, 15), ascii=True) as d:
        d.source.watch.view = range_view(100)
        await start_test(d)
        text = screen_text(d.pilot.app)  # type: ignore[arg-type]
        assert text.isascii() and "[=]" in text and "Suggested" in text


async def test_a_test_whose_study_is_gone_says_so() -> None:
    async with deck(resolve("lora-small")) as d:
        screen = await start_test(d)
        d.source.watch.view = replace(
            d.source.watch.view, ended=True, problem="the study is gone: moved or deleted"
        )
        screen.look_soon()
        await settle(d.pilot)
        assert "moved or deleted" in screen_text(d.pilot.app)  # type: ignore[arg-type]


async def test_the_curve_grows_while_one_watches_and_what_it_says_can_be_taken_over() -> None:
    async with deck(resolve("lora-small")) as d:
        screen = await start_test(d)
        await d.press("enter")
        assert screen.is_current and "still runs" in screen.message
        d.source.watch.view = range_view(100)
        screen.look_soon()
        await settle(d.pilot)
        text = screen_text(d.pilot.app)  # type: ignore[arg-type]
        assert "diverges" in text and "Suggested:" in text
        reading = d.source.watch.view.reading
        assert reading is not None and reading.low is not None and reading.high is not None
        await d.press("enter")
        assert d.screen.is_current
        entry = d.screen.draft.space[RATE]
        assert entry.endswith(" log") and float(entry.split(" ")[0]) == reading.low
        assert d.screen.form.current == RATE and "u takes that back" in d.screen.message
        await d.press("u")
        assert d.screen.draft.space[RATE] != entry


async def test_leaving_the_screen_leaves_the_test_running_and_the_key_shows_it_again() -> None:
    async with deck(resolve("lora-small")) as d:
        await start_test(d)
        await d.press("escape")
        assert d.screen.is_current and "l shows it again" in d.screen.message
        d.source.watch.view = range_view(100)
        await d.press("l")
        await settle(d.pilot)
        assert isinstance(d.pilot.app.screen, RangeScreen) and len(d.source.tested) == 1


async def test_another_training_is_tested_anew() -> None:
    async with deck(resolve("lora-small")) as d:
        await start_test(d)
        await d.press("escape")
        d.screen._change(d.screen.draft.with_text("method.lora_rank", "4"))
        await settle(d.pilot)
        await d.press("l")
        assert d.dialog == "TextDialog"


async def test_n_asks_for_another_test_at_other_rates() -> None:
    async with deck(resolve("lora-small")) as d:
        await start_test(d)
        await d.press("n")
        dialog = d.pilot.app.screen
        assert isinstance(dialog, TextDialog)
        dialog.query_one("#answer").value = "1e-3 .. 1e-5, 50"  # type: ignore[attr-defined]
        await d.press("enter")
        assert d.dialog == "TextDialog" and len(d.source.tested) == 1
        dialog.query_one("#answer").value = "1e-5 .. 1e-2, 50"  # type: ignore[attr-defined]
        await d.press("enter")
        await settle(d.pilot)
        assert d.source.tested[1][1] == RangeTest(1e-5, 1e-2, 50)


async def test_a_test_that_cannot_start_or_fails_says_why() -> None:
    async with deck(resolve("lora-small")) as d:
        await ready(d)
        d.source.refuse = "the daemon cannot be started: no room"
        await d.press("l", "enter")
        await settle(d.pilot)
        assert d.screen.is_current and "no room" in d.screen.message
        d.source.refuse = ""
        screen = await start_test(d)
        d.source.watch.fail("CUDA out of memory: 23.1 of 23.6 GiB were in use")
        screen.look_soon()
        await settle(d.pilot)
        text = screen_text(d.pilot.app)  # type: ignore[arg-type]
        assert "CUDA out of memory" in text and "makes another test" in text
        await d.press("enter")
        assert screen.is_current and "No range is suggested" in screen.message


async def test_a_draft_with_problems_is_not_tested() -> None:
    async with deck(None) as d:
        await d.press("l")
        await settle(d.pilot)
        assert d.dialog == "MessageDialog" and d.source.tested == []


async def test_a_running_test_can_be_stopped() -> None:
    async with deck(resolve("lora-small")) as d:
        screen = await start_test(d)
        await d.press("S")
        await settle(d.pilot)
        assert "will stop within seconds" in screen.message
        d.source.watch.view = replace(range_view(60), status="stopped", ended=True)
        screen.look_soon()
        await settle(d.pilot)
        await d.press("S")
        assert "over already" in screen.message


async def test_a_test_of_another_day_fills_an_empty_form(tmp_path: Path) -> None:
    (tmp_path / "profile.toml").write_text(
        '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
    )
    app, _ = configure_app()
    app.source.watch.view = range_view(100)  # type: ignore[attr-defined]
    async with app.run_test(size=(80, 24)) as pilot:
        app.show_range_test(tmp_path)
        await settle(pilot)
        await settle(pilot)
        assert isinstance(app.screen, RangeScreen)
        await pilot.press("enter")
        await settle(pilot)
        form = app.screen
        assert isinstance(form, ConfigureScreen)
        assert form.draft.text("model.model_name_or_path") == "demo" and RATE in form.draft.space
        assert form.unsaved and form._path is None
