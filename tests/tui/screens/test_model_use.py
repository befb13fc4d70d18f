"""The commands for a trial's model, picked in the dashboard and copied."""

from collections.abc import Iterator

import pytest

from core.study.events import TrialAdded, TrialEnded
from core.study.state import apply
from tests.tui.fake import NOW, FakeSource
from tests.tui.screens.conftest import Opened, screen_text, settle
from tui.screens.pick import PickDialog


@pytest.fixture
def trained(source: FakeSource) -> Iterator[FakeSource]:
    """The study with a full training of trial 2."""
    for event in (
        TrialAdded(t=NOW, trial=20, settings={}, kind="full", source="promote", parent=2),
        TrialEnded(t=NOW, trial=20, attempt=1, ending="completed", value=1.8),
    ):
        apply(source.feed.state, event)
    yield source


@pytest.mark.parametrize("screen", ["3", "5"])
async def test_the_command_for_the_model_is_copied(
    screen: str, opened: Opened, trained: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    async with opened() as (app, pilot):
        await pilot.press(screen)
        await settle(app, pilot)
        if screen == "3":
            await pilot.press("end")
        await pilot.press("o")
        await settle(app, pilot)
        assert isinstance(app.screen, PickDialog)
        assert "model of trial 20" in screen_text(app)
        await pilot.press("down", "enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert app.clipboard == "tunedeck chat /studies/sft-night --trial 20"


async def test_a_probe_alone_has_no_model(opened: Opened) -> None:
    async with opened(size=(100, 24)) as (app, pilot):
        await pilot.press("5", "o")
        await settle(app, pilot)
        assert not isinstance(app.screen, PickDialog)
        assert "keeps no weights" in screen_text(app)
