"""Combinations spread over a space."""

import math
from itertools import islice, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.profile import from_document
from core.search.space import Space, key_of, space_of
from core.search.spread import away, draws, remainder, spread, towards

RATES: dict[str, Any] = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}


def space(entries: dict[str, Any]) -> Space:
    return space_of(
        from_document(
            {
                "model": {"model_name_or_path": "m"},
                "data": {"dataset": "d"},
                "search": {"space": entries},
            }
        )
    )


def gaps(rates: list[float]) -> list[float]:
    ordered = sorted(math.log10(r) for r in rates)
    return [b - a for a, b in pairwise(ordered)]


def test_what_is_spread_leaves_smaller_gaps_than_what_is_drawn() -> None:
    def largest(points: Any) -> float:
        return max(gaps([1e-5, 1e-3, *(float(p["learning_rate"]) for p in islice(points, 12))]))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    seeds = range(20)
    even = mean([largest(spread(space(RATES), seed, [])) for seed in seeds])
    drawn = mean([largest(draws(space(RATES), seed)) for seed in seeds])
    assert even < 0.75 * drawn


def test_what_is_taken_is_kept_away_from() -> None:
    taken = [{"learning_rate": 1e-4}]
    for seed in range(10):
        first = float(next(spread(space(RATES), seed, taken))["learning_rate"])
        assert abs(math.log10(first) + 4) > 0.4


def test_a_centre_draws_them_near() -> None:
    def near(centre: dict[str, Any] | None) -> int:
        points = islice(spread(space(RATES), 1, [], centre), 40)
        return sum(abs(math.log10(float(p["learning_rate"])) + 4) < 0.25 for p in points)

    assert near({"learning_rate": 1e-4}) > near(None) + 3


def test_values_without_order_are_alternated() -> None:
    listed = islice(spread(space({**RATES, "lr_scheduler_type": ["linear", "cosine"]}), 0, []), 8)
    kinds = [p["lr_scheduler_type"] for p in listed]
    assert 3 <= kinds.count("linear") <= 5


def test_a_finite_space_is_spread_over_to_its_end() -> None:
    small = space({"lora_rank": [4, 8], "finetuning_type": ["lora", "full"], "seed": [1, 2]})
    points = list(spread(small, 0, []))
    assert len(points) == len({key_of(p) for p in points}) == 6


def test_the_rest_of_a_finite_space_is_all_of_it() -> None:
    small = space({"lora_rank": [4, 8], "finetuning_type": ["lora", "full"]})
    assert len(list(remainder(small, 3))) == 3
    assert list(remainder(space(RATES), 0)) == []


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_moving_to_a_centre_and_back_ends_where_it_began(u: float, centre: float) -> None:
    moved = towards(u, centre)
    assert 0 <= moved < 1
    assert math.isclose(away(moved, centre), u, abs_tol=1e-6)
    assert abs(moved - centre) <= abs(u - centre) + 1e-9
