"""Memory on the Configure screen: the bar as one types, the proof, and the way to make a profile fit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from core.profile import Profile, resolve
from tests.tui.fake_memory import GIB, LENGTHS, FakeDesk, forecast
from tests.tui.screens.configure_app import Deck, deck, settle
from tests.tui.screens.conftest import screen_text
from tui.memory_desk import Remedies
from tui.screens.configure_memory import with_changes
from tui.widgets.memory_bar import MemoryBar

LORA = resolve("lora-small")
BATCH = "train.per_device_train_batch_size"
ACCUMULATION = "train.gradient_accumulation_steps"


def fix(changes: dict[str, Any], text: str, **more: Any) -> Any:
    base: dict[str, Any] = {
        "changes": changes,
        "text": text,
        "forecast": forecast(1, proven=True),
        "headroom": 6 * GIB,
        "slowdown": (1.0, 1.06),
        "source": "measured on an H100",
        "numerics": "equivalent",
        "effect": "the same result",
        "proven": True,
    }
    return SimpleNamespace(**{**base, **more})


SMALLER = fix({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}, "batch 2 → 1")
CHECKPOINTS = fix({"gradient_checkpointing": True}, "gradient checkpointing on")


def remedies(*fixes: Any, faster: Any = None, fits: bool = False, problem: str = "") -> Remedies:
    advice = SimpleNamespace(
        summary="activations hold 43 %: a smaller batch helps",
        fits=fits,
        fixes=fixes,
        forecast=forecast(proven=True),
        problem=problem,
        tried=5,
    )
    return Remedies(advice, LENGTHS, faster)  # type: ignore[arg-type]


def bar(d: Deck) -> str:
    return d.screen.query_one(MemoryBar).text


def shown(d: Deck) -> str:
    return screen_text(d.pilot.app)  # type: ignore[arg-type]


async def answered(d: Deck) -> None:
    """Until no question about memory is under way."""
    await d.pilot.pause()
    groups = ("proof", "fixes", "memory")
    while any(w.group in groups and not w.is_finished for w in d.pilot.app.workers):
        await asyncio.sleep(0.01)
    await settle(d.pilot)


@asynccontextmanager
async def searching(desk: FakeDesk, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Deck]:
    """Configure with the dialog that `f` opened."""
    async with deck(LORA, size, desk=desk) as d:
        await d.press("f")
        await answered(d)
        yield d


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 36), (200, 50)])
async def test_the_forecast_stands_under_the_form_and_follows_what_is_typed(
    size: tuple[int, int],
) -> None:
    async with deck(LORA, size) as d:
        assert "10.0 of 23.6 GiB" in bar(d) and "fits" in bar(d)
        assert ("activations" in bar(d)) == (size[0] >= 120)
        assert len(bar(d).splitlines()) == (3 if size[0] >= 120 else 1)
        await d.at(BATCH)
        await d.press("enter")
        await d.write("16")
        assert "31.0 of 23.6 GiB" in bar(d) and "too much" in bar(d)  # While it is typed.
        await d.press("escape")
        assert "10.0 of 23.6 GiB" in bar(d)


async def test_a_value_that_is_wrong_leaves_the_last_forecast_in_sight() -> None:
    async with deck(LORA) as d:
        await d.at(BATCH)
        await d.press("enter")
        await d.write("many")
        assert "10.0 of 23.6 GiB" in bar(d) and "before the problem" in bar(d)
        await d.write("4")
        assert "13.0 of 23.6 GiB" in bar(d) and "fits (estimate)" in bar(d)


async def test_without_a_model_or_its_config_it_says_why_there_is_no_forecast() -> None:
    async with deck(None) as d:
        assert bar(d) == "memory the forecast needs a model"
        await d.press("f")
        assert "n goes there" in d.screen.message
    why = "the folder /models/x has no config.json"
    async with deck(LORA, desk=FakeDesk(problem=why)) as d:
        assert bar(d) == f"memory no forecast: {why}"
        for key in ("f", "v"):
            await d.press(key)
            assert why in d.screen.message


async def test_v_proves_the_profile_and_the_proof_holds_until_memory_changes() -> None:
    async with deck(LORA) as d:
        await d.press("v")
        await answered(d)
        assert "10.5 of 23.6 GiB" in bar(d) and "(proven)" in bar(d)
        await d.at("train.learning_rate")
        await d.press("backspace")
        assert "(proven)" in bar(d)
        await d.at(BATCH)
        await d.press("enter")
        await d.write("3")
        await d.press("enter")
        assert "(estimate)" in bar(d)
        await d.press("u")
        assert "(proven)" in bar(d)


async def test_a_proof_does_not_block_and_escape_gives_it_up() -> None:
    desk = FakeDesk()
    desk.gate.clear()
    async with deck(LORA, desk=desk) as d:
        await d.press("v")
        assert "(proving)" in bar(d)
        await d.at(BATCH)
        await d.press("v", "escape")
        assert "(estimate)" in bar(d) and "given up" in d.screen.message
        await answered(d)
        assert desk.given_up == 1
        assert [what for what, *_ in desk.asked] == ["prove"]  # The second v changed nothing.
        assert "(estimate)" in bar(d)


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 50)])
async def test_f_offers_what_fits_and_a_digit_puts_it_into_the_draft(size: tuple[int, int]) -> None:
    desk = FakeDesk(advice=lambda _: remedies(SMALLER, CHECKPOINTS))
    async with searching(desk, size) as d:
        text = shown(d)
        assert "Make it fit GPU 1" in text and "Activations hold 43 %" in text
        assert "1  Batch 2 → 1" in text and "needs 8.5 GiB (proven), 6.0 GiB to spare" in text
        assert "1-2 or Enter takes it" in text
        await d.press("2")
        assert d.screen.draft.text("train.gradient_checkpointing") == "true"
        assert d.screen.form.current == "train.gradient_checkpointing"
        assert d.screen.message == "u takes back: Gradient checkpointing."
        assert "8.5 of 23.6 GiB" in bar(d) and "proven" in bar(d)  # As the search has shown.
        await d.press("u")
        assert d.screen.draft.text("train.gradient_checkpointing") == "false"
        assert "proven" not in bar(d) and not d.screen.message


async def test_enter_takes_the_first_fix_as_one_step_and_escape_takes_none() -> None:
    desk = FakeDesk(advice=lambda _: remedies(SMALLER, CHECKPOINTS))
    async with searching(desk) as d:
        await d.press("enter")
        assert (d.screen.draft.text(BATCH), d.screen.draft.text(ACCUMULATION)) == ("1", "16")
        await d.press("u")
        assert (d.screen.draft.text(BATCH), d.screen.draft.text(ACCUMULATION)) == ("2", "8")
    async with searching(desk) as d:
        await d.press("escape")
        assert d.dialog == "ConfigureScreen" and not d.screen.unsaved


async def test_the_arrows_choose() -> None:
    desk = FakeDesk(advice=lambda _: remedies(SMALLER, CHECKPOINTS))
    async with searching(desk) as d:
        await d.press("j", "up", "down", "enter")
        assert d.screen.draft.text("train.gradient_checkpointing") == "true"


async def test_a_profile_that_fits_is_offered_what_is_faster() -> None:
    faster = fix({"per_device_train_batch_size": 8}, "batch 2 → 8", slowdown=(0.7, 0.9))
    async with searching(FakeDesk(advice=lambda _: remedies(fits=True, faster=faster))) as d:
        assert "It fits as it is." in shown(d) and "10-30 % faster" in shown(d)
        await d.press("1")
        assert d.screen.draft.text(BATCH) == "8"
    async with searching(FakeDesk(advice=lambda _: remedies(fits=True))) as d:
        assert "Nothing faster fits." in shown(d)
        await d.press("1", "escape")
        assert not d.screen.unsaved


async def test_what_cannot_be_proven_is_said() -> None:
    async with searching(FakeDesk()) as d:
        assert "the model is not on this machine" in shown(d)
        await d.press("escape")
        assert d.dialog == "ConfigureScreen"


async def test_the_search_shows_its_progress_and_escape_gives_it_up() -> None:
    desk = FakeDesk(advice=lambda _: remedies(SMALLER))
    desk.gate.clear()
    async with deck(LORA, desk=desk) as d:
        await d.press("f")
        assert "Looking for changes that fit" in shown(d) and "Esc gives up" in shown(d)
        await d.press("escape")
        assert d.dialog == "ConfigureScreen"
        await answered(d)
        assert desk.given_up == 1 and not d.screen.unsaved


async def test_the_largest_trial_of_a_search_is_asked_about_with_the_search() -> None:
    seen: list[Profile] = []

    def advice(profile: Profile) -> Remedies:
        seen.append(profile)
        return remedies(SMALLER)

    async with deck(LORA, desk=FakeDesk(advice=advice)) as d:
        await d.at(BATCH)
        await d.press("x")
        await d.write("1, 8")
        await d.press("enter", "f")
        await answered(d)
        assert seen[0].train.per_device_train_batch_size == 8
        assert "per_device_train_batch_size" in seen[0].search.space
        await d.press("1")
        assert BATCH not in d.screen.draft.space and d.screen.draft.text(BATCH) == "1"
        assert "No longer searched: Batch per device." in d.screen.message


async def test_a_fix_that_takes_a_value_away_leaves_it_unset() -> None:
    async with deck(LORA) as d:
        draft, taken = with_changes(d.screen.draft, {"lora_rank": 4, "attn": "sdpa"})
        assert draft.text("method.lora_rank") == "4" and draft.text("model.attn") == "sdpa"
        assert taken == []


async def test_ascii_stays_ascii() -> None:
    desk = FakeDesk(advice=lambda _: remedies(SMALLER, CHECKPOINTS))
    for size in ((80, 24), (160, 45)):
        async with deck(LORA, size, ascii=True, desk=desk) as d:
            await d.press("f")
            await answered(d)
            assert "Batch 2 -> 1" in shown(d)
            assert shown(d).isascii()
            await d.press("1")
            assert shown(d).isascii()
