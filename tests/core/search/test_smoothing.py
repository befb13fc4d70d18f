from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.search.smoothing import Ema, smooth

FINITE = st.floats(min_value=-1e6, max_value=1e6)


@given(st.lists(FINITE, min_size=1), st.floats(min_value=0.01, max_value=1.0))
def test_the_average_stays_between_the_extremes(values: list[float], alpha: float) -> None:
    for average in smooth(values, alpha):
        assert min(values) - 1e-3 <= average <= max(values) + 1e-3


def test_the_first_average_is_the_first_value() -> None:
    assert smooth([3.0, 3.0]) == pytest.approx([3.0, 3.0])


def test_two_values_are_weighted_by_their_age() -> None:
    # Weights 0.2 and 0.8 × 0.2, divided by their sum.
    assert smooth([1.0, 2.0], 0.2)[1] == pytest.approx((0.16 * 1 + 0.2 * 2) / 0.36)


def test_missing_values_are_left_out() -> None:
    assert smooth([1.0, None, 2.0]) == smooth([1.0, 2.0])


def test_what_is_not_finite_shows_in_its_place_and_spoils_nothing_else() -> None:
    values = smooth([1.0, math.nan, 1.0, math.inf])
    assert math.isnan(values[1])
    assert values[2] == pytest.approx(1.0)
    assert values[3] == math.inf


def test_the_variance_factor_falls_from_one_to_that_of_the_endless_average() -> None:
    ema = Ema(0.2)
    ema.push(1.0)
    assert ema.variance_factor == pytest.approx(1.0)
    ema.push(1.0)
    # Two values with weights 4/9 and 5/9.
    assert ema.variance_factor == pytest.approx((4 / 9) ** 2 + (5 / 9) ** 2)
    for _ in range(200):
        ema.push(1.0)
    assert ema.variance_factor == pytest.approx(0.2 / 1.8)


def test_an_average_of_nothing_is_none() -> None:
    assert Ema().value is None


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5])
def test_an_impossible_weight_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Ema(alpha)
