"""The series of a loss chart: what a caller gives, and the same made ready to be drawn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tui.widgets import braille
from tui.widgets.braille import Point, Series

COLOURS = 6
"""After so many series the colours begin again; the marks are more."""
_MARKS = ("*", "o", "+", "x", "#", "%", "@", "&")


@dataclass(frozen=True)
class ChartSeries:
    """A line of the chart. `points` are (step, value) with steps ascending.

    `style` "eval" also marks each point, as there are few. `dim` puts it in the background. One
    that is `clipped` does not stretch the value axis where others are drawn: it leaves the chart
    at the upper edge, as the loss of a diverged trial would press all others flat.
    """

    label: str
    points: Sequence[Point]
    style: Literal["train", "eval", "other"] = "train"
    dim: bool = False
    clipped: bool = False


@dataclass(frozen=True)
class Prepared:
    """A series ready to draw: its data, its moving average (None: not smoothed), its looks."""

    source: ChartSeries
    data: Series
    average: Series | None
    colour: int
    mark: str
    seen: int
    ends: tuple[Point, Point] | None
    """The first and the newest of the `seen` points."""


def prepare(item: ChartSeries, index: int, kept: Prepared | None, *, smooth: bool) -> Prepared:
    """`item`, the chart's series number `index`, ready to be drawn; `kept` was there before it."""
    points = item.points
    data = _extended(kept, points) or braille.prepare(points)
    average = None
    if smooth and item.style != "eval" and len(data.ys) > 2:
        average = Series(data.xs, braille.smooth(data.ys), [])
    ends = (points[0], points[-1]) if points else None
    mark = _MARKS[index % len(_MARKS)]
    return Prepared(item, data, average, index % COLOURS, mark, len(points), ends)


def _extended(kept: Prepared | None, points: Sequence[Point]) -> Series | None:
    """The data of `kept` with what `points` has more than it; None if that is another series."""
    if kept is None or kept.ends is None or len(points) < kept.seen:
        return None
    if (points[0], points[kept.seen - 1]) != kept.ends:
        return None
    return braille.extend(kept.data, kept.seen, points)


def first_and_last(data: Series) -> list[float]:
    ends = [data.xs[0], data.xs[-1]] if data.xs else []
    return ends + [x for x, _ in (data.bad[:1] + data.bad[-1:])]


def value_at(data: Series, step: float) -> float | None:
    """The value of the last point at or before `step`."""
    index = bisect_right(data.xs, step) - 1
    return data.ys[index] if index >= 0 else None
