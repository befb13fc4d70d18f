"""Series of numbers as braille dots or ASCII marks: pure functions, no widget.

A braille cell holds 2 × 4 dots. Each dot column shows the whole span from the smallest to the
largest value that falls into it, so a spike of one step stays visible at every zoom (LEET draws
its loss charts like this). Minimum and maximum are taken over slices of sorted lists, which
CPython does in C: 100,000 points cost about 3 ms.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

Point = tuple[float, float]
"""Step and value."""

BRAILLE_BASE = 0x2800
# Bits of the Unicode braille patterns: [row from the top][column].
_BRAILLE_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=^"
NOT_FINITE = "!"


@dataclass(frozen=True)
class Series:
    """Points sorted by step, with the non-finite ones set apart.

    `xs` and `ys` hold the finite points, `bad` those whose value is NaN or infinite.
    """

    xs: list[float]
    ys: list[float]
    bad: list[Point]

    @property
    def empty(self) -> bool:
        return not self.xs and not self.bad


def prepare(points: Sequence[Point]) -> Series:
    """Sort `points` by step where needed and set the non-finite values apart.

    Points whose *step* is not finite have no place on an axis and are left out.
    """
    xs = [float(point[0]) for point in points]
    ys = [float(point[1]) for point in points]
    bad: list[Point] = []
    if not (all(map(math.isfinite, xs)) and all(map(math.isfinite, ys))):
        placed = [point for point in zip(xs, ys, strict=True) if math.isfinite(point[0])]
        bad = sorted((p for p in placed if not math.isfinite(p[1])), key=itemgetter(0))
        finite = [point for point in placed if math.isfinite(point[1])]
        xs = [point[0] for point in finite]
        ys = [point[1] for point in finite]
    if any(map(float.__gt__, xs, xs[1:])):
        order = sorted(range(len(xs)), key=xs.__getitem__)
        xs = [xs[i] for i in order]
        ys = [ys[i] for i in order]
    return Series(xs, ys, bad)


def extend(series: Series, seen: int, points: Sequence[Point]) -> Series:
    """`series`, which was made of the first `seen` of `points`, with the rest of them added."""
    if seen == len(points):
        return series
    rest = prepare(points[seen:])
    if series.xs and rest.xs and rest.xs[0] < series.xs[-1]:
        return prepare(points)
    bad = sorted(series.bad + rest.bad, key=itemgetter(0))
    return Series(series.xs + rest.xs, series.ys + rest.ys, bad)


def smooth(ys: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average without start-up bias, as TensorBoard draws it.

    `weight` is how much of the past is kept per point, 0 ≤ weight < 1. `ys` must be finite.
    """
    average, norm, smoothed = 0.0, 0.0, []
    for value in ys:
        average = weight * average + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(average / norm)
    return smoothed


@dataclass(frozen=True)
class Column:
    """What one dot column shows of a series: its extremes, and the ends that join neighbours."""

    low: float
    high: float
    first: float
    last: float


def columns(series: Series, x0: float, x1: float, count: int) -> list[Column | None]:
    """Bin the finite points with x0 ≤ step ≤ x1 into `count` dot columns (None: no point there)."""
    if count <= 0:
        return []
    result: list[Column | None] = [None] * count
    xs, ys = series.xs, series.ys
    start, end = bisect_left(xs, x0), bisect_right(xs, x1)
    while start < end:
        column = position(xs[start], x0, x1, count)
        stop = end
        if column < count - 1:
            stop = _column_end(xs, start, end, column, (x0, x1, count))
        part = ys[start:stop]
        result[column] = Column(min(part), max(part), part[0], part[-1])
        start = stop
    return result


def _column_end(
    xs: list[float], start: int, end: int, column: int, axis: tuple[float, float, int]
) -> int:
    """The index of the first point after `start` that falls into a later column than `column`."""
    x0, x1, count = axis
    border = x0 + (x1 - x0) * ((column + 0.5) / (count - 1))
    stop = max(start + 1, bisect_left(xs, border, start, end))
    # The border is computed differently from `position`; rounding may leave them a point apart.
    while stop < end and position(xs[stop], x0, x1, count) <= column:
        stop += 1
    return stop


def position(x: float, x0: float, x1: float, count: int) -> int:
    """The index 0 … count-1 at which `x` lies on an axis from x0 to x1; outside values clamp."""
    if not x1 > x0 or count <= 1:
        return 0
    return min(count - 1, max(0, round((x - x0) / (x1 - x0) * (count - 1))))


def row(value: float, y0: float, y1: float, count: int, *, log: bool = False) -> int:
    """The dot row, 0 at the top, of `value` on an axis from y0 (bottom) to y1 (top).

    With `log`, values that have no logarithm lie at the bottom.
    """
    if log:
        if value <= 0 or y0 <= 0:
            return count - 1
        value, y0, y1 = math.log10(value), math.log10(y0), math.log10(y1)
    elif not math.isfinite(y1 - y0):
        # A diverged run can span more than a float does; halves keep the difference finite.
        value, y0, y1 = value / 2, y0 / 2, y1 / 2
    if not y1 > y0:
        return count // 2
    share = min(1.0, max(0.0, (value - y0) / (y1 - y0)))
    return count - 1 - round(share * (count - 1))


@dataclass(frozen=True)
class View:
    """The part of the plane that a plot shows: x0 … x1 by y0 … y1, y in logarithms if `log`."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False


class Canvas:
    """A grid of `width` × `height` cells; each has 2 × 4 dots, or 1 × 2 in ASCII, and an owner.

    The owner is the index of the series drawn last into the cell, or -1.
    """

    def __init__(self, width: int, height: int, *, ascii: bool = False) -> None:
        self.width = max(0, width)
        self.height = max(0, height)
        self.ascii = ascii
        self.dots_x, self.dots_y = (1, 2) if ascii else (2, 4)
        self.bits = [bytearray(self.width) for _ in range(self.height)]
        self.owner = [[-1] * self.width for _ in range(self.height)]

    @property
    def columns(self) -> int:
        """The number of dot columns."""
        return self.width * self.dots_x

    @property
    def rows(self) -> int:
        """The number of dot rows."""
        return self.height * self.dots_y

    def dot(self, x: int, y: int, owner: int) -> None:
        """Set the dot at column `x` and row `y` (0 is the top); outside dots are left out."""
        if 0 <= x < self.columns and 0 <= y < self.rows:
            cell_y, cell_x = y // self.dots_y, x // self.dots_x
            bit = 1 << (y % 2) if self.ascii else _BRAILLE_BITS[y % 4][x % 2]
            self.bits[cell_y][cell_x] |= bit
            self.owner[cell_y][cell_x] = owner

    def stroke(self, x: int, top: int, bottom: int, owner: int) -> None:
        """Set the dots of column `x` from row `top` down to row `bottom`."""
        if not 0 <= x < self.columns:
            return
        # As `dot` does it, without a call for each: pictures of many lines are made of strokes.
        dots_y, cell_x, column = self.dots_y, x // self.dots_x, x % self.dots_x
        if top > bottom:
            top, bottom = bottom, top
        for y in range(max(0, top), min(self.rows - 1, bottom) + 1):
            cell_y = y // dots_y
            bit = 1 << (y % 2) if self.ascii else _BRAILLE_BITS[y % 4][column]
            self.bits[cell_y][cell_x] |= bit
            self.owner[cell_y][cell_x] = owner

    def segment(self, x0: int, y0: int, x1: int, y1: int, owner: int) -> None:
        """Join two dots, exclusive of their columns' other dots; x0 < x1."""
        before = y0
        for x in range(x0 + 1, x1 + 1):
            after = y0 + round((y1 - y0) * (x - x0) / (x1 - x0))
            # One dot less than the step up or down, or a steep line is drawn twice as thick.
            step = (after > before) - (after < before)
            self.stroke(x, before + step, after, owner)
            before = after

    def text(self, y: int, glyphs: Sequence[str] = ()) -> str:
        """Cell row `y` as text. In ASCII, a cell of series i shows glyphs[i] if there is one."""
        if not self.ascii:
            return "".join(chr(BRAILLE_BASE + bits) if bits else " " for bits in self.bits[y])
        return "".join(
            (glyphs[owner] if owner < len(glyphs) else " '.:"[bits]) if bits else " "
            for bits, owner in zip(self.bits[y], self.owner[y], strict=True)
        )


def draw(canvas: Canvas, series: Series, view: View, owner: int) -> list[tuple[int, Point]]:
    """Draw `series` as a joined line, each dot column from its minimum to its maximum.

    Returns the non-finite points within the view, each with the cell column it belongs to: they
    cannot be drawn and must not be dropped silently.
    """

    def at(value: float) -> int:
        return row(value, view.y0, view.y1, canvas.rows, log=view.log)

    # Rounding may put the largest value a hair above an axis that was made for it.
    edge = view.y1 + 1e-6 * (view.y1 - view.y0)
    before: tuple[int, int] | None = None
    was_above = False
    for x, column in enumerate(columns(series, view.x0, view.x1, canvas.columns)):
        if column is None:
            continue
        above = column.low > edge
        # What lies above the view is not drawn along its edge, where it would look like a value.
        if not above:
            canvas.stroke(x, at(column.high), at(column.low), owner)
        if before is not None and not (above and was_above):
            canvas.segment(*before, x, at(column.first), owner)
        before, was_above = (x, at(column.last)), above
    return [
        (position(point[0], view.x0, view.x1, canvas.columns) // canvas.dots_x, point)
        for point in series.bad
        if view.x0 <= point[0] <= view.x1
    ]


def sparkline(
    values: Sequence[float | None],
    width: int,
    ascii: bool = False,
    *,
    low: float | None = None,
    high: float | None = None,
) -> str:
    """One row of exactly `width` eighth blocks; `!` where a value is not finite.

    More values than cells are binned. A bin that holds the largest or the smallest of all values
    shows it; any other shows that of its extremes which differs more from the bin before. Fewer
    values are drawn to the left and filled with blanks. None is a gap. `low` and `high` fix the
    scale; without them it is the values' own.
    """
    if width <= 0 or not values:
        return " " * max(0, width)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    least, most = min(finite, default=0.0), max(finite, default=0.0)
    bottom, top = least if low is None else low, most if high is None else high
    blocks = _ASCII_BLOCKS if ascii else _BLOCKS
    count, text, before = len(values), [], least
    cells = min(width, count)
    for cell in range(cells):
        part = values[cell * count // cells : (cell + 1) * count // cells]
        present = [value for value in part if value is not None]
        if not present:
            text.append(" ")
        elif not all(map(math.isfinite, present)):
            text.append(NOT_FINITE)
        else:
            before = _telling(present, before, least, most)
            text.append(blocks[len(blocks) - 1 - row(before, bottom, top, len(blocks))])
    return "".join(text).ljust(width)


def _telling(values: Sequence[float], before: float, least: float, most: float) -> float:
    """Which of `values` stands for them: an extreme of the whole, or what differs most."""
    low, high = min(values), max(values)
    if high == most or low == least:
        return high if high == most else low
    return high if high / 2 - before / 2 >= before / 2 - low / 2 else low
