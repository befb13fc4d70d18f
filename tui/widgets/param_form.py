"""The Configure form: groups and one line a parameter, drawn as lines so that sixty fields cost as much as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from tui import theme
from tui.ascii_text import ascii_text
from tui.form import Field, Group, Line
from tui.widgets.lines import LineWidget, Piece, fit, line

_WHEEL_LINES = 3
_MARKS = 3
"""Cells on the left: a blank, the mark, a blank."""
_LEAST_HINT = 16


class ParamForm(LineWidget, can_focus=True):
    """Shows the lines of a form, of which one is current. The screen owns what they say and what keys do to it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="form.up"),
        Binding("down,j", "move(1)", "Down", show=False, id="form.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="form.page_up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="form.page_down"),
        Binding("home,g", "first", "First", show=False, id="form.first"),
        Binding("end,G", "last", "Last", show=False, id="form.last"),
    ]
    DEFAULT_CSS = "ParamForm { height: 1fr; width: 1fr; min-height: 2; }"

    class FieldMessage(Message):
        """About one field."""

        def __init__(self, form: ParamForm, key: str) -> None:
            super().__init__()
            self.form = form
            self.key = key

        @property
        def control(self) -> ParamForm:
            return self.form

    class Highlighted(FieldMessage):
        """Another field is current. Only the newest of a burst is delivered."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ParamForm.Highlighted)

    class Clicked(FieldMessage):
        """The current field was clicked."""

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._lines: Sequence[Line] = ()
        self._index: dict[str, int] = {}
        self._key: str | None = None
        self._top = 0
        self._empty = "no parameter matches"
        self.locked = False
        """While something lies over a line, the wheel does not move it away."""

    # -- what the screen calls ----------------------------------------------------------------

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Show these lines. The cursor stays on its field, or goes to the one now nearest to its place."""
        before = self._index.get(self._key or "", 0)
        self._lines = [_in_ascii(entry) for entry in lines] if self.ascii else lines
        self._index = {entry.key: i for i, entry in enumerate(lines) if isinstance(entry, Field)}
        self._top = min(self._top, self._last_top)
        if self._key not in self._index:
            nearest = min(self._index.values(), key=lambda i: abs(i - before), default=None)
            self._go(nearest)
        else:
            self._reveal(self._index[self._key])
        self.sync()

    def move_to(self, key: str) -> bool:
        """Make the field `key` the current one; False if it is not shown."""
        if key not in self._index:
            return False
        self._go(self._index[key])
        self.sync()
        return True

    @property
    def current(self) -> str | None:
        """The key of the current field; None where there is none."""
        return self._key

    @property
    def keys(self) -> list[str]:
        """The fields that are shown, in order."""
        return list(self._index)

    @property
    def value_region(self) -> Region | None:
        """Where the current field's value is drawn, from the form's top left; None while it is out of sight."""
        index = self._index.get(self._key or "")
        if index is None or not self._top <= index < self._top + self._page:
            return None
        title, value, hint = self._columns(self.size.width - 1)
        return Region(_MARKS + title, index - self._top, value + hint, 1)

    def step(self, fields: int) -> bool:
        """Go on by so many fields; False at the end."""
        keys = self.keys
        if self._key is None or not keys:
            return False
        at = keys.index(self._key) + fields
        inside = min(len(keys) - 1, max(0, at))
        self._go(self._index[keys[inside]])
        self.sync()
        return inside == at

    # -- movement -----------------------------------------------------------------------------

    @property
    def _page(self) -> int:
        return max(1, self.size.height)

    @property
    def _last_top(self) -> int:
        return max(0, len(self._lines) - self._page)

    def _go(self, index: int | None) -> None:
        key = None
        if index is not None:
            key = self._lines[index].key
            self._reveal(index)
        if key != self._key:
            self._key = key
            if key is not None:
                self.post_message(self.Highlighted(self, key))

    def _reveal(self, index: int) -> None:
        # The heading above a group's first field is of use as long as it fits.
        first = index - 1 if index and isinstance(self._lines[index - 1], Group) else index
        if self._top <= first and index < self._top + self._page:
            return
        jump = self._page // 3
        top = first - jump if first < self._top else index - self._page + 1 + jump
        self._top = min(self._last_top, max(0, top), index)

    def action_move(self, fields: int) -> None:
        self.step(fields)

    def action_page(self, pages: int) -> None:
        self.step(pages * max(1, self._page - 2))

    def action_first(self) -> None:
        self.step(-len(self._lines))

    def action_last(self) -> None:
        self.step(len(self._lines))

    def step_group(self, groups: int) -> None:
        """To the first field of another group."""
        heads = [i + 1 for i, entry in enumerate(self._lines) if isinstance(entry, Group)]
        at = self._index.get(self._key or "", 0)
        if groups > 0:
            target = next((i for i in heads if i > at), None)
        else:
            target = next((i for i in reversed(heads) if i < at), None)
        if target is not None:
            self._go(target)
            self.sync()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(_WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-_WHEEL_LINES)

    def _scroll(self, lines: int) -> None:
        if self.locked:
            return
        self._top = min(self._last_top, max(0, self._top + lines))
        self.sync()

    def on_resize(self) -> None:
        self._top = min(self._top, self._last_top)
        if self._key in self._index:
            self._reveal(self._index[self._key])

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or not self._top + offset.y < len(self._lines):
            return
        entry = self._lines[self._top + offset.y]
        if isinstance(entry, Group):
            return
        if entry.key == self._key:
            self.post_message(self.Clicked(self, entry.key))
        else:
            self._go(self._index[entry.key])
            self.sync()

    def on_focus(self) -> None:
        self.sync()

    def on_blur(self) -> None:
        self.sync()

    # -- drawing ------------------------------------------------------------------------------

    def _columns(self, width: int) -> tuple[int, int, int]:
        """Cells of titles, values and hints; hints go first when there is no room."""
        titles = 24 if width >= 70 else 18
        left = max(1, width - _MARKS - titles)
        hint = min(64, left - max(24, left * 2 // 5))
        hint = hint if hint >= _LEAST_HINT else 0
        return titles, left - hint, hint

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if not self._lines:
            text = self._empty if y == self.size.height // 2 else ""
            words = fit(text, width, align="center", ascii=self.ascii)
            return line([(words, base + theme.style("muted"))], width, base)
        index = self._top + y
        if index >= len(self._lines):
            return Strip.blank(width, base)
        entry = self._lines[index]
        if isinstance(entry, Group):
            pieces = self._group_pieces(entry, width - 1, base)
            end = base
        else:
            over = self._cursor_style() if entry.key == self._key else Style.null()
            pieces = self._field_pieces(entry, width - 1, base, over)
            end = base + over
        body = line(pieces, width - 1, end)
        return line([*((s.text, s.style or base) for s in body), self._bar(y, base)], width, base)

    def _group_pieces(self, group: Group, width: int, base: Style) -> list[Piece]:
        rule = "-" if self.ascii else "─"
        pieces = [
            (f"{rule} ", base + theme.style("line")),
            (f"{group.title} ", base + theme.style("primary", bold=True)),
        ]
        note = fit(group.note, min(cell_len(group.note), max(0, width - 20)), ascii=self.ascii)
        pieces.append((f" {note} " if note else "", base + theme.style("muted")))
        used = sum(cell_len(text) for text, _ in pieces)
        pieces.append((rule * max(0, width - used), base + theme.style("line")))
        return pieces

    def _field_pieces(self, field: Field, width: int, base: Style, over: Style) -> list[Piece]:
        titles, values, hints = self._columns(width)
        if not field.hint:
            values, hints = values + hints, 0
        mark, colour = self._mark(field)
        faint = not field.applies
        title_colour = "muted" if faint else "text"
        pieces: list[Piece] = [
            (f" {mark} ", base + theme.style(colour, bold=True) + over),
            (
                fit(f"{field.title} ", titles, ascii=self.ascii),
                base + theme.style(title_colour) + over,
            ),
        ]
        text = field.value or ("-" if self.ascii else "–")
        style = base + theme.style(self._value_colour(field), bold=field.searched) + over
        pieces.append((self._value_text(field, text, max(1, values - 1)) + " ", style))
        if hints:
            hint = fit(field.hint, hints, ascii=self.ascii)
            pieces.append((hint, base + theme.style("error" if field.wrong else "muted") + over))
        return pieces

    def _value_text(self, field: Field, text: str, width: int) -> str:
        """A path that is too long keeps its end, which tells it from others."""
        if "/" in text and " " not in text and cell_len(text) > width > 4:
            while cell_len(text) > width - 1:
                text = text[1:]
            text = ("~" if self.ascii else "…") + text
        return fit(text, width, ascii=self.ascii)

    def _mark(self, field: Field) -> tuple[str, str]:
        """The sign before a line, for eyes that do not go by colours, and its colour."""
        if field.wrong:
            return "!", "error"
        if field.searched:
            return ("?" if self.ascii else "⌕"), "accent"
        if field.changed:
            return ("*" if self.ascii else "•"), "secondary"
        return " ", "muted"

    @staticmethod
    def _value_colour(field: Field) -> str:
        if field.wrong:
            return "error"
        if field.searched:
            return "accent"
        return "bright" if field.changed and field.applies else "muted"

    def _bar(self, y: int, base: Style) -> Piece:
        page, count = self._page, len(self._lines)
        if count <= page:
            return " ", base
        length = max(1, page * page // count)
        start = round((page - length) * self._top / max(1, self._last_top))
        here = start <= y < start + length
        glyph = ("#" if self.ascii else "█") if here else ("|" if self.ascii else "│")
        return glyph, base + theme.style("muted" if here else "line")

    def _cursor_style(self) -> Style:
        """Reverse video where there is no colour: a background alone would not be seen."""
        if self.app.no_color:
            return Style(reverse=True)
        return Style(bgcolor="#2b4a6b" if self.has_focus else theme.PANEL)


def _in_ascii(entry: Line) -> Line:
    if isinstance(entry, Group):
        return replace(entry, title=ascii_text(entry.title), note=ascii_text(entry.note))
    return replace(
        entry,
        title=ascii_text(entry.title),
        value=ascii_text(entry.value),
        hint=ascii_text(entry.hint),
    )
