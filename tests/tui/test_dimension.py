"""Searched parameters as axes. (tui/dimension.py)"""

import math

import pytest

from tui.dimension import Dimension, dimensions

RANGE = {"low": 1e-5, "high": 1e-3, "scale": "log"}


def only(seen: list[object], entry: object, name: str = "learning_rate") -> Dimension:
    (made,) = dimensions([{name: value} for value in seen], {name: entry})  # type: ignore[dict-item]
    return made


def test_a_range_is_drawn_as_the_space_has_it_and_holds_what_was_tried_outside() -> None:
    axis = only([1e-4, 1e-2], RANGE)
    assert (axis.low, axis.high, axis.log) == (1e-5, 1e-2, True)
    assert axis.at(1e-5) == 0 and axis.at(1e-2) == 1
    assert axis.at(1e-4) == pytest.approx(1 / 3)


def test_a_list_of_few_numbers_is_a_row_of_choices_in_order() -> None:
    axis = only([32, 8, 16], [32, 8, 16, 64], "lora_rank")
    assert axis.choices == (8, 16, 32, 64)
    assert axis.at(8) == 0.125 and axis.at(64) == 0.875
    assert axis.ticks(3) == [(0.125, "8"), (0.375, "16"), (0.625, "32"), (0.875, "64")]


def test_a_list_of_rates_is_still_a_scale() -> None:
    axis = only([1e-4, 3e-4], [1e-4, 3e-4, 1e-3])
    assert axis.choices == () and axis.log and (axis.low, axis.high) == (1e-4, 1e-3)


def test_words_and_switches_are_choices_as_the_space_has_them() -> None:
    axis = only(["cosine"], ["linear", "cosine"], "lr_scheduler_type")
    assert axis.choices == ("linear", "cosine")
    switch = only([True, False], [True, False], "packing")
    assert switch.at(True) != switch.at(False) and switch.at(1) is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "text", True, 0, -1.0])
def test_what_has_no_place_on_a_log_axis_has_none(value: object) -> None:
    assert only([1e-4], RANGE).at(value) is None  # type: ignore[arg-type]


def test_one_value_lies_in_the_middle() -> None:
    axis = only([0.1, 0.1], {"low": 0.1, "high": 0.1}, "lora_dropout")
    assert axis.at(0.1) == 0.5 and axis.ticks(4) == [(0.5, "0.1")]


def test_without_a_space_the_parameters_that_differ_are_the_axes() -> None:
    settings = [
        {"learning_rate": r, "seed": 1, "weight_decay": w} for r, w in ((1e-4, 0.0), (1e-3, 0.1))
    ]
    assert [d.name for d in dimensions(settings, {})] == ["learning_rate", "weight_decay"]
    assert dimensions([], {"learning_rate": RANGE}) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_ticks_lie_on_the_axis_and_are_read_as_people_write(count: int) -> None:
    for axis in (
        only([1e-4], RANGE),
        only([3.3e-4, 3.4e-4], [3.3e-4, 3.4e-4]),
        only([0.0, 0.3], {"low": 0, "high": 0.3}, "weight_decay"),
    ):
        ticks = axis.ticks(count)
        assert len(ticks) >= 2 and all(0 <= place <= 1 for place, _ in ticks)
        assert len({label for _, label in ticks}) == len(ticks)
    assert (0.5, "1e-4") in only([1e-4], RANGE).ticks(3)


def test_an_entry_of_a_form_that_is_not_known_goes_by_what_was_tried() -> None:
    axis = only([4, 8], {"when": "lora", "values": [4, 8, 16]}, "lora_rank")
    assert axis.choices == (4, 8, 16)
    assert only([4, 8], 7, "lora_rank").choices == (4, 8)
