"""The app itself: screens by digits, help, palette, leaving, and errors that nobody caught."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandPalette
from textual.widget import Widget

from core.study.events import TrialEnded
from tests.tui.fake import NOW, FakeSource
from tests.tui.rest import PATIENCE, Gate
from tests.tui.screens.conftest import screen_text, settle
from tui.actions import ACTIONS
from tui.app import TunedeckApp
from tui.farewell import farewell
from tui.modes import SCREENS
from tui.screens.confirm import MessageDialog
from tui.screens.data import DataScreen
from tui.screens.help import HelpDialog
from tui.screens.lr_range import RangeScreen
from tui.screens.studies import StudiesScreen
from tui.screens.trials import TrialsScreen
from tui.snapshot import StudyReading, study_view
from tui.source import Wanted, shell_path

STUDY = Path("/studies/sft-night")


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


async def test_digits_and_clicks_switch_screens() -> None:
    app = TunedeckApp(FakeSource(), STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        for digit, name in (("1", "studies"), ("4", "gpus"), ("5", "results"), ("3", "trials")):
            await press(app, pilot, digit)
            assert app.current_mode == name
        at = screen_text(app).splitlines()[0].index("GPUs")
        await pilot.click(offset=(at, 0))
        await settle(app, pilot)
        assert app.current_mode == "gpus"


async def test_a_dialog_is_left_behind_when_the_screen_changes() -> None:
    app = TunedeckApp(FakeSource(), STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "S")
        app.action_go("studies")
        await settle(app, pilot)
        assert isinstance(app.screen, StudiesScreen)


async def test_a_click_on_a_key_of_the_footer_does_what_the_key_does() -> None:
    app = TunedeckApp(FakeSource(), STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        at = screen_text(app).splitlines()[-1].index("? keys")
        await pilot.click(offset=(at, 23))
        await settle(app, pilot)
        assert isinstance(app.screen, HelpDialog)


async def test_help_lists_the_keys_of_the_present_screen() -> None:
    app = TunedeckApp(FakeSource(), STUDY)
    async with app.run_test(size=(100, 80)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "question_mark")
        text = screen_text(app)
        for action in ACTIONS:
            if action.context in ("app", "trials", "detail", "table"):
                assert action.words in text
        assert "Delete the study" not in text


async def test_the_palette_finds_an_action_by_its_words() -> None:
    app = TunedeckApp(FakeSource(), STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await pilot.press("ctrl+p", *"ranking")
        group = CommandPalette._GATHER_COMMANDS_GROUP
        while any(w.group == group and not w.is_finished for w in app.workers):
            await pilot.pause(0.02)
        await pilot.press("down", "enter")
        await settle(app, pilot)
        assert app.current_mode == "results"


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_quitting_changes_nothing(key: str) -> None:
    source = FakeSource()
    app = TunedeckApp(source, STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await pilot.press(key)
        await pilot.pause()
        assert not app._running or app._exit
    assert source.asked == []


async def test_a_study_that_is_none_is_said_in_a_sentence() -> None:
    app = TunedeckApp(FakeSource(), Path("/nowhere"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        assert "/nowhere holds no study" in screen_text(app)


async def test_a_long_error_gets_a_box() -> None:
    app = TunedeckApp(FakeSource(), STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        app.fail("first line\nsecond line")
        await pilot.pause()
        assert isinstance(app.screen, MessageDialog)
        assert "second line" in screen_text(app)


async def test_an_error_nobody_caught_ends_with_a_line_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app = TunedeckApp(FakeSource(), STUDY)
    with pytest.raises(ZeroDivisionError):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(app, pilot)
            app.call_later(lambda: 1 / 0)
            await pilot.pause()
    assert app.return_code == 1
    report = (tmp_path / "tunedeck" / "dashboard-error.log").read_text()
    assert "ZeroDivisionError" in report and "Traceback" in report
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_has_its_method(action: Any) -> None:
    if action.context == "table":
        return
    owners = {
        "app": [TunedeckApp],
        "detail": [TrialsScreen],
        "range": [RangeScreen],
        "data": [DataScreen],
    }
    named = owners.get(action.context) or [type(SCREENS[action.context]())]
    assert all(hasattr(owner, f"action_{action.name}") for owner in named)


def test_leaving_says_once_that_the_trials_go_on() -> None:
    source = FakeSource()
    view = study_view(source.feed.read(Wanted()), NOW)
    assert "tunedeck attach /studies/sft-night" in farewell(view)[0]
    finished = source.feeds[Path("/studies/first-try")]
    assert farewell(study_view(finished.read(Wanted()), NOW)) == [] and farewell(None) == []


def test_leaving_a_finished_study_names_the_command_of_the_full_training(tmp_path: Path) -> None:
    reading = FakeSource().feed.read(Wanted())
    done = replace(reading, folder=tmp_path, trials=(), status="finished", engine="idle")
    assert farewell(study_view(done, NOW)) == []
    (tmp_path / "tuned.toml").touch()
    assert f"tunedeck train {tmp_path / 'tuned.toml'}" in farewell(study_view(done, NOW))[0]


def test_a_path_in_a_command_is_one_that_a_shell_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert shell_path(tmp_path / "my study") == "~/'my study'"
    assert shell_path(tmp_path / "plain") == "~/plain"


async def test_trouble_is_said_while_one_watches() -> None:
    source = FakeSource()
    app = TunedeckApp(source, STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        source.feed.tell(
            TrialEnded(t=NOW, trial=5, attempt=1, ending="diverged", reason="loss rose to 9")
        )
        app.poll_soon()
        await settle(app, pilot)
        assert "Trial 5 diverged: loss rose to 9" in screen_text(app)


async def test_nothing_is_asked_of_a_study_that_cannot_be_read() -> None:
    source = FakeSource()
    app = TunedeckApp(source, STUDY)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        assert app.view is not None
        reading = replace(app.view.reading, problem="the study was moved or deleted")
        app._show(study_view(reading, NOW))
        await press(app, pilot, "p")
        assert source.asked == [] and "moved or deleted" in screen_text(app)


async def test_a_reading_that_ends_while_the_dashboard_closes_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = FakeSource()
    app = TunedeckApp(source, STUDY)
    closing, read, prune = Gate(), source.feed.read, app._prune

    def read_slowly(wanted: Wanted) -> StudyReading:
        closing.wait(PATIENCE)
        return read(wanted)

    async def let_it_end(root: Widget) -> None:
        await prune(root)
        closing.set()
        await app.workers.wait_for_complete()

    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        source.feed.tell(
            TrialEnded(t=NOW, trial=5, attempt=1, ending="diverged", reason="loss rose to 9")
        )
        monkeypatch.setattr(source.feed, "read", read_slowly)
        monkeypatch.setattr(app, "_prune", let_it_end)
        app.poll_soon()
        await pilot.pause()
