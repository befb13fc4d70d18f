"""The picture of a learning-rate range test: loss over the rate, in logarithms. Pure text with the role of each piece.

The dashboard colours the roles; the command line prints the text alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tui.widgets import axis, braille
from tui.widgets.braille import Canvas, View

Role = Literal["axis", "raw", "smooth", "steepest", "diverged", "range", "text"]
Cell = tuple[str, Role]

MOST_ABOVE = 0.6
"""How far above its start the loss is drawn, as a share of how far it fell: what explodes leaves the picture."""
_GUTTER = 8
_RAW, _SMOOTH = 0, 1


@dataclass(frozen=True, slots=True)
class Marks:
    """What is marked on the axis of rates; None where it is not known (yet)."""

    steepest: float | None = None
    diverged_at: float | None = None
    low: float | None = None
    high: float | None = None


def picture(
    raw: Sequence[tuple[float, float]],
    smooth: Sequence[tuple[float, float]],
    marks: Marks,
    rates: tuple[float, float],
    size: tuple[int, int],
    *,
    ascii: bool,
) -> list[list[Cell]]:
    """Lines of pieces, exactly `size` (columns, rows) large: a legend, the curve, the range, the rates.

    `raw` and `smooth` are (learning rate, loss), rates ascending from `rates[0]` to at most `rates[1]`, the ends of the
    test. Losses that are not finite are drawn as a cross at the upper edge.
    """
    width, height = size
    if height < 6 or width < _GUTTER + 16:
        return [[("", "text")] for _ in range(height)]
    plot = _Plot(raw, smooth, marks, rates, (width - _GUTTER, height - 3), ascii)
    return [_legend(marks, width, ascii), *plot.rows(), plot.range_row(), plot.rate_row()]


def as_text(lines: Sequence[Sequence[Cell]]) -> str:
    """The picture for a terminal that gets no colours."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def signs(ascii: bool) -> dict[Role, str]:
    """The sign of each mark."""
    if ascii:
        return {"steepest": "V", "diverged": "X", "range": "[=]"}
    return {"steepest": "▼", "diverged": "✗", "range": "╞═╡"}


def _legend(marks: Marks, width: int, ascii: bool) -> list[Cell]:
    """What is drawn and what is marked; what has no room is left out from the least telling on."""
    sign = signs(ascii)
    said: list[tuple[int, Cell]] = [(3, ("loss over learning rate", "text"))]
    if marks.steepest is not None:
        text = f"{sign['steepest']} steepest {rate_text(marks.steepest)}"
        said.append((2, (text, "steepest")))
    if marks.diverged_at is not None:
        text = f"{sign['diverged']} diverges {rate_text(marks.diverged_at)}"
        said.append((1, (text, "diverged")))
    if marks.low is not None and marks.high is not None:
        text = f"{sign['range']} {rate_text(marks.low)} .. {rate_text(marks.high)}"
        said.append((0, (text, "range")))
    while said and sum(len(cell[0]) + 3 for _, cell in said) - 3 > width:
        said.remove(max(said))
    line: list[Cell] = []
    for _, cell in said:
        line += [("   ", "text"), cell] if line else [cell]
    return line


def rate_text(rate: float) -> str:
    """A learning rate in two digits: 3e-4, 1.5e-5, 1."""
    mantissa, _, exponent = f"{rate:.1e}".partition("e")
    return mantissa.removesuffix(".0") + (f"e{int(exponent)}" if int(exponent) else "")


class _Plot:
    """The curve in its cells, with the axes around it."""

    def __init__(
        self,
        raw: Sequence[tuple[float, float]],
        smooth: Sequence[tuple[float, float]],
        marks: Marks,
        rates: tuple[float, float],
        size: tuple[int, int],
        ascii: bool,
    ) -> None:
        self.ascii, self.marks = ascii, marks
        self.width, self.height = size
        self.low, self.high = (math.log10(rate) for rate in rates)
        self.canvas = Canvas(self.width, self.height, ascii=ascii)
        self.y = axis.linear_axis(*_values(raw, smooth), max(2, self.height // 3))
        view = View(self.low, self.high, self.y.low, self.y.high)
        self.bad: dict[int, str] = {}
        for owner, points in ((_RAW, raw), (_SMOOTH, smooth)):
            series = braille.prepare([(math.log10(x), y) for x, y in points if x > 0])
            missed = braille.draw(self.canvas, series, view, owner)
            if owner == _RAW:
                self.bad = {column: "x" for column, _ in missed}

    def column(self, rate: float | None) -> int | None:
        """The cell column of a rate; None where it is not in the picture."""
        if rate is None or rate <= 0 or not self.low <= math.log10(rate) <= self.high:
            return None
        return braille.position(math.log10(rate), self.low, self.high, self.width)

    def rows(self) -> list[list[Cell]]:
        labels = {
            braille.row(tick, self.y.low, self.y.high, self.height): tick for tick in self.y.ticks
        }
        step = abs(self.y.ticks[1] - self.y.ticks[0]) if len(self.y.ticks) > 1 else None
        lines = []
        for y in range(self.height):
            label = axis.value_label(labels[y], step) if y in labels else ""
            edge = ("+" if self.ascii else "┤") if y in labels else ("|" if self.ascii else "│")
            lines.append(
                [(label.rjust(_GUTTER - 1)[: _GUTTER - 1] + edge, "axis"), *self._cells(y)]
            )
        return lines

    def _cells(self, y: int) -> list[Cell]:
        upright = "|" if self.ascii else "╎"
        steepest, diverged = self.column(self.marks.steepest), self.column(self.marks.diverged_at)
        sign = signs(self.ascii)
        cells: list[Cell] = []
        for x, character in enumerate(self.canvas.text(y, (".", "*"))):
            if y == 0 and x in (steepest, diverged):
                role: Role = "diverged" if x == diverged else "steepest"
                cells.append((sign[role], role))
            elif character != " ":
                cells.append((character, "smooth" if self.canvas.owner[y][x] == _SMOOTH else "raw"))
            elif y == 0 and x in self.bad:
                cells.append((self.bad[x], "diverged"))
            elif x == diverged:
                cells.append((upright, "diverged"))
            elif x == steepest:
                cells.append((upright, "steepest"))
            else:
                cells.append((" ", "text"))
        return cells

    def range_row(self) -> list[Cell]:
        """The suggested range as a bar on the axis of rates."""
        first, last = self.column(self.marks.low), self.column(self.marks.high)
        base = "-" if self.ascii else "─"
        corner = "+" if self.ascii else "└"
        head: Cell = (" " * (_GUTTER - 1) + corner, "axis")
        if first is None or last is None or last <= first:
            return [head, (base * self.width, "axis")]
        ends = signs(self.ascii)["range"]
        bar = ends[0] + ends[1] * (last - first - 1) + ends[2]
        return [
            head,
            (base * first, "axis"),
            (bar, "range"),
            (base * (self.width - last - 1), "axis"),
        ]

    def rate_row(self) -> list[Cell]:
        """A label under each power of ten that has room for it."""
        cells = [" "] * (self.width + _GUTTER)
        free = 0
        for power in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1):
            label = "1" if power == 0 else f"1e{power}"
            at = braille.position(float(power), self.low, self.high, self.width) + _GUTTER
            start = min(len(cells) - len(label), max(0, at - len(label) // 2))
            if start >= free:
                cells[start : start + len(label)] = label
                free = start + len(label) + 1
        return [("".join(cells), "axis")]


def _values(
    raw: Sequence[tuple[float, float]], smooth: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """From the least loss to a little above where it began: how it explodes would press all else flat."""
    ys = [y for _, y in (smooth or raw) if math.isfinite(y)]
    every = [y for _, y in raw if math.isfinite(y)] or ys
    if not every:
        return 0.0, 1.0
    start = every[: max(1, len(every) // 10)]
    begin, least = sum(start) / len(start), min(ys or every)
    top = max(begin + MOST_ABOVE * (begin - least), max(start))
    return least, max(min(top, max(every)), least + 1e-3 * abs(least) + 1e-9)
