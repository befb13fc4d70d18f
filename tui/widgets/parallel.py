"""Parallel coordinates: each trial a line through its values on upright axes, the best on top, in braille."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from tui.widgets import braille
from tui.widgets.braille import Canvas
from tui.widgets.lines import LineWidget, Piece, clean, fit, line

__all__ = ["SHADES", "Line", "ParallelPlot", "Upright", "fitting"]

SHADES = 4
"""Colours from the best to the worst."""
BAD = SHADES
"""The shade of what has no value."""
CELLS_PER_AXIS = 12
"""The least room that an axis needs for its labels and for lines to be told apart."""
_LABEL = 8
_APART = (1, 2, 4, 6, 3)
"""By shade: of how many columns one gets a dot. What does not matter must not hide what does."""
_GLYPHS = ("#", "+", ":", ".", "!")
"""In ASCII, by shade."""


@dataclass(frozen=True)
class Upright:
    """An axis: its title, and labels by their place from 0 (below) to 1."""

    title: str
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Line:
    """A trial: where it crosses each axis, 0 … 1 (None: it has no such value), and its shade, 0 the best."""

    key: int
    at: tuple[float | None, ...]
    shade: int


@dataclass
class _Picture:
    width: int
    height: int
    shown: tuple[int, ...]
    """The indexes of the axes that are drawn, the last one included."""
    columns: list[int]
    """The cell column of each."""
    canvas: Canvas
    labels: dict[tuple[int, int], str] = field(default_factory=dict)
    """Characters of labels and axes by row and column."""


def fitting(count: int, width: int, first: int) -> tuple[int, ...]:
    """Which of `count` axes are drawn in `width` cells: from the `first`, as many as fit, and always the last one."""
    if count <= 1:
        return tuple(range(count))
    room = max(1, min(count - 1, width // CELLS_PER_AXIS - 1))
    start = first % (count - 1) if room < count - 1 else 0
    return (*((start + i) % (count - 1) for i in range(room)), count - 1)


class ParallelPlot(LineWidget):
    """Draws `Line`s through `Upright`s, of which the last is the value and always in sight."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "parallel--axis",
        "parallel--title",
        "parallel--chosen",
        *(f"parallel--{i}" for i in range(SHADES + 1)),
    }
    DEFAULT_CSS = """
    ParallelPlot { height: 1fr; width: 1fr; min-height: 3; }
    ParallelPlot > .parallel--axis { color: $text-muted; }
    ParallelPlot > .parallel--title { color: $foreground; text-style: bold; }
    ParallelPlot > .parallel--chosen { color: $warning; text-style: bold; }
    ParallelPlot > .parallel--0 { color: $success; text-style: bold; }
    ParallelPlot > .parallel--1 { color: $primary; }
    ParallelPlot > .parallel--2 { color: $secondary; text-style: dim; }
    ParallelPlot > .parallel--3 { color: $border; }
    ParallelPlot > .parallel--4 { color: $error; text-style: dim; }
    """

    def __init__(
        self,
        *,
        empty_text: str = "no trial has a value yet",
        ascii: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(ascii=ascii, id=id)
        self._empty_text = empty_text
        self._axes: tuple[Upright, ...] = ()
        self._lines: tuple[Line, ...] = ()
        self._first = 0
        self._chosen: int | None = None
        self._picture: _Picture | None = None
        self._over: Canvas | None = None

    # -- what the screen calls ----------------------------------------------------------------

    def set_lines(self, axes: Sequence[Upright], lines: Sequence[Line]) -> None:
        """Show these lines; each crosses as many axes as there are."""
        shown = (tuple(axes), tuple(lines))
        if shown != (self._axes, self._lines):
            if shown[0] != self._axes:
                self._first = 0
            self._axes, self._lines = shown
            self._changed()

    def set_empty_text(self, text: str) -> None:
        """What to say where there are no lines."""
        self._empty_text = text
        self.sync()

    def choose(self, key: int | None) -> None:
        """Put the cursor on a line."""
        if key != self._chosen:
            self._chosen, self._over = key, None
            self.sync()

    def next_axes(self) -> bool:
        """Move on to axes that had no room; False if all are shown."""
        shown = fitting(len(self._axes), self.size.width, self._first)
        if len(shown) == len(self._axes):
            return False
        self._first = (self._first + len(shown) - 1) % (len(self._axes) - 1)
        self._changed()
        return True

    @property
    def shown(self) -> tuple[str, ...]:
        """The titles of the axes that are drawn."""
        axes = fitting(len(self._axes), self.size.width, self._first)
        return tuple(self._axes[i].title for i in axes)

    # -- drawing ------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._picture = self._over = None
        self.sync()

    def notify_style_update(self) -> None:
        self._picture = None
        super().notify_style_update()

    def build_line(self, y: int, width: int) -> Strip:
        base, height = self.rich_style, self.size.height
        if not self._lines or not self._axes:
            text = self._empty_text if y == height // 2 else ""
            return line([(fit(text, width, align="center", ascii=self.ascii), base)], width, base)
        picture = self._picture
        if picture is None or (picture.width, picture.height) != (width, height):
            picture = self._picture = self._draw(width, height)
            self._over = None
        if self._over is None:
            self._over = self._draw_chosen(picture)
        if y == 0:
            return line([(self._titles(picture), self.part_style("parallel--title"))], width, base)
        return line(self._pieces(picture, self._over, y - 1), width, base)

    def _draw(self, width: int, height: int) -> _Picture:
        shown = fitting(len(self._axes), width, self._first)
        last = max(1, len(shown) - 1)
        # To the right of the last axis its labels need room.
        room = max(1, width - _LABEL - 2)
        columns = [round(i * (room - 1) / last) for i in range(len(shown))]
        picture = _Picture(width, height, shown, columns, self._canvas(width, height))
        self._draw_lines(picture)
        self._label(picture)
        return picture

    def _canvas(self, width: int, height: int) -> Canvas:
        return Canvas(width, max(1, height - 1), ascii=self.ascii)

    def _draw_lines(self, picture: _Picture) -> None:
        canvas = picture.canvas
        # Many trials share a segment: each is drawn once, in the colour of the best of them, worst first.
        shades: dict[tuple[int, int, int], int] = {}
        for item in self._lines:
            for segment in self._segments(picture, item):
                shades[segment] = min(item.shade, shades.get(segment, item.shade))
        order = (BAD, *reversed(range(SHADES)))
        for (place, top, bottom), shade in sorted(shades.items(), key=lambda s: order.index(s[1])):
            left, right = picture.columns[place], picture.columns[place + 1]
            self._stroke(canvas, (left, top), (right, bottom), shade, apart=_APART[shade])

    def _segments(self, picture: _Picture, item: Line) -> list[tuple[int, int, int]]:
        """Of each gap between two axes that the line crosses: its place, and the dot rows at both ends."""
        last = picture.canvas.rows - 1
        crossed = [item.at[i] for i in picture.shown]
        rows = [None if share is None else round((1 - share) * last) for share in crossed]
        return [
            (place, left, right)
            for place, (left, right) in enumerate(pairwise(rows))
            if left is not None and right is not None
        ]

    def _stroke(
        self,
        canvas: Canvas,
        start: tuple[int, int],
        end: tuple[int, int],
        owner: int,
        apart: int = 1,
    ) -> None:
        x0, x1 = start[0] * canvas.dots_x, end[0] * canvas.dots_x
        if apart > 1 and x1 > x0:
            slope = (end[1] - start[1]) / (x1 - x0)
            # Lines of the same kind do not all have their dots in the same columns, or they would form stripes.
            for x in range(x0 + (start[1] + end[1]) % apart, x1 + 1, apart):
                canvas.dot(x, round(start[1] + slope * (x - x0)), owner)
            return
        canvas.dot(x0, start[1], owner)
        if x1 > x0:
            canvas.segment(x0, start[1], x1, end[1], owner)

    def _draw_chosen(self, picture: _Picture) -> Canvas:
        canvas = self._canvas(picture.width, picture.height)
        item = next((i for i in self._lines if i.key == self._chosen), None)
        if item is not None:
            for place, top, bottom in self._segments(picture, item):
                left, right = picture.columns[place], picture.columns[place + 1]
                self._stroke(canvas, (left, top), (right, bottom), 0)
        return canvas

    def _label(self, picture: _Picture) -> None:
        rows = picture.canvas.height
        for index, column in zip(picture.shown, picture.columns, strict=True):
            for row in range(rows):
                picture.labels[row, column] = "|" if self.ascii else "│"
            taken: set[int] = set()
            for share, label in self._axes[index].ticks:
                row = round((1 - share) * (rows - 1))
                if row in taken:
                    continue
                taken.add(row)
                picture.labels[row, column] = "+" if self.ascii else "├"
                self._write(picture, row, column + 1, label)

    def _write(self, picture: _Picture, row: int, column: int, label: str) -> None:
        text = fit(label, min(_LABEL, cell_len(clean(label))), ascii=self.ascii)
        for character in text:
            cells = cell_len(character)
            if cells:
                picture.labels[row, column] = character
            for covered in range(1, cells):
                picture.labels[row, column + covered] = ""
            column += cells

    def _titles(self, picture: _Picture) -> str:
        text = ""
        ends = [*picture.columns[1:], picture.width]
        for index, column, end in zip(picture.shown, picture.columns, ends, strict=True):
            title = clean(self._axes[index].title)
            text += fit(title, max(1, end - column - 1), ascii=self.ascii) + " "
        return text

    def _pieces(self, picture: _Picture, over: Canvas, y: int) -> list[Piece]:
        canvas = picture.canvas
        if y >= canvas.height:
            return []
        base, axis_style = self.rich_style, self.part_style("parallel--axis")
        styles = [self.part_style(f"parallel--{i}") for i in range(SHADES + 1)]
        chosen = self.part_style("parallel--chosen")
        if self.app.no_color:
            chosen += Style(reverse=True)
        under, above = canvas.text(y, _GLYPHS), over.text(y, ("@",))
        pieces: list[Piece] = []
        running = base
        for x in range(picture.width):
            label = picture.labels.get((y, x))
            if above[x] != " " and (label is None or label in "│|"):
                running = chosen
                pieces.append((self._merged(canvas, over, y, x, above[x]), running))
            elif label is not None:
                running = axis_style
                pieces.append((label, running))
            elif under[x] != " ":
                running = styles[canvas.owner[y][x]]
                pieces.append((under[x], running))
            else:
                pieces.append((" ", base if running.reverse else running))
        return pieces

    def _merged(self, canvas: Canvas, over: Canvas, y: int, x: int, alone: str) -> str:
        """The chosen line's dots with those that share their cell."""
        if self.ascii:
            return alone
        return chr(braille.BRAILLE_BASE + (canvas.bits[y][x] | over.bits[y][x]))
