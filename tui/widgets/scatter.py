"""Trials as dots over one parameter, in a terminal: a dot is a character, so that its shape says what became of it."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from tui.widgets import axis, braille
from tui.widgets.axis import Axis
from tui.widgets.lines import LineWidget, Piece, clean, fit, line

__all__ = ["Dot", "Horizontal", "ScatterPlot", "value_range"]

_MAX_LABEL = 8
_FAR = 6.0
"""Where the worst lies so many times as far from the best as the median does, the scale leaves the far ones out …"""
_KEPT = 3.0
"""… and holds those up to so many times."""
_MOST_TICKS = 8
_NEAR = 2
"""A click so many cells beside a dot still means it."""

Shape = Literal["best", "done", "dropped", "open", "diverged", "out"]
"""What became of a trial; in the order in which one hides another."""
_GLYPHS: Mapping[Shape, tuple[str, str]] = {
    "best": ("★", "*"),
    "done": ("●", "o"),
    "open": ("◇", "~"),
    "dropped": ("○", "."),
    "diverged": ("↑", "^"),
    "out": ("✗", "x"),
}
_ORDER: tuple[Shape, ...] = ("best", "done", "open", "dropped", "diverged", "out")
_WORDS: Mapping[Shape, str] = {
    "best": "best",
    "done": "whole probe",
    "open": "at a rung",
    "dropped": "dropped",
    "diverged": "diverged",
    "out": "no value",
}


@dataclass(frozen=True)
class Dot:
    """A trial. `x` is a share of the width, 0 … 1; `y` its value, None or not finite where it has none."""

    key: int
    x: float
    y: float | None
    shape: Shape
    label: str = ""
    """What is said of it while the cursor is on it."""


@dataclass(frozen=True)
class Horizontal:
    """The axis below: its labels, and what is known to be safe. Places are shares of the width."""

    ticks: tuple[tuple[float, str], ...] = ()
    choices: int = 0
    """How many choices stand side by side; 0 for a range."""
    safe: float | None = None
    """Up to here nothing diverged, with a distance."""
    bad: float | None = None
    """From here on something diverged."""


@dataclass
class _Picture:
    width: int
    height: int
    y: Axis
    gutter: int
    rows: int
    """Rows of the plot, that of those outside of the scale included."""
    edge: int | None
    """The row for those without a place on the scale, None where there is none."""
    cells: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """By row and column: the indexes of the dots there, the most telling first."""
    at: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Where a dot was drawn, by its key."""
    order: list[int] = field(default_factory=list)
    """Keys from left to right."""

    @property
    def columns(self) -> int:
        return max(1, self.width - self.gutter)


def value_range(values: Sequence[float], *, high_is_good: bool) -> tuple[float, float]:
    """Which values a scale should hold: all, but for those so far off that they would press the others flat.

    `values` are finite and not empty.
    """
    ordered = sorted(values, reverse=high_is_good)
    best, worst = ordered[0], ordered[-1]
    # The better half tells how far apart good settings lie; of few values all belong there.
    half = abs(ordered[(len(ordered) - 1) // 2] - best)
    if len(ordered) >= 4 and half > 0 and abs(worst - best) > _FAR * half:
        worst = next(v for v in reversed(ordered) if abs(v - best) <= _KEPT * half)
    return min(best, worst), max(best, worst)


class ScatterPlot(LineWidget):
    """Draws `Dot`s over a `Horizontal`; the screen says on which of them the cursor is."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "scatter--axis",
        "scatter--safe",
        "scatter--bad",
        *(f"scatter--{shape}" for shape in _ORDER),
    }
    DEFAULT_CSS = """
    ScatterPlot { height: 1fr; width: 1fr; min-height: 3; }
    ScatterPlot > .scatter--axis { color: $text-muted; }
    ScatterPlot > .scatter--safe { color: $success; }
    ScatterPlot > .scatter--bad { color: $error; }
    ScatterPlot > .scatter--best { color: $success; text-style: bold; }
    ScatterPlot > .scatter--done { color: $primary; }
    ScatterPlot > .scatter--open { color: $accent; }
    ScatterPlot > .scatter--dropped { color: $secondary; }
    ScatterPlot > .scatter--diverged { color: $error; }
    ScatterPlot > .scatter--out { color: $warning; }
    """

    class Picked(Message):
        """A dot was clicked."""

        def __init__(self, plot: ScatterPlot, key: int) -> None:
            super().__init__()
            self.plot = plot
            self.key = key

        @property
        def control(self) -> ScatterPlot:
            return self.plot

    def __init__(
        self,
        *,
        empty_text: str = "no trial has a value yet",
        ascii: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(ascii=ascii, id=id)
        self._empty_text = empty_text
        self._dots: tuple[Dot, ...] = ()
        self._x = Horizontal()
        self._high_is_good = False
        self._log = False
        self._chosen: int | None = None
        self._picture: _Picture | None = None

    # -- what the screen calls ----------------------------------------------------------------

    def set_dots(
        self, dots: Sequence[Dot], horizontal: Horizontal, *, high_is_good: bool = False
    ) -> None:
        """Show these dots; those without a value stand at the end of the scale that is not good."""
        shown = (tuple(dots), horizontal, high_is_good)
        if shown != (self._dots, self._x, self._high_is_good):
            self._dots, self._x, self._high_is_good = shown
            self._changed()

    @property
    def horizontal(self) -> Horizontal:
        """The axis below."""
        return self._x

    def set_empty_text(self, text: str) -> None:
        """What to say where there are no dots."""
        self._empty_text = text
        self.sync()

    def choose(self, key: int | None) -> None:
        """Put the cursor on a dot."""
        if key != self._chosen:
            self._chosen = key
            self.sync()

    def toggle_log(self) -> bool:
        """Switch between a linear and a logarithmic value axis; whether it is logarithmic now."""
        self._log = not self._log
        self._changed()
        return self._log

    def label(self, key: int) -> str:
        """What is said of a dot; "" where there is none."""
        return next((clean(dot.label) for dot in self._dots if dot.key == key), "")

    def beside(self, by: int, among: Container[int]) -> int | None:
        """The key, one of `among`, of the dot to the right (by 1) or to the left (by -1) of the chosen one; None at
        the end."""
        order = sorted(self._dots, key=lambda d: (d.x, d.y is None, d.y or 0.0, d.key))
        keys = [dot.key for dot in order if dot.key in among]
        if self._chosen not in keys:
            return keys[0 if by > 0 else -1] if keys else None
        index = keys.index(self._chosen) + by
        return keys[index] if 0 <= index < len(keys) else None

    # -- state --------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._picture = None
        self.sync()

    def notify_style_update(self) -> None:
        self._picture = None
        super().notify_style_update()

    def on_click(self, event: events.Click) -> None:
        offset, picture = event.get_content_offset(self), self._picture
        if offset is None or picture is None:
            return
        row, column = offset.y - 1, offset.x - picture.gutter
        near = [
            (abs(r - row) * 2 + abs(c - column), key)
            for key, (r, c) in picture.at.items()
            if abs(r - row) <= 1 and abs(c - column) <= _NEAR
        ]
        if near:
            self.post_message(self.Picked(self, min(near)[1]))

    # -- drawing ------------------------------------------------------------------------------

    def build_line(self, y: int, width: int) -> Strip:
        base, height = self.rich_style, self.size.height
        if not self._dots:
            text = self._empty_text if y == height // 2 else ""
            return line([(fit(text, width, align="center", ascii=self.ascii), base)], width, base)
        if y == 0:
            return line(self._legend(width), width, base)
        picture = self._picture
        if picture is None or (picture.width, picture.height) != (width, height):
            picture = self._picture = self._draw(width, height)
        row = y - 1
        if row < picture.rows:
            return line(self._plot_pieces(picture, row), width, base)
        if row == picture.rows:
            return line(self._axis_pieces(picture), width, base)
        return line(self._tick_pieces(picture), width, base)

    def _draw(self, width: int, height: int) -> _Picture:
        values = [d.y for d in self._dots if self._drawable(d.y)]
        rows = max(1, height - 3)
        scale = self._scale(values, rows)  # type: ignore[arg-type]
        off = [d for d in self._dots if not self._inside(d.y, scale)]
        edge = None
        if off and rows > 1:
            edge = rows - 1 if self._high_is_good else 0
        labels = [self._tick(scale, tick) for tick in scale.ticks] if values else [""]
        if edge is not None:
            labels.append(self._edge_label(off))
        gutter = min(_MAX_LABEL, max(map(len, labels))) + 1
        picture = _Picture(width, height, scale, gutter, rows, edge)
        for index in sorted(range(len(self._dots)), key=self._telling):
            dot = self._dots[index]
            row = self._row(picture, dot)
            column = self._column(picture, dot, row)
            picture.cells.setdefault((row, column), []).append(index)
            picture.at[dot.key] = (row, column)
        return picture

    def _telling(self, index: int) -> tuple[int, int]:
        dot = self._dots[index]
        return _ORDER.index(dot.shape), index

    def _drawable(self, value: float | None) -> bool:
        return value is not None and math.isfinite(value) and (value > 0 or not self._log)

    def _scale(self, values: Sequence[float], rows: int) -> Axis:
        ticks = max(2, min(_MOST_TICKS, rows // 2))
        if not values:
            return Axis(0.0, 1.0, ())
        low, high = value_range(values, high_is_good=self._high_is_good)
        make = axis.log_axis if self._log else axis.linear_axis
        return make(low, high, ticks)

    def _inside(self, value: float | None, scale: Axis) -> bool:
        if value is None or not self._drawable(value):
            return False
        slack = 1e-9 * max(abs(scale.low), abs(scale.high))
        return scale.low - slack <= value <= scale.high + slack

    def _edge_label(self, off: Sequence[Dot]) -> str:
        if any(self._drawable(dot.y) for dot in off):
            return "below" if self._high_is_good else "above"
        return "no value"

    def _row(self, picture: _Picture, dot: Dot) -> int:
        if not self._inside(dot.y, picture.y):
            return picture.edge if picture.edge is not None else 0
        assert dot.y is not None
        return self._first(picture) + self._level(picture, dot.y)

    def _first(self, picture: _Picture) -> int:
        """The first row of the scale itself."""
        return 1 if picture.edge == 0 else 0

    def _level(self, picture: _Picture, value: float) -> int:
        rows = picture.rows - (picture.edge is not None)
        return braille.row(value, picture.y.low, picture.y.high, rows, log=self._log)

    def _column(self, picture: _Picture, dot: Dot, row: int) -> int:
        column = braille.position(dot.x, 0.0, 1.0, picture.columns)
        if not self._x.choices:
            return column
        # Trials of one choice would lie on top of each other: they stand side by side as far as there is room.
        room = max(0, picture.columns // (2 * self._x.choices) - 1)
        for step in _outwards(room):
            at = column + step
            if 0 <= at < picture.columns and (row, at) not in picture.cells:
                return at
        return column

    def _tick(self, scale: Axis, tick: float) -> str:
        if scale.log or len(scale.ticks) < 2:
            return axis.value_label(tick)
        return axis.value_label(tick, abs(scale.ticks[1] - scale.ticks[0]))

    def _glyph(self, shape: Shape) -> str:
        return _GLYPHS[shape][1 if self.ascii else 0]

    def _legend(self, width: int) -> list[Piece]:
        base = self.rich_style
        present = {dot.shape for dot in self._dots}
        pieces: list[Piece] = [("[log] ", self.part_style("scatter--axis"))] if self._log else []
        for shape in _ORDER:
            if shape in present:
                pieces.append((self._glyph(shape), self.part_style(f"scatter--{shape}")))
                pieces.append((f" {_WORDS[shape]}  ", base))
        chosen = next((d for d in self._dots if d.key == self._chosen), None)
        if chosen is None or not chosen.label:
            return pieces
        room = width - sum(cell_len(text) for text, _ in pieces)
        label = clean(chosen.label)
        if room < cell_len(label):
            return pieces
        return [*pieces, (fit(label, room, align="right"), base + Style(bold=True))]

    def _plot_pieces(self, picture: _Picture, row: int) -> list[Piece]:
        base, muted = self.rich_style, self.part_style("scatter--axis")
        label, marked = "", False
        if row == picture.edge:
            label = self._edge_label([d for d in self._dots if not self._inside(d.y, picture.y)])
        else:
            for tick in picture.y.ticks:
                if self._first(picture) + self._level(picture, tick) == row:
                    label, marked = self._tick(picture.y, tick), True
        bar = ("+" if marked else "|") if self.ascii else ("┤" if marked else "│")
        head = fit(label, picture.gutter - 1, align="right", ascii=self.ascii) + bar
        pieces: list[Piece] = [(head, muted)]
        running = base
        for column in range(picture.columns):
            indexes = picture.cells.get((row, column))
            if not indexes:
                pieces.append((" ", running))
                continue
            dot, chosen = self._dots[indexes[0]], False
            for index in indexes:
                if self._dots[index].key == self._chosen:
                    dot, chosen = self._dots[index], True
            # Blanks go on in the dot's own style, chosen or not: else moving the cursor would repaint them.
            running = self.part_style(f"scatter--{dot.shape}")
            over = Style(reverse=True, bold=True) if chosen else Style.null()
            pieces.append((self._glyph(dot.shape), running + over))
        return pieces

    def _axis_pieces(self, picture: _Picture) -> list[Piece]:
        """The axis itself: thick and green where it is safe, dotted and red where something diverged."""
        plain, safe, bad = ("-", "=", "x") if self.ascii else ("─", "━", "╌")
        muted = self.part_style("scatter--axis")
        last = picture.columns - 1
        until = -1 if self._x.safe is None else math.floor(self._x.safe * last)
        since = last + 1 if self._x.bad is None else round(self._x.bad * last)
        pieces: list[Piece] = [(" " * (picture.gutter - 1) + ("+" if self.ascii else "└"), muted)]
        for column in range(picture.columns):
            if column >= since:
                pieces.append((bad, self.part_style("scatter--bad")))
            elif column <= until:
                pieces.append((safe, self.part_style("scatter--safe")))
            else:
                pieces.append((plain, muted))
        return pieces

    def _tick_pieces(self, picture: _Picture) -> list[Piece]:
        cells = place_labels(self._x.ticks, picture.columns, ascii=self.ascii)
        return [(" " * picture.gutter + cells, self.part_style("scatter--axis"))]


def place_labels(ticks: Sequence[tuple[float, str]], width: int, *, ascii: bool) -> str:
    """A line of labels, each below its place; those that would touch the one before are left out."""
    text, used = "", 0
    longest = max(6, width // max(1, len(ticks)) - 1)
    for share, label in ticks:
        label = clean(label)
        if cell_len(label) > longest:
            label = fit(label, longest, ascii=ascii)
        size = cell_len(label)
        at = braille.position(share, 0.0, 1.0, width)
        start = min(width - size, max(0, at - size // 2))
        if start < used + (1 if text else 0):
            continue
        text += " " * (start - used) + label
        used = start + size
    return text


def _outwards(room: int) -> Iterator[int]:
    """0, 1, -1, 2, -2 … up to `room`."""
    yield 0
    for step in range(1, room + 1):
        yield step
        yield -step
