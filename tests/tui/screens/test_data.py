"""The view of the data: what it shows, what its keys do, and that it leaves nothing behind."""

import asyncio
from typing import Any

import pytest
from textual.pilot import Pilot

from core.profile import resolve
from core.study.preview import Failed, Progress
from tests.tui.fake_data import ALL, BEGAN, COUNTED, EXAMPLES, PAIR, FakePreview
from tests.tui.rest import Gate
from tests.tui.screens.configure_app import Deck, configure_app, deck, settle
from tests.tui.screens.conftest import painting, screen_text
from tui.screens.configure import ConfigureScreen
from tui.screens.data import DataScreen

LORA = resolve("lora-small")
SIZES = [(80, 24), (120, 36), (60, 15)]


async def _seen(on: Deck, text: str) -> str:
    """What the terminal shows once `text` is there."""
    for _ in range(200):
        shown = screen_text(on.pilot.app)  # type: ignore[arg-type]
        if text in shown:
            return shown
        await asyncio.sleep(0.01)
        await on.pilot.pause()
    raise AssertionError(f"{text} does not appear in\n{shown}")


async def _open(on: Deck, data: FakePreview | None = None) -> DataScreen:
    on.source.data = data or FakePreview()
    await on.press("d")
    screen = on.pilot.app.screen
    assert isinstance(screen, DataScreen)
    return screen


async def test_d_shows_the_first_example_lengths_and_findings() -> None:
    async with deck(LORA, (120, 36)) as on:
        await _open(on)
        shown = await _seen(on, "57 of 1,234 rows")
        assert "1/4" in shown and "questions.jsonl, row 1" in shown
        assert "⟦An opening in something.<|im_end|>⟧" in shown
        assert "cutoff_len 512" in shown


async def test_examples_come_before_the_rows_are_counted() -> None:
    async with deck(LORA) as on:
        gate = Gate()
        await _open(on, FakePreview((*ALL[:-2], COUNTED), gate))
        shown = await _seen(on, "An opening in something.")
        assert "512 of 1,234" in shown and "rows an answer is empty" not in shown
        gate.set()
        await _seen(on, "questions.jsonl, rows 12, 40")


async def test_keys_leaf_through_the_examples_and_stop_at_the_ends() -> None:
    async with deck(LORA) as on:
        screen = await _open(on)
        await _seen(on, "57 of 1,234 rows")
        await on.press("left")
        assert "1/4" in screen_text(on.pilot.app)  # type: ignore[arg-type]
        await on.press("right", "n")
        assert "3/4" in screen_text(on.pilot.app)  # type: ignore[arg-type]
        await on.press("n", "n", "p")
        assert screen._at == 2


async def test_f_goes_to_the_row_that_a_finding_is_about() -> None:
    async with deck(LORA) as on:
        await _open(on)
        await _seen(on, "57 of 1,234 rows")
        await on.press("f")
        shown = screen_text(on.pilot.app)  # type: ignore[arg-type]
        assert "row 9" in shown and "LEFT OUT" in shown


async def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    async with deck(LORA) as on:
        await _open(on)
        await _seen(on, "57 of 1,234 rows")
        await on.press("n", "n")
        shown = screen_text(on.pilot.app)  # type: ignore[arg-type]
        assert "\\x1b[31mred\\x1b[0m" in shown and "\\u202eevil" in shown
        assert "\x1b" not in shown and "\u202e" not in shown


async def test_tokens_and_their_numbers_are_shown_on_demand() -> None:
    async with deck(LORA) as on:
        await _open(on)
        await _seen(on, "57 of 1,234 rows")
        await on.press("t")
        assert "An│·opening" in screen_text(on.pilot.app)  # type: ignore[arg-type]
        await on.press("i")
        assert "An⟨102⟩│·opening⟨108⟩" in screen_text(on.pilot.app)  # type: ignore[arg-type]
        await on.press("i", "t")
        assert "⟦An opening" in screen_text(on.pilot.app)  # type: ignore[arg-type]


async def test_help_lists_the_keys_of_the_data() -> None:
    async with deck(LORA) as on:
        await _open(on, FakePreview((BEGAN, PAIR, COUNTED)))
        await on.press("question_mark")
        shown = await _seen(on, "Keys that work here")
        assert "the data" in shown and "Each token apart" in shown
        assert "Esc closes this" in shown


async def test_pairs_stand_below_each_other() -> None:
    async with deck(LORA) as on:
        await _open(on, FakePreview((BEGAN, PAIR, COUNTED)))
        shown = await _seen(on, "── rejected")
        assert "⟦Well, thanks.⟧" in shown and "⟦Go away⟧" in shown and "── prompt" in shown


async def test_what_cannot_be_trained_on_says_why() -> None:
    async with deck(LORA) as on:
        reason = "night.jsonl, row 12: output is missing (the row has instruction, \x1b[2J)"
        await _open(on, FakePreview((Progress("the rows are read"), Failed(reason))))
        shown = await _seen(on, "row 12: output is missing")
        assert "cannot be shown" in shown and "\\x1b[2J" in shown


async def test_a_process_that_dies_is_told() -> None:
    async with deck(LORA) as on:
        await _open(on, FakePreview((BEGAN, COUNTED), error="the data's process ended (signal 9)"))
        await _seen(on, "the data's process ended (signal 9)")


async def test_leaving_ends_the_process_and_what_was_read_is_kept_while_the_data_stays() -> None:
    async with deck(LORA) as on:
        gate = Gate()
        data = FakePreview(gate=gate)
        await _open(on, data)
        await _seen(on, "An opening")
        await on.press("escape")
        assert isinstance(on.pilot.app.screen, ConfigureScreen)
        assert data.closed

        again = FakePreview()
        await _open(on, again)
        await _seen(on, "57 of 1,234 rows")
        await on.press("escape")
        await _open(on, again)
        await _seen(on, "57 of 1,234 rows")
        assert len(again.asked) == 1, "the same data is not read twice"

        await on.press("escape")
        await on.at("data.cutoff_len")
        await on.press("enter")
        await on.write("256")
        await on.press("enter")
        await _open(on, again)
        await _seen(on, "57 of 1,234 rows")
        assert len(again.asked) == 2
        assert again.asked[-1].profile["data"]["cutoff_len"] == 256


async def test_r_reads_again_and_a_examines_every_row() -> None:
    async with deck(LORA) as on:
        sampled = type(COUNTED)(looked=20_000, of=1_000_000, lengths={5: 20_000})
        data = FakePreview((BEGAN, *EXAMPLES, sampled))
        await _open(on, data)
        await _seen(on, "first 20,000 of 1,000,000")
        await on.press("r")
        await _seen(on, "first 20,000 of 1,000,000")
        await on.press("a")
        await settle(on.pilot)
        assert [asked.most for asked in data.asked] == [20_000, 20_000, None]


async def test_a_draft_with_problems_is_not_read() -> None:
    async with deck(None) as on:
        await on.press("d")
        assert isinstance(on.pilot.app.screen, ConfigureScreen)
        assert "Put right what is wrong first" in on.screen.message


async def test_at_rest_nothing_is_sent() -> None:
    async with deck(LORA) as on:
        await _open(on)
        await _seen(on, "57 of 1,234 rows")
        async with painting(on.pilot.app) as painted:
            await asyncio.sleep(0.3)
            assert painted == []
            await on.press("n")
            assert painted, "else nothing is measured here"


async def test_tab_gives_the_findings_the_keys_that_scroll() -> None:
    async with deck(LORA) as on:
        await _open(on)
        shown = await _seen(on, "57 of 1,234 rows")
        assert "251,000 tokens" not in shown
        await on.press("tab", "end")
        assert "251,000 tokens" in screen_text(on.pilot.app)  # type: ignore[arg-type]


def _before(*keys: str) -> Any:
    async def run(pilot: Pilot[None]) -> None:
        await pilot.app.push_screen(ConfigureScreen(LORA))
        await settle(pilot)
        await pilot.press("d")
        await settle(pilot)
        await pilot.press(*keys)
        await pilot.pause()

    return run


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_picture(snap_compare: Any, size: tuple[int, int]) -> None:
    app, _ = configure_app()
    assert snap_compare(app, terminal_size=size, run_before=_before("n"))


def test_picture_of_tokens_in_ascii(snap_compare: Any) -> None:
    app, _ = configure_app(ascii=True)
    assert snap_compare(app, terminal_size=(80, 24), run_before=_before("n", "n", "i"))
