import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tui.widgets.axis import linear_axis, log_axis, nice_ceiling, nice_step, step_label, value_label

positive = st.floats(min_value=1e-300, max_value=1e300)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(1, 20))
def test_a_linear_axis_holds_its_data(a, b, count):
    low, high = min(a, b), max(a, b)
    axis = linear_axis(low, high, count)
    slack = (axis.high - axis.low) * 1e-9
    assert axis.low - slack <= low <= high <= axis.high + slack
    assert axis.low < axis.high or low == high
    assert len(axis.ticks) <= count + 3


@given(positive, positive, st.integers(2, 20))
def test_a_log_axis_holds_its_data(a, b, count):
    low, high = min(a, b), max(a, b)
    axis = log_axis(low, high, count)
    assert 0 < axis.low <= low * (1 + 1e-9)
    assert high <= axis.high * (1 + 1e-9)
    assert axis.low < axis.high
    assert axis.ticks
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_ticks_are_round_numbers():
    assert linear_axis(0.13, 2.4, 6).ticks == pytest.approx((0, 0.5, 1.0, 1.5, 2.0, 2.5))
    assert log_axis(0.9, 80, 8).ticks == pytest.approx((1, 2, 5, 10, 20, 50, 100))
    assert nice_step(100, 4) == 50


def test_a_new_point_inside_the_range_moves_no_axis():
    assert linear_axis(1.31, 2.42, 6) == linear_axis(1.29, 2.42, 6)


@given(positive)
def test_nice_ceiling_is_at_or_above_but_not_far(value):
    assert value <= nice_ceiling(value) <= value * 1.7 or value > 1e299


@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-2e5, 2e5))
@example(-0.0078125)
@example(-12345.0)
def test_a_value_label_fits_the_gutter(value):
    assert len(value_label(value)) <= 8


@pytest.mark.parametrize(
    ("value", "span", "text"),
    [
        (2.5, 0.5, "2.5"),
        (2.0, 0.05, "2.00"),
        (0, 1, "0"),
        (1e-5, 1e-5, "1e-5"),
        (3e7, 1e7, "3e7"),
        (12345, None, "12345"),
    ],
)
def test_value_labels(value, span, text):
    assert value_label(value, span) == text


@pytest.mark.parametrize(
    ("step", "text"), [(0, "0"), (1200, "1200"), (12_500, "12.5k"), (2_500_000, "2.5M")]
)
def test_step_labels(step, text):
    assert step_label(step) == text
