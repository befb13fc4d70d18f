from __future__ import annotations

from dataclasses import dataclass

import pytest

from core.search.edges import Edge, Judged, find_edges, further, nice, ordered_axes

RATES = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}


def judged(values: dict[float, float | None], best: set[float], name: str = "learning_rate"):
    """Trials by their setting: its value, and whether it is among the best."""
    return [
        Judged(number, {name: at}, value, best=at in best)
        for number, (at, value) in enumerate(values.items(), 1)
    ]


def only(edges: tuple[Edge, ...]) -> Edge:
    (edge,) = edges
    return edge


def test_the_best_at_the_highest_rate_is_told_with_numbers() -> None:
    edge = only(find_edges(RATES, judged({1e-4: 2.05, 3e-4: 2.02, 9e-4: 2.0}, {9e-4})))
    assert (edge.name, edge.side, edge.trial) == ("learning_rate", "high", 3)
    assert edge.widen_to == 3e-3
    assert "highest learning_rate tried (9e-4)" in edge.text
    assert "with 3e-4, is 0.02 worse: widen to 3e-3?" in edge.text


def test_the_best_at_the_lowest_rate_is_told_too() -> None:
    edge = only(find_edges(RATES, judged({1.2e-5: 2.0, 1e-4: 2.1}, {1.2e-5})))
    assert (edge.side, edge.widen_to) == ("low", 5e-6)


def test_a_tie_further_in_silences() -> None:
    assert not find_edges(RATES, judged({3e-4: 2.001, 9e-4: 2.0}, {3e-4, 9e-4}))


def test_a_rate_further_out_that_diverged_silences() -> None:
    assert not find_edges(RATES, judged({3e-4: 2.1, 8e-4: 2.0, 9e-4: None}, {8e-4}))


def test_the_highest_rate_tried_far_inside_the_range_is_no_edge() -> None:
    assert not find_edges(RATES, judged({2e-5: 2.1, 5e-5: 2.0}, {5e-5}))


def test_what_the_space_holds_already_is_no_wider() -> None:
    """3 times below 4e-5 the range goes on; of the list, 16 was not tried."""
    space = {"learning_rate": {"low": 1e-5, "high": 1e-2, "scale": "log"}}
    assert not find_edges(space, judged({4e-5: 2.0, 1e-3: 2.1}, {4e-5}))
    ranks = {"lora_rank": [1, 2, 4, 8, 16]}
    assert not find_edges(ranks, judged({1: 2.2, 8: 2.0}, {8}, "lora_rank"))


def test_a_list_of_numbers_is_ordered_and_goes_on_as_it_began() -> None:
    space = {"lora_rank": [8, 16, 32]}
    edge = only(find_edges(space, judged({8: 2.2, 16: 2.1, 32: 2.0}, {32}, "lora_rank")))
    assert (edge.side, edge.widen_to) == ("high", 64)


def test_choices_without_an_order_are_left_out() -> None:
    space = {"lr_scheduler_type": ["cosine", "linear"], "use_rslora": [True, False]}
    trials = [
        Judged(1, {"lr_scheduler_type": "cosine", "use_rslora": True}, 2.0, best=True),
        Judged(2, {"lr_scheduler_type": "linear", "use_rslora": False}, 2.1),
    ]
    assert not find_edges(space, trials)
    assert not ordered_axes(space)


def test_without_a_winner_or_with_one_value_there_is_nothing_to_say() -> None:
    assert not find_edges(RATES, [])
    assert not find_edges(RATES, judged({9e-4: 2.0}, {9e-4}))
    assert not find_edges(RATES, judged({1e-4: None, 9e-4: None}, set()))


def test_nothing_is_proposed_below_zero_or_above_one() -> None:
    dropout = {"lora_dropout": {"low": 0.0, "high": 0.9}}
    assert not find_edges(dropout, judged({0.0: 2.0, 0.5: 2.1}, {0.0}, "lora_dropout"))
    assert not find_edges(dropout, judged({0.1: 2.1, 0.9: 2.0}, {0.9}, "lora_dropout"))
    low = {"lora_dropout": {"low": 0.05, "high": 0.2}}
    edge = only(find_edges(low, judged({0.05: 2.0, 0.2: 2.1}, {0.05}, "lora_dropout")))
    assert edge.widen_to == 0


@dataclass
class Range:
    low: float
    high: float
    scale: str = "linear"


def test_a_range_may_be_an_object_and_what_cannot_be_read_is_left_out() -> None:
    space = {"a": Range(1, 3), "b": Range(3, 1), "c": "text", "d": [1, "x"], "e": [1, 1]}
    assert [axis.name for axis in ordered_axes(space)] == ["a"]


@pytest.mark.parametrize(
    ("values", "side", "beyond"),
    [
        ([1, 2, 4], "high", 8),
        ([1, 2, 4], "low", None),
        ([10, 20, 30], "low", 5),
        ([0.1, 0.2, 0.4], "low", 0.05),
        ([10, 20, 30], "high", 40),
        ([1e-4, 3e-4, 1e-3], "high", 3e-3),
        ([0, 0.05, 0.1], "low", None),
    ],
)
def test_a_row_goes_on(values: list[float], side: str, beyond: float | None) -> None:
    (axis,) = ordered_axes({"x": values})
    at = values[-1] if side == "high" else values[0]
    assert further(axis, side, at) == beyond  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "side", "beyond"),
    [
        ({"low": 1, "high": 8}, "low", None),
        ({"low": 1, "high": 4}, "high", 6),
        ({"low": 8, "high": 64, "scale": "log"}, "low", 4),
        ({"low": 8, "high": 64, "scale": "log"}, "high", 200),
    ],
)
def test_ranks_and_batches_stay_whole_and_above_zero(
    entry: dict[str, object], side: str, beyond: float | None
) -> None:
    (axis,) = ordered_axes({"lora_rank": entry})
    assert further(axis, side, axis.high if side == "high" else axis.low) == beyond  # type: ignore[arg-type]


def test_large_differences_are_written_in_full() -> None:
    speeds = judged({1e-4: -4000.0, 9e-4: -5234.0}, {9e-4})
    assert "is 1230 worse" in only(find_edges(RATES, speeds)).text


def test_rates_are_rounded_as_people_write_them() -> None:
    assert [nice(v) for v in (2.7e-4, 9e-4, 4.4e-5, 1.2e-3)] == [3e-4, 1e-3, 5e-5, 1e-3]


def test_half_a_range_more_is_written_without_the_rounding_of_floats() -> None:
    (axis,) = ordered_axes({"learning_rate": {"low": 1e-5, "high": 4e-5}})
    assert further(axis, "high", 4e-5) == 5.5e-5
