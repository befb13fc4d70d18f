"""How a memory fix is told."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.study.events import FixOption
from tests.tui.fake_memory import GIB, forecast
from tui.fix_view import FixView, fix_lines, from_fix, from_option, headline, pace

CHECKPOINTING = FixOption(
    changes={"gradient_checkpointing": True},
    text="gradient checkpointing on",
    needed=int(9.2 * GIB),
    headroom=int(13.9 * GIB),
    slowdown=(1.2, 1.49),
    source="measured on an H100",
    effect="the same result",
    proven=True,
)
FOUR_BITS = FixOption(
    changes={"quantization_bit": 4},
    text="4-bit weights",
    needed=6 * GIB,
    headroom=-1,
    slowdown=(1.3, 1.6),
    numerics="different",
    effect="the base's weights are rounded",
)


def text(fix: FixView) -> list[str]:
    return [line.plain for line in fix_lines(fix)]


def test_a_fix_says_what_it_changes_needs_costs_and_does_to_the_result() -> None:
    assert text(from_option(CHECKPOINTING)) == [
        "Gradient checkpointing on",
        "needs 9.2 GiB (proven), 13.9 GiB to spare; 20-49 % slower (measured on an H100)",
        "The same result",
    ]


def test_a_fix_that_changes_the_result_says_so() -> None:
    assert text(from_option(FOUR_BITS)) == [
        "4-bit weights",
        "needs 6.0 GiB (estimate), 0 MiB to spare; 30-60 % slower",
        "Changes the result: the base's weights are rounded",
    ]
    silent = replace(from_option(FOUR_BITS), effect="")
    assert text(silent)[-1].startswith("Changes the result: ")


def test_a_choice_without_figures_is_its_words() -> None:
    assert text(FixView(text="try again without a fix")) == ["Try again without a fix"]


def test_a_fix_of_the_search_is_told_like_one_of_the_journal() -> None:
    fix = SimpleNamespace(
        changes=CHECKPOINTING.changes,
        text=CHECKPOINTING.text,
        forecast=SimpleNamespace(total=CHECKPOINTING.needed),
        headroom=CHECKPOINTING.headroom,
        slowdown=CHECKPOINTING.slowdown,
        source=CHECKPOINTING.source,
        numerics="equivalent",
        effect=CHECKPOINTING.effect,
        proven=True,
    )
    told = from_fix(cast(Any, fix))
    assert replace(told, forecast=None) == from_option(CHECKPOINTING)


@pytest.mark.parametrize(
    ("slowdown", "words"),
    [
        ((1.0, 1.0), "at the same speed"),
        ((1.0, 1.06), "up to 6 % slower"),
        ((1.2, 1.49), "20-49 % slower"),
        ((1.3, 1.3), "30 % slower"),
        ((0.9, 0.95), "5-10 % faster"),
        ((0.9, 1.0), "up to 10 % faster"),
        ((0.95, 1.1), "5 % faster to 10 % slower"),
        ((2.0, 4.5), "100-350 % slower"),
    ],
)
def test_the_pace_is_a_range_of_percent(slowdown: tuple[float, float], words: str) -> None:
    assert pace(slowdown) == words


def advice(**changes: Any) -> Any:
    base: dict[str, Any] = {
        "summary": "activations hold 63 %: a smaller batch helps",
        "fits": False,
        "forecast": forecast(proven=True),
        "fixes": (object(),),
        "problem": "",
    }
    return SimpleNamespace(**{**base, **changes})


def test_the_headline_says_what_dominates() -> None:
    assert headline(advice(), None) == "Activations hold 63 %: a smaller batch helps."


def test_the_headline_says_that_nothing_fits_and_why_nothing_is_proven() -> None:
    found = headline(advice(fixes=(), problem="the model is not here"), None).splitlines()
    assert found[1].startswith("Nothing that was tried fits")
    assert found[2] == "Not proven: the model is not here."


def test_what_fits_already_is_said_and_whether_anything_faster_does() -> None:
    assert headline(advice(fits=True), None) == "It fits as it is.\nNothing faster fits."
    faster = headline(advice(fits=True, forecast=forecast()), cast(Any, object()))
    assert faster == "It fits as it is by the estimate.\nFaster, and it fits as well:"
