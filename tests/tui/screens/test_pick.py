"""The dialog that picks one of several."""

from pathlib import Path

import pytest
from textual.widgets import Static

from core.profile import resolve
from tests.tui.screens.configure_app import deck
from tui.screens.pick import Choice, narrowed, profile_choices

NAMES = ("dpo-lora-small", "lora-7b", "lora-small", "qlora-small")
CHOICES = [Choice(name, name, "for one GPU") for name in NAMES]


@pytest.mark.parametrize(
    ("query", "first"),
    [("", "dpo-lora-small"), ("LoRA-small", "lora-small"), ("lora", "lora-7b"), ("small gpu", "dpo-lora-small")],
)  # fmt: skip
def test_what_is_called_as_typed_comes_first(query: str, first: str) -> None:
    assert narrowed(CHOICES, query)[0].title == first


def test_every_word_has_to_be_there() -> None:
    assert [c.title for c in narrowed(CHOICES, "gpu dpo")] == ["dpo-lora-small"]
    assert narrowed(CHOICES, "dpo cpu") == []


def test_supervised_fine_tuning_stands_at_the_top_of_the_profiles(tmp_path: Path) -> None:
    titles = [choice.title for choice in profile_choices(tmp_path)]
    assert titles.index("lora-small") < titles.index("dpo-full-small")


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (160, 45)], ids=lambda s: f"{s[0]}x{s[1]}")
async def test_a_long_list_leaves_room_for_what_the_keys_do(size: tuple[int, int]) -> None:
    async with deck(resolve("lora-small"), size) as d:
        await d.press("o")
        await d.pilot.pause()
        dialog = d.pick().query_one(".dialog")
        hint = d.pick().query_one(".dialog-hint", Static)
        assert hint.region.bottom <= dialog.content_region.bottom
