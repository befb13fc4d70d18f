"""A chart of loss over steps for a terminal at the end of a slow link.

Its axes end at round numbers and move only when the data outgrows them, so that a new point
changes one or two lines of text instead of all of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.strip import Strip

from tui.widgets import axis, braille
from tui.widgets.axis import Axis
from tui.widgets.braille import Canvas, View
from tui.widgets.chart_series import (
    COLOURS,
    ChartSeries,
    Prepared,
    first_and_last,
    prepare,
    value_at,
)
from tui.widgets.lines import LineWidget, Piece, clean, fit, line

__all__ = ["EMPTY_TEXT", "ChartSeries", "LossChart"]

EMPTY_TEXT = "no points yet: the first loss appears after logging_steps"
_MAX_LABEL = 8
_MIN_SHARE = 1e-4


@dataclass
class _Picture:
    """What `build_line` reads: everything of the chart that takes work to find out, once."""

    width: int
    height: int
    x: Axis
    y: Axis
    gutter: int
    canvas: Canvas
    looks: list[tuple[int, bool]]
    """Of each owner in the canvas: the index of its colour, and whether it is dim."""
    marks: dict[tuple[int, int], tuple[str, str, int]] = field(default_factory=dict)
    """By cell (row, column): a glyph, its component class or "" for a colour, and that colour."""
    notes: list[tuple[int, str]] = field(default_factory=list)
    """Of the non-finite points: the cell column and what to say."""


class LossChart(LineWidget):
    """Draws one or several `ChartSeries`, of losses or of anything else over steps.

    The screen that holds it binds keys to its methods.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "loss-chart--axis",
        "loss-chart--bad",
        "loss-chart--cursor",
        *(f"loss-chart--series-{i}" for i in range(COLOURS)),
    }
    DEFAULT_CSS = """
    LossChart { height: 1fr; width: 1fr; min-height: 3; }
    LossChart > .loss-chart--axis { color: $text-muted; }
    LossChart > .loss-chart--bad { color: $text-error; text-style: bold; }
    LossChart > .loss-chart--cursor { text-style: bold; }
    LossChart > .loss-chart--series-0 { color: $primary; }
    LossChart > .loss-chart--series-1 { color: $warning; }
    LossChart > .loss-chart--series-2 { color: $success; }
    LossChart > .loss-chart--series-3 { color: $accent; }
    LossChart > .loss-chart--series-4 { color: $error; }
    LossChart > .loss-chart--series-5 { color: $secondary; }
    """

    def __init__(
        self,
        *,
        title: str = "",
        empty_text: str = EMPTY_TEXT,
        from_zero: bool = False,
        ascii: bool = False,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`from_zero`: the value axis begins at 0, so that heights compare."""
        super().__init__(ascii=ascii, name=name, id=id, classes=classes)
        self._from_zero = from_zero
        self._title = title
        self._empty_text = empty_text
        self._series: list[Prepared] = []
        self._x_end: float | None = None
        self._log = False
        self._smooth = False
        self._window: tuple[float, float] | None = None
        self._cursor: float | None = None
        self._picture: _Picture | None = None

    # -- what the screen calls ----------------------------------------------------------------

    def set_series(
        self,
        series: Sequence[ChartSeries],
        *,
        title: str | None = None,
        x_end: float | None = None,
    ) -> None:
        """Show `series` in this order of colours. `x_end` is the last step to come, if known.

        Points that grow at their end only are read from there on: a series is taken for the one
        shown in its place if it begins alike and still has the newest known point where it was.
        """
        if title is not None:
            self._title = title
        self._x_end = x_end
        kept: list[Prepared | None] = [*self._series]
        kept += [None] * len(series)
        self._series = [
            prepare(item, i, kept[i], smooth=self._smooth) for i, item in enumerate(series)
        ]
        self._changed()

    def toggle_log(self) -> bool:
        """Switch between a linear and a logarithmic value axis; whether it is logarithmic now."""
        self._log = not self._log
        self._changed()
        return self._log

    def toggle_smooth(self) -> bool:
        """Show or hide the moving average over the raw points; whether it is shown now."""
        self._smooth = not self._smooth
        self._series = [
            prepare(p.source, i, p, smooth=self._smooth) for i, p in enumerate(self._series)
        ]
        self._changed()
        return self._smooth

    def zoom(self, factor: float) -> None:
        """Show 1/`factor` of the steps shown now (factor > 1 zooms in) around the cursor.

        Without a cursor the newest steps stay in view.
        """
        low, high = self._steps()
        full = self._full_steps()
        span = (high - low) / factor if factor > 0 else high - low
        if span >= full[1] - full[0]:
            self.reset_view()
            return
        span = max(span, (full[1] - full[0]) * _MIN_SHARE)
        newest = max((p.data.xs[-1] for p in self._series if p.data.xs), default=high)
        centre = self._cursor if self._cursor is not None else None
        start = min(high, newest) - span if centre is None else centre - span / 2
        self._move_to(start, span)

    def pan(self, dx: float) -> None:
        """Move the window by `dx` of its width (0.25: a quarter to the right)."""
        low, high = self._steps()
        self._move_to(low + dx * (high - low), high - low)

    def reset_view(self) -> None:
        """Show all steps again."""
        self._window = None
        self._changed()

    def cursor_left(self) -> None:
        """Read the value one cell further to the left."""
        self._move_cursor(-1)

    def cursor_right(self) -> None:
        """Read the value one cell further to the right."""
        self._move_cursor(1)

    def cursor_off(self) -> None:
        """Hide the readout."""
        self._cursor = None
        self._changed()

    @property
    def readout(self) -> str:
        """Step and values under the cursor, or "" without one."""
        if self._cursor is None:
            return ""
        parts = [f"step {axis.step_label(self._cursor)}"]
        for prepared in self._series:
            value = value_at(prepared.data, self._cursor)
            if value is not None:
                parts.append(f"{clean(prepared.source.label)} {value:.5g}")
        return "  ".join(parts)

    # -- state --------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._picture = None
        self.sync()

    def _full_steps(self) -> tuple[float, float]:
        """All steps, ended by a round number or by the announced end."""
        ends = [x for p in self._series for x in first_and_last(p.data)]
        if not ends:
            return 0.0, self._x_end or 1.0
        low, high = min(ends), max(ends)
        if 0 < low <= high * 0.25:
            low = 0.0
        announced = self._x_end is not None and self._x_end >= high
        high = self._x_end or high if announced else low + axis.nice_ceiling(high - low)
        return low, high if high > low else low + 1

    def _steps(self) -> tuple[float, float]:
        return self._window or self._full_steps()

    def _move_to(self, start: float, span: float) -> None:
        low, high = self._full_steps()
        start = min(max(low, start), high - span)
        self._window = (start, start + span) if span < high - low else None
        self._changed()

    def _move_cursor(self, direction: int) -> None:
        xs = next((p.data.xs for p in self._series if p.data.xs and not p.source.dim), None)
        xs = xs or next((p.data.xs for p in self._series if p.data.xs), None)
        if not xs:
            return
        low, high = self._steps()
        if self._cursor is None:
            inside = bisect_right(xs, high) - 1
            self._cursor = xs[max(0, inside)]
        else:
            cells = max(1, self._picture.canvas.width if self._picture else 1)
            target = self._cursor + direction * (high - low) / cells
            if direction > 0:
                index = max(bisect_left(xs, target), bisect_right(xs, self._cursor))
            else:
                index = min(bisect_right(xs, target), bisect_left(xs, self._cursor)) - 1
            self._cursor = xs[min(len(xs) - 1, max(0, index))]
        if not low <= self._cursor <= high:
            self._move_to(self._cursor - (high - low) / 2, high - low)
        self._changed()

    def notify_style_update(self) -> None:
        self._picture = None
        super().notify_style_update()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the step that was clicked."""
        offset = event.get_content_offset(self)
        picture = self._picture
        if offset is None or picture is None or not self._series:
            return
        share = (offset.x - picture.gutter) / max(1, picture.canvas.width - 1)
        target = picture.x.low + share * (picture.x.high - picture.x.low)
        xs = next((p.data.xs for p in self._series if p.data.xs), [])
        if 0 <= share <= 1 and xs:
            after = min(len(xs) - 1, bisect_left(xs, target))
            near = (xs[max(0, after - 1)], xs[after])
            self._cursor = min(near, key=lambda x: abs(x - target))
            self._changed()

    # -- drawing ------------------------------------------------------------------------------

    def build_line(self, y: int, width: int) -> Strip:
        base, height = self.rich_style, self.size.height
        if y == 0:
            return line(self._title_pieces(width), width, base)
        if all(p.data.empty for p in self._series):
            text = self._empty_text if y == height // 2 else ""
            return line([(fit(text, width, align="center", ascii=self.ascii), base)], width, base)
        picture = self._picture
        if picture is None or (picture.width, picture.height) != (width, height):
            picture = self._picture = self._draw(width, height)
        if y == height - 1 and height > 2:
            return line(self._step_pieces(picture), width, base)
        return line(self._plot_pieces(picture, y - 1), width, base)

    def _draw(self, width: int, height: int) -> _Picture:
        low, high = self._steps()
        rows = max(1, height - 2)
        y = self._value_axis(low, high, max(2, rows // 3))
        labels = [_tick_label(y, tick) for tick in y.ticks]
        gutter = min(_MAX_LABEL, max(map(len, labels), default=1)) + 1
        canvas = Canvas(width - gutter, rows, ascii=self.ascii)
        x = Axis(low, high, _step_ticks(low, high, canvas.width))
        picture = _Picture(width, height, x, y, gutter, canvas, [])
        view = View(low, high, y.low, y.high, y.log)
        for prepared in sorted(self._series, key=lambda p: not p.source.dim):
            self._draw_series(picture, prepared, view)
        if self._cursor is not None:
            self._mark_cursor(picture, view)
        return picture

    def _draw_series(self, picture: _Picture, prepared: Prepared, view: View) -> None:
        canvas, dim = picture.canvas, prepared.source.dim
        raw_dim = dim or prepared.average is not None
        picture.looks.append((prepared.colour, raw_dim))
        bad = braille.draw(canvas, prepared.data, view, len(picture.looks) - 1)
        if prepared.average is not None:
            picture.looks.append((prepared.colour, dim))
            braille.draw(canvas, prepared.average, view, len(picture.looks) - 1)
        for column, (step, value) in bad:
            picture.marks[0, column] = ("x", "loss-chart--bad", 0)
            word = "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
            picture.notes.append((column, f"{word} at step {axis.step_label(step)}"))
        for cell in self._marked_cells(canvas, prepared, view):
            picture.marks.setdefault(cell, (prepared.mark, "", prepared.colour))

    def _marked_cells(
        self, canvas: Canvas, prepared: Prepared, view: View
    ) -> Iterator[tuple[int, int]]:
        """Cells that show the letter of a series: all points of an evaluation, else the last."""
        data = prepared.data
        first, end = bisect_left(data.xs, view.x0), bisect_right(data.xs, view.x1)
        if end <= first or not canvas.width:
            return
        few = prepared.source.style == "eval" and end - first <= canvas.width // 3
        if not few and len(self._series) == 1:
            return
        for i in range(first if few else end - 1, end):
            yield (
                braille.row(data.ys[i], view.y0, view.y1, canvas.rows, log=view.log)
                // canvas.dots_y,
                braille.position(data.xs[i], view.x0, view.x1, canvas.columns) // canvas.dots_x,
            )

    def _mark_cursor(self, picture: _Picture, view: View) -> None:
        canvas = picture.canvas
        assert self._cursor is not None
        column = braille.position(self._cursor, view.x0, view.x1, canvas.columns) // canvas.dots_x
        for prepared in self._series:
            value = value_at(prepared.data, self._cursor)
            if value is not None and view.x0 <= self._cursor <= view.x1:
                at = braille.row(value, view.y0, view.y1, canvas.rows, log=view.log)
                picture.marks[at // canvas.dots_y, column] = ("", "cursor", prepared.colour)

    def _value_axis(self, low: float, high: float, ticks: int) -> Axis:
        make = axis.log_axis if self._log else axis.linear_axis
        telling = self._extremes(low, high, clipped=False) or self._extremes(
            low, high, clipped=True
        )
        if not telling:
            return axis.log_axis(0.1, 10, ticks) if self._log else axis.linear_axis(0, 1, ticks)
        low_value = 0.0 if self._from_zero and not self._log else min(telling)
        return make(min(low_value, *telling), max(telling), ticks)

    def _extremes(self, low: float, high: float, *, clipped: bool) -> list[float]:
        """The least and largest values from step `low` to `high` of the series that are clipped, or not."""
        values: list[float] = []
        for prepared in self._series:
            if prepared.source.clipped is not clipped:
                continue
            data = prepared.data
            part = data.ys[bisect_left(data.xs, low) : bisect_right(data.xs, high)]
            if self._log:
                part = [value for value in part if value > 0]
            if part:
                values += (min(part), max(part))
        return values

    def _colour(self, index: int, *, dim: bool = False) -> Style:
        style = self.part_style(f"loss-chart--series-{index}")
        return style + Style(dim=True) if dim else style

    def _title_pieces(self, width: int) -> list[Piece]:
        base, axis_style = self.rich_style, self.part_style("loss-chart--axis")
        pieces: list[Piece] = [(clean(self._title) + "  ", base)] if self._title else []
        lined = "-" if self.ascii else "─"
        for prepared in self._series:
            sign = prepared.mark if len(self._series) > 1 or prepared.source.style == "eval" else ""
            pieces.append((f"{lined}{sign}{lined} ", self._colour(prepared.colour)))
            pieces.append((clean(prepared.source.label) + "  ", base))
        modes = [("log", self._log), ("smooth", self._smooth), ("zoom", self._window is not None)]
        pieces += [(f"[{name}] ", axis_style) for name, on in modes if on]
        readout = self.readout
        if not readout:
            return pieces
        used = sum(cell_len(text) for text, _ in pieces)
        room = width - used
        cursor = self.part_style("loss-chart--cursor")
        if room < cell_len(readout):
            return [(fit(readout, width, ascii=self.ascii), cursor)]
        return [*pieces, (readout.rjust(room), cursor)]

    def _plot_pieces(self, picture: _Picture, y: int) -> list[Piece]:
        base, axis_style = self.rich_style, self.part_style("loss-chart--axis")
        labels = {
            braille.row(
                tick, picture.y.low, picture.y.high, picture.canvas.height, log=self._log
            ): tick
            for tick in picture.y.ticks
        }
        label = _tick_label(picture.y, labels[y]) if y in labels else ""
        edge = ("+" if self.ascii else "┤") if y in labels else ("|" if self.ascii else "│")
        pieces: list[Piece] = [
            (fit(label, picture.gutter - 1, align="right", ascii=self.ascii) + edge, axis_style)
        ]
        if y >= picture.canvas.height:
            return pieces
        styles = [self._colour(colour, dim=dim) for colour, dim in picture.looks]
        glyphs = [p.mark for p in self._series] if len(styles) > 1 else []
        glyphs = _owner_glyphs(self._series) if glyphs else []
        running = base
        text = picture.canvas.text(y, glyphs)
        notes = self._note_cells(picture) if y == 0 else {}
        for x, character in enumerate(text):
            owner = picture.canvas.owner[y][x]
            # A blank takes the style that is running: a change would be sent for nothing.
            running = styles[owner] if owner >= 0 else running
            style = running
            if mark := picture.marks.get((y, x)):
                glyph, part, colour = mark
                if part == "cursor":
                    style = self._colour(colour) + Style(reverse=True)
                else:
                    character = glyph
                    style = self.part_style(part) if part else self._colour(colour)
            elif x in notes and owner < 0:
                character, style = notes[x], self.part_style("loss-chart--bad")
            pieces.append((character, style))
        return pieces

    def _note_cells(self, picture: _Picture) -> dict[int, str]:
        """The characters of the note on the first non-finite point, by cell column."""
        if not picture.notes:
            return {}
        width = picture.canvas.width
        column, text = min(picture.notes)
        if len(picture.notes) > 1:
            text += f" (+{len(picture.notes) - 1})"
        start = column + 2
        if start + len(text) > width:
            start = max(0, column - 1 - len(text))
        return {start + i: character for i, character in enumerate(text) if start + i < width}

    def _step_pieces(self, picture: _Picture) -> list[Piece]:
        width = picture.canvas.width
        cells = [" "] * width
        free_from = 0
        for tick in picture.x.ticks:
            label = axis.step_label(tick)
            at = braille.position(tick, picture.x.low, picture.x.high, width)
            start = min(width - len(label), max(0, at - len(label) // 2))
            if start >= free_from:
                cells[start : start + len(label)] = label
                free_from = start + len(label) + 1
        style = self.part_style("loss-chart--axis")
        if self._cursor is None:
            return [(" " * picture.gutter + "".join(cells), style)]
        at = braille.position(self._cursor, picture.x.low, picture.x.high, width)
        head = " " * picture.gutter + "".join(cells[:at])
        mark = "^" if self.ascii else "▲"
        cursor = self.part_style("loss-chart--cursor")
        return [(head, style), (mark, cursor), ("".join(cells[at + 1 :]), style)]


def _owner_glyphs(series: Sequence[Prepared]) -> list[str]:
    """The ASCII glyph of each owner in the canvas, in the order in which they were drawn."""
    glyphs: list[str] = []
    for prepared in sorted(series, key=lambda p: not p.source.dim):
        glyphs.append(prepared.mark if prepared.average is None else ".")
        if prepared.average is not None:
            glyphs.append(prepared.mark)
    return glyphs


def _step_ticks(low: float, high: float, width: int) -> tuple[float, ...]:
    step = axis.nice_step(high - low, max(1, width // 10))
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(i * step for i in range(first, min(last, first + 200) + 1))


def _tick_label(of: Axis, tick: float) -> str:
    if of.log or len(of.ticks) < 2:
        return axis.value_label(tick)
    return axis.value_label(tick, abs(of.ticks[1] - of.ticks[0]))
