"""A table of thousands of live rows whose update costs only what has changed on the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from tui.widgets.braille import sparkline
from tui.widgets.lines import LineWidget, Piece, clean, fit, line

_WIDE = 100
_WHEEL_ROWS = 3


@dataclass(frozen=True)
class Trend:
    """A cell that draws its values as a row of blocks, as wide as the column happens to be."""

    values: Sequence[float | None]
    style: str = ""


Cell = str | Text | Trend


@dataclass(frozen=True)
class Column:
    """A column of the table.

    A `width` is fixed; without one the column takes `min_width` and a share of the spare width,
    up to `max_width`. On a narrow terminal the columns of the lowest `priority` go first.
    """

    key: str
    title: str
    width: int | None = None
    align: Literal["left", "right", "center"] = "left"
    priority: int = 0
    min_width: int = 6
    max_width: int | None = None

    @property
    def least(self) -> int:
        """The width below which the column is of no use."""
        return self.min_width if self.width is None else self.width


class LateCells(Mapping[str, Cell]):
    """Cells that are made when their row is first drawn: of thousands of rows few are ever seen."""

    def __init__(self, make: Callable[[], Mapping[str, Cell]]) -> None:
        self._make = make

    @cached_property
    def _cells(self) -> Mapping[str, Cell]:
        return self._make()

    def __getitem__(self, key: str) -> Cell:
        return self._cells[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


@dataclass(frozen=True)
class Row:
    """A row: cells by column key (missing ones are blank), a rich style, and a mark to compare."""

    key: str
    cells: Mapping[str, Cell] = field(default_factory=dict)
    style: str = ""
    marked: bool = False


@dataclass(frozen=True)
class PlacedColumn:
    """A column that fits, with the width it got."""

    column: Column
    width: int


def lay_out(columns: Sequence[Column], width: int, gap: int) -> list[PlacedColumn]:
    """Which columns fit into `width` cells with `gap` between them, and how wide each is.

    At least one column stays, cut to `width` if need be.
    """
    kept = list(columns)
    while len(kept) > 1 and sum(c.least for c in kept) + gap * (len(kept) - 1) > width:
        # Of equal priority the rightmost goes: people put what matters to the left.
        kept.remove(min(reversed(kept), key=lambda column: column.priority))
    widths = {c.key: min(c.least, max(1, width)) for c in kept}
    spare = width - sum(widths.values()) - gap * max(0, len(kept) - 1)
    growing = [c for c in kept if c.width is None]
    while spare > 0 and growing:
        share = max(1, spare // len(growing))
        for column in list(growing):
            room = spare if column.max_width is None else column.max_width - widths[column.key]
            taken = min(share, spare, max(0, room))
            widths[column.key] += taken
            spare -= taken
            if taken < share:
                growing.remove(column)
    return [PlacedColumn(c, widths[c.key]) for c in kept]


class LiveTable(LineWidget, can_focus=True):
    """Rows under a fixed header, with a cursor that stays on its row when the order changes.

    The caller sorts and filters, and hands over all rows at each change; what differs on the
    screen is found here.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor_up", "Up", show=False, id="table.up"),
        Binding("down,j", "cursor_down", "Down", show=False, id="table.down"),
        Binding("pageup", "page_up", "Page up", show=False, id="table.page_up"),
        Binding("pagedown", "page_down", "Page down", show=False, id="table.page_down"),
        Binding("home,g", "cursor_first", "First", show=False, id="table.first"),
        Binding("end,G", "cursor_last", "Last", show=False, id="table.last"),
        Binding("enter", "select", "Open", show=False, id="table.select"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "live-table--header",
        "live-table--cursor",
        "live-table--cursor-blurred",
        "live-table--mark",
        "live-table--scrollbar",
        "live-table--empty",
    }
    DEFAULT_CSS = """
    LiveTable { height: 1fr; width: 1fr; min-height: 2; }
    LiveTable > .live-table--header { color: $text-muted; text-style: bold; }
    LiveTable > .live-table--cursor { background: $primary 40%; text-style: bold; }
    LiveTable > .live-table--cursor-blurred { background: $foreground 15%; }
    LiveTable > .live-table--mark { color: $warning; }
    LiveTable > .live-table--scrollbar { color: $text-muted; }
    LiveTable > .live-table--empty { color: $text-muted; }
    """

    class RowMessage(Message):
        """About one row."""

        def __init__(self, table: LiveTable, row_key: str) -> None:
            super().__init__()
            self.table = table
            self.row_key = row_key

        @property
        def control(self) -> LiveTable:
            return self.table

    class RowHighlighted(RowMessage):
        """The cursor came to another row. Only the newest of a burst is delivered."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LiveTable.RowHighlighted) and message.table is self.table

    class RowSelected(RowMessage):
        """Enter on a row, or a click on the row under the cursor."""

    class HeaderSelected(Message):
        """A click on a column's title; the caller sorts."""

        def __init__(self, table: LiveTable, column_key: str) -> None:
            super().__init__()
            self.table = table
            self.column_key = column_key

        @property
        def control(self) -> LiveTable:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column] = (),
        *,
        empty_text: str = "nothing here yet",
        ascii: bool = False,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(ascii=ascii, name=name, id=id, classes=classes)
        self._columns = list(columns)
        self._rows: Sequence[Row] = ()
        self._index: dict[str, int] = {}
        self._cursor_key: str | None = None
        self._top = 0
        self._sort: tuple[str, bool] | None = None
        self._empty_text = empty_text

    # -- what the screen calls ----------------------------------------------------------------

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Show these columns from now on, in this order."""
        self._columns = list(columns)
        self.sync()

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show `rows`, whose keys are unique, in this order.

        The cursor stays on its row's key; if that row is gone, on the row now in its place.
        Raises ValueError for a key that comes twice.
        """
        index = {row.key: i for i, row in enumerate(rows)}
        if len(index) != len(rows):
            raise ValueError("a table's rows need different keys")
        before = self.cursor_index
        was_visible = before is not None and self._top <= before < self._top + self._page
        self._rows, self._index = rows, index
        self._top = min(self._top, self._last_top)
        if self._cursor_key not in index:
            self._move_to(before or 0, reveal=was_visible)
        elif was_visible:
            self._reveal(index[self._cursor_key])
        self.sync()

    def set_sort(self, key: str | None, *, descending: bool = False) -> None:
        """Mark the column by which the caller sorts the rows; None: no mark."""
        self._sort = None if key is None else (key, descending)
        self.sync()

    def set_empty_text(self, text: str) -> None:
        """What to say when there are no rows."""
        self._empty_text = text
        self.sync()

    def move_cursor(self, key: str) -> bool:
        """Put the cursor on the row `key` and show it; False if there is none."""
        if key not in self._index:
            return False
        self._move_to(self._index[key])
        return True

    @property
    def rows(self) -> Sequence[Row]:
        """The rows as they were given last."""
        return self._rows

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(self._rows)

    @property
    def cursor_key(self) -> str | None:
        """The key of the row under the cursor; None in an empty table."""
        return self._cursor_key

    @property
    def cursor_index(self) -> int | None:
        """The place of that row, from 0."""
        return None if self._cursor_key is None else self._index.get(self._cursor_key)

    @property
    def top(self) -> int:
        """The place of the first row on the screen."""
        return self._top

    # -- movement -----------------------------------------------------------------------------

    @property
    def _page(self) -> int:
        return max(1, self.size.height - 1)

    @property
    def _last_top(self) -> int:
        return max(0, len(self._rows) - self._page)

    def _move_to(self, index: int, *, reveal: bool = True) -> None:
        key = None
        if self._rows:
            index = min(len(self._rows) - 1, max(0, index))
            key = self._rows[index].key
            if reveal:
                self._reveal(index)
        if key != self._cursor_key:
            self._cursor_key = key
            if key is not None:
                self.post_message(self.RowHighlighted(self, key))
        self.sync()

    def _reveal(self, index: int) -> None:
        if self._top <= index < self._top + self._page:
            return
        # A jump of a third of a page: scrolling line by line would repaint all lines each time.
        jump = self._page // 3
        top = index - jump if index < self._top else index - self._page + 1 + jump
        self._top = min(self._last_top, max(0, top))

    def _move_by(self, rows: int) -> None:
        current = self.cursor_index
        self._move_to(0 if current is None else current + rows)

    def action_cursor_up(self) -> None:
        self._move_by(-1)

    def action_cursor_down(self) -> None:
        self._move_by(1)

    def action_page_up(self) -> None:
        self._move_by(-self._page)

    def action_page_down(self) -> None:
        self._move_by(self._page)

    def action_cursor_first(self) -> None:
        self._move_to(0)

    def action_cursor_last(self) -> None:
        self._move_to(len(self._rows) - 1)

    def action_select(self) -> None:
        if self._cursor_key is not None:
            self.post_message(self.RowSelected(self, self._cursor_key))

    def _scroll(self, rows: int) -> None:
        self._top = min(self._last_top, max(0, self._top + rows))
        self.sync()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(_WHEEL_ROWS)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-_WHEEL_ROWS)

    def on_resize(self) -> None:
        """Keep the cursor in sight when the table shrinks."""
        self._top = min(self._top, self._last_top)
        index = self.cursor_index
        if index is not None:
            self._reveal(index)
        self.sync()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        width = self.size.width
        if offset.y == 0:
            self._click_header(offset.x)
        elif self._thumb() is not None and offset.x >= width - 1:
            share = (offset.y - 1) / max(1, self._page - 1)
            self._top = round(share * self._last_top)
            self.sync()
        elif (index := self._top + offset.y - 1) < len(self._rows):
            if index == self.cursor_index:
                self.action_select()
            else:
                self._move_to(index)

    def _click_header(self, x: int) -> None:
        at = self._lead
        for placed in self._layout():
            if at <= x < at + placed.width + self._gap:
                self.post_message(self.HeaderSelected(self, placed.column.key))
                return
            at += placed.width + self._gap

    # -- drawing ------------------------------------------------------------------------------

    @property
    def _gap(self) -> int:
        return 2 if self.size.width >= _WIDE else 1

    @property
    def _lead(self) -> int:
        """Cells before the first column: the mark and a blank."""
        return 2

    def _layout(self) -> list[PlacedColumn]:
        # The last cell belongs to the scroll bar even while there is none, or all columns
        # would move when the rows outgrow the page.
        return lay_out(self._columns, max(1, self.size.width - self._lead - 1), self._gap)

    def _thumb(self) -> range | None:
        """The lines of the page that the scroll bar's thumb covers; None if all rows fit."""
        page, count = self._page, len(self._rows)
        if count <= page:
            return None
        length = max(1, page * page // count)
        start = round((page - length) * self._top / max(1, self._last_top))
        return range(start, start + length)

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if y == 0:
            style = self.part_style("live-table--header")
            return line([(self._header_text(), style)], width, style)
        if not self._rows:
            text = self._empty_text if y == max(1, self.size.height // 2) else ""
            style = self.part_style("live-table--empty")
            return line([(fit(text, width, align="center", ascii=self.ascii), style)], width, style)
        index = self._top + y - 1
        if index >= len(self._rows):
            return Strip.blank(width, base)
        pieces = self._row_pieces(self._rows[index], index)
        thumb = self._thumb()
        if thumb is None:
            return line(pieces, width, pieces[-1][1])
        body = line(pieces, width - 1, pieces[-1][1])
        glyph = ("#" if self.ascii else "█") if y - 1 in thumb else ("|" if self.ascii else "│")
        bar = (glyph, self.part_style("live-table--scrollbar"))
        return line([*((s.text, s.style or base) for s in body), bar], width, base)

    def _header_text(self) -> str:
        parts = []
        for placed in self._layout():
            column = placed.column
            title = column.title
            if self._sort is not None and self._sort[0] == column.key:
                arrow = ("v" if self.ascii else "▼") if self._sort[1] else "^"
                arrow = "▲" if arrow == "^" and not self.ascii else arrow
                title = fit(title, min(cell_len(title), placed.width - 1), ascii=True) + arrow
            parts.append(fit(title, placed.width, align=column.align, ascii=self.ascii))
        return " " * self._lead + (" " * self._gap).join(parts)

    def _row_pieces(self, row: Row, index: int) -> list[Piece]:
        over = self._cursor_style() if index == self.cursor_index else Style.null()
        base = self.rich_style + Style.parse(row.style) + over
        mark = ("*" if self.ascii else "●") if row.marked else " "
        mark_style = self.part_style("live-table--mark") + over if row.marked else base
        pieces: list[Piece] = [(mark, mark_style), (" ", base)]
        gap = " " * self._gap
        for i, placed in enumerate(self._layout()):
            if i:
                pieces.append((gap, base))
            cell = row.cells.get(placed.column.key, "")
            pieces += self._cell_pieces(cell, placed, base, over)
        return pieces

    def _cell_pieces(
        self, cell: Cell, placed: PlacedColumn, base: Style, over: Style
    ) -> list[Piece]:
        width, align = placed.width, placed.column.align
        if isinstance(cell, str):
            return [(fit(cell, width, align=align, ascii=self.ascii), base)]
        whole = base + _parsed(cell.style) + over
        if isinstance(cell, Trend):
            return [(sparkline(cell.values, width, self.ascii), whole)]
        plain = clean(cell.plain)
        text = fit(plain, width, align=align, ascii=self.ascii)
        if not cell.spans:
            return [(text, whole)]
        spare = max(0, width - cell_len(plain))
        shift = {"left": 0, "right": spare, "center": spare // 2}[align]
        styles = [whole] * len(text)
        for start, end, style in cell.spans:
            for i in range(max(0, start + shift), min(len(text), end + shift)):
                styles[i] = styles[i] + _parsed(style) + over
        return list(zip(text, styles, strict=True))

    def _cursor_style(self) -> Style:
        """Reverse video where there is no colour: a background alone would not be seen."""
        if self.app.no_color:
            return Style(reverse=True, bold=self.has_focus)
        name = "live-table--cursor" if self.has_focus else "live-table--cursor-blurred"
        style = self.part_style(name)
        return Style(bgcolor=style.bgcolor, bold=style.bold)


def _parsed(style: str | Style) -> Style:
    return Style.parse(style) if isinstance(style, str) else style
