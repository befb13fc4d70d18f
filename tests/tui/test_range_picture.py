"""The picture of a learning-rate range test."""

import pytest

from core.search.lr_range import read
from tests.tui.fake_range import TEST, curve
from tui.range_picture import Marks, as_text, picture, rate_text

POINTS = curve()
READING = read(POINTS)
MARKS = Marks(READING.steepest, READING.diverged_at, READING.low, READING.high)
SMOOTH = tuple(zip(READING.rates, READING.losses, strict=True))
ENDS = (TEST.low, TEST.high)


@pytest.mark.parametrize("size", [(79, 14), (120, 30), (40, 8)])
@pytest.mark.parametrize("ascii", [False, True])
def test_it_has_exactly_the_size_that_was_asked_for(size: tuple[int, int], ascii: bool) -> None:
    lines = picture(POINTS, SMOOTH, MARKS, ENDS, size, ascii=ascii)
    assert len(lines) == size[1]
    assert all(sum(len(text) for text, _ in line) <= size[0] for line in lines)
    assert not ascii or as_text(lines).isascii()


def test_the_marks_stand_over_their_rates() -> None:
    lines = picture(POINTS, SMOOTH, MARKS, ENDS, (108, 20), ascii=True)
    text = [("".join(part for part, _ in line)) for line in lines]
    assert "V steepest" in text[0] and "X diverges" in text[0] and "[=]" in text[0]
    bar = text[-2]
    rates = text[-1]
    # 1e-3 lies within the suggested range here, 1e-6 and 1 do not.
    at = {label: rates.index(label) + len(label) // 2 for label in ("1e-6", "1e-3")}
    assert READING.low is not None and READING.high is not None
    assert READING.low < 1e-3 < READING.high
    assert bar.index("[") < at["1e-3"] < bar.index("]") and at["1e-6"] < bar.index("[")
    assert text[1].index("V") < text[1].index("X")


def test_what_explodes_does_not_press_the_rest_flat() -> None:
    lines = as_text(picture(POINTS, SMOOTH, MARKS, ENDS, (100, 24), ascii=True)).splitlines()
    labels = [float(label) for line in lines[1:-2] if (label := line[:7].strip())]
    assert max(labels) < 2 * POINTS[0][1] and min(labels) >= 0


def test_a_loss_that_is_no_number_is_shown_as_a_cross() -> None:
    points = [*POINTS[:40], (1e-2, float("nan"))]
    lines = picture(points, (), Marks(), ENDS, (100, 20), ascii=True)
    assert any(text == "x" and role == "diverged" for text, role in lines[1])


def test_without_points_there_are_axes_alone() -> None:
    lines = picture((), (), Marks(), ENDS, (79, 14), ascii=False)
    assert len(lines) == 14 and "1e-5" in as_text(lines)


def test_what_has_no_room_leaves_the_legend_whole_parts_at_a_time() -> None:
    legend = as_text(picture(POINTS, SMOOTH, MARKS, ENDS, (50, 14), ascii=False)[:1])
    assert "╞═╡" in legend and "loss over" not in legend and len(legend) <= 50


@pytest.mark.parametrize(
    ("rate", "text"),
    [(3e-4, "3e-4"), (1.5e-5, "1.5e-5"), (1.0, "1"), (2.5, "2.5"), (0.0634, "6.3e-2")],
)
def test_rates_are_written_in_two_digits(rate: float, text: str) -> None:
    assert rate_text(rate) == text
