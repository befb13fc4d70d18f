import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.widgets import braille
from tui.widgets.braille import Canvas, Series, View, columns, draw, prepare, row, sparkline

finite = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)
anything = st.floats(allow_nan=True, allow_infinity=True)


def dots(canvas: Canvas) -> set[tuple[int, int]]:
    """The dots that are set, as (column, row)."""
    bits = braille._BRAILLE_BITS
    return {
        (x * 2 + dx, y * 4 + dy)
        for y in range(canvas.height)
        for x in range(canvas.width)
        for dy in range(4)
        for dx in range(2)
        if canvas.bits[y][x] & bits[dy][dx]
    }


@given(st.lists(finite, min_size=1, max_size=400), st.integers(1, 30), st.integers(1, 8))
def test_every_extreme_of_a_series_is_visible(values, width, height):
    canvas = Canvas(width, height)
    low, high = min(values), max(values)
    view = View(0, max(1, len(values) - 1), low, high)
    draw(canvas, prepare(list(enumerate(values))), view, 0)
    shown = dots(canvas)
    for x, value in enumerate(values):
        if value in (low, high):
            column = braille.position(x, view.x0, view.x1, canvas.columns)
            y = row(value, low, high, canvas.rows)
            assert any((column + near, y) in shown for near in (-1, 0, 1))


def test_a_spike_of_one_step_among_a_hundred_thousand_reaches_the_top():
    points = [(float(i), 1.0) for i in range(100_000)]
    points[61_803] = (61_803.0, 9.0)
    canvas = Canvas(60, 5)
    draw(canvas, prepare(points), View(0, 99_999, 1, 9), 0)
    assert [x for x, y in dots(canvas) if y == 0] == [round(61_803 / 99_999 * 119)]


@given(st.lists(st.tuples(finite, anything), max_size=200), st.integers(1, 40))
def test_columns_hold_every_finite_point_once(points, count):
    series = prepare(points)
    x0, x1 = -1e300, 1e300
    binned = [column for column in columns(series, x0, x1, count) if column]
    if series.ys:
        assert min(column.low for column in binned) == min(series.ys)
        assert max(column.high for column in binned) == max(series.ys)
        assert binned[0].first == series.ys[0]
        assert binned[-1].last == series.ys[-1]
    else:
        assert binned == []


@given(st.lists(st.tuples(anything, anything), max_size=60))
def test_prepare_keeps_every_point_that_has_a_place(points):
    series = prepare(points)
    placed = [p for p in points if math.isfinite(p[0])]
    assert len(series.xs) == len(series.ys)
    assert len(series.xs) + len(series.bad) == len(placed)
    assert series.xs == sorted(series.xs)
    assert all(map(math.isfinite, series.ys))
    assert not any(math.isfinite(value) for _, value in series.bad)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), anything), max_size=60),
    st.integers(0, 20),
    st.integers(0, 6),
    st.booleans(),
    st.booleans(),
)
def test_any_points_draw_without_error_in_the_exact_width(points, width, height, ascii, log):
    series = prepare(points)
    canvas = Canvas(width, height, ascii=ascii)
    low, high = min(series.ys, default=0.0), max(series.ys, default=1.0)
    bad = draw(canvas, series, View(-1e6, 1e6, low, high, log), 0)
    assert len(bad) == len(series.bad)
    for y in range(height):
        text = canvas.text(y)
        assert len(text) == width
        assert not ascii or text.isascii()


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0]])
def test_one_point_and_a_constant_series_are_drawn(values):
    canvas = Canvas(10, 3)
    draw(canvas, prepare(list(enumerate(values))), View(0, 2, 3, 3), 0)
    assert dots(canvas)


def test_non_finite_points_come_back_with_their_cell():
    canvas = Canvas(10, 2)
    series = prepare([(0, 1.0), (5, math.nan), (9, math.inf), (20, math.nan)])
    bad = draw(canvas, series, View(0, 9, 0, 1), 0)
    assert [(cell, step) for cell, (step, _) in bad] == [(5, 5.0), (9, 9.0)]
    assert math.isnan(bad[0][1][1])


def test_points_far_apart_are_joined():
    canvas = Canvas(10, 2)
    draw(canvas, prepare([(0, 0.0), (19, 1.0)]), View(0, 19, 0, 1), 0)
    assert {x for x, _ in dots(canvas)} == set(range(20))


def test_the_series_drawn_last_owns_a_shared_cell():
    canvas = Canvas(4, 1)
    for owner in (0, 1):
        draw(canvas, prepare([(0, 1.0), (7, 1.0)]), View(0, 7, 0, 1), owner)
    assert canvas.owner == [[1, 1, 1, 1]]


def test_ascii_shows_the_height_within_a_cell_and_glyphs_tell_series_apart():
    canvas = Canvas(2, 1, ascii=True)
    draw(canvas, prepare([(0, 0.0), (1, 1.0)]), View(0, 1, 0, 1), 0)
    assert canvas.text(0) == ".'"
    assert canvas.text(0, ["*"]) == "**"


def test_log_scale_gives_each_decade_the_same_height_and_keeps_zero_at_the_bottom():
    assert [row(v, 0.01, 100, 41, log=True) for v in (0.01, 0.1, 1, 10, 100)] == [40, 30, 20, 10, 0]
    assert row(0.0, 0.01, 100, 41, log=True) == 40
    assert row(-1.0, 0.01, 100, 41, log=True) == 40


def test_smoothing_starts_at_the_first_value_and_follows_slowly():
    assert braille.smooth([5.0, 5.0]) == pytest.approx([5.0, 5.0])
    assert braille.smooth([0.0, 1.0], weight=0.5) == pytest.approx([0.0, 2 / 3])
    assert braille.smooth([]) == []


@given(st.lists(st.none() | anything, max_size=200), st.integers(0, 60), st.booleans())
def test_a_sparkline_is_exactly_as_wide_as_asked(values, width, ascii):
    text = sparkline(values, width, ascii)
    assert len(text) == width
    assert not ascii or text.isascii()


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200), st.integers(3, 40))
def test_a_sparkline_shows_the_largest_value_at_full_height(values, width):
    if max(values) > min(values):
        assert "█" in sparkline(values, width)


def test_a_sparkline_shows_both_a_spike_and_a_dip():
    values = [5.0] * 1000
    values[300], values[700] = 9.0, 1.0
    text = sparkline(values, 20)
    assert text.count("█") == 1
    assert text.count("▁") == 1


def test_a_sparkline_marks_what_is_not_finite_and_leaves_gaps_blank():
    assert sparkline([1.0, math.nan, None, 2.0], 4) == "▁! █"
    assert sparkline([1.0, math.inf, None, 2.0], 4, ascii=True) == "_! ^"
    assert sparkline([math.nan] * 3, 3) == "!!!"
    assert sparkline([], 3) == "   "


def test_a_fixed_scale_puts_a_percentage_at_its_height():
    assert sparkline([0, 50, 100], 3, low=0, high=100) == "▁▅█"


def test_an_empty_series_says_so():
    assert Series([], [], []).empty
    assert not prepare([(1, math.nan)]).empty


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 9)), max_size=40), st.integers(0, 40))
def test_a_series_read_in_two_parts_is_the_same_as_in_one(points, seen):
    seen = min(seen, len(points))
    extended = braille.extend(prepare(points[:seen]), seen, points)
    whole = prepare(points)
    assert (extended.xs, sorted(extended.ys)) == (whole.xs, sorted(whole.ys))
