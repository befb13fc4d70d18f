"""Lines of text that wrap and scroll, of which only changed ones are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip

from tui.ascii_text import ascii_text
from tui.widgets.lines import LineWidget, Piece, clean, fit, line

_WHEEL_LINES = 3


class TextPane(LineWidget, can_focus=True):
    """Shows lines of styled text; with `follow` it stays at the end as long as it was there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_by(-1)", "Up", show=False),
        Binding("down,j", "scroll_by(1)", "Down", show=False),
        Binding("pageup", "scroll_page(-1)", "Page up", show=False),
        Binding("pagedown,space", "scroll_page(1)", "Page down", show=False),
        Binding("home,g", "scroll_to_start", "Start", show=False),
        Binding("end,G", "scroll_to_end", "End", show=False),
    ]
    DEFAULT_CSS = "TextPane { height: 1fr; width: 1fr; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._lines: tuple[Text, ...] = ()
        self._wrapped: list[list[Piece]] = []
        self._wrapped_for = 0
        self._top = 0
        self._follow = False

    def set_lines(self, lines: Sequence[Text], *, follow: bool = False) -> None:
        """Show these lines; `follow` goes to the end unless the reader has scrolled away from it."""
        at_end = self._top >= self._last_top
        if tuple(lines) == self._lines and follow == self._follow:
            return
        started = follow and not self._follow
        self._lines, self._follow = tuple(lines), follow
        self._wrapped_for = 0
        self._top = self._last_top if follow and (at_end or started) else self._top
        self._top = min(self._top, self._last_top)
        self.sync()

    def scroll_home_now(self) -> None:
        """Go to the first line, as for another content."""
        self._top = 0
        self._follow = False

    @property
    def plain(self) -> str:
        """The text without styles."""
        return "\n".join(text.plain for text in self._lines)

    @property
    def _last_top(self) -> int:
        return max(0, len(self._wrap()) - max(1, self.size.height))

    def _wrap(self) -> list[list[Piece]]:
        width = max(1, self.size.width)
        if self._wrapped_for != width:
            self._wrapped_for = width
            lines = map(spelled, self._lines) if self.ascii else self._lines
            self._wrapped = [p for text in lines for p in wrap(text, width)]
        return self._wrapped

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        wrapped = self._wrap()
        index = self._top + y
        if index >= len(wrapped):
            return Strip.blank(width, base)
        more = y == self.size.height - 1 and index + 1 < len(wrapped)
        pieces = [(text, base + style) for text, style in wrapped[index]]
        if not more:
            return line(pieces, width, base)
        count = f" {len(wrapped) - index - 1} more " + ("v" if self.ascii else "▼")
        body = line(pieces, max(0, width - len(count)), base)
        return line([*((s.text, s.style or base) for s in body), (count, base)], width, base)

    def on_resize(self) -> None:
        if self._follow:
            self._top = self._last_top
        self._top = min(self._top, self._last_top)
        # The lines may have been painted for where the text stood before.
        self.sync()

    def action_scroll_by(self, lines: int) -> None:
        self._top = min(self._last_top, max(0, self._top + lines))
        self.sync()

    def action_scroll_page(self, pages: int) -> None:
        self.action_scroll_by(pages * max(1, self.size.height - 1))

    def action_scroll_to_start(self) -> None:
        self.action_scroll_by(-self._top)

    def action_scroll_to_end(self) -> None:
        self.action_scroll_by(len(self._wrap()))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_scroll_by(_WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_scroll_by(-_WHEEL_LINES)


def wrap(text: Text, width: int) -> list[list[Piece]]:
    """A line of text as the lines that it takes in `width` cells; a wrapped one is indented."""
    from rich.console import Console

    text = text.copy()
    text.plain = clean(text.plain)
    if text.cell_len <= width:
        return [_pieces(text)]
    console = Console(width=width, color_system=None, legacy_windows=False)
    indent = min(2 + len(text.plain) - len(text.plain.lstrip()), width // 2)
    first = text.wrap(console, width, no_wrap=False)[0]
    rest = text[len(first.plain) :]
    rest.plain = rest.plain.lstrip()
    lines = [first, *rest.wrap(console, max(1, width - indent))]
    return [_pieces(lines[0]), *([(" " * indent, _base(t)), *_pieces(t)] for t in lines[1:])]


def spelled(text: Text) -> Text:
    """A line of text with its signs spelled in ASCII; each keeps its style."""
    if text.plain.isascii():
        return text
    made = Text(style=text.style)
    for sign, style in _pieces(text):
        made.append(ascii_text(sign), style)
    return made


def _base(text: Text) -> Style:
    return Style.parse(text.style) if isinstance(text.style, str) else text.style


def _pieces(text: Text) -> list[Piece]:
    plain, base = text.plain, _base(text)
    styles = [base] * len(plain)
    for start, end, style in text.spans:
        extra = Style.parse(style) if isinstance(style, str) else style
        for i in range(max(0, start), min(len(plain), end)):
            styles[i] = styles[i] + extra
    return list(zip(plain, styles, strict=True)) or [(fit("", 0), base)]
