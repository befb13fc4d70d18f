"""An app whose repaints send only the cells that changed.

Textual 8.2 cuts a repainted part of a line on its right only: it sends every cell from the
widget's left edge on. With a number in the tenth column changing each second, most of what goes
over the wire is text that the terminal shows already.
"""

from __future__ import annotations

from typing import TypeVar

from rich.console import Console, RenderableType
from rich.control import Control
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.screen import Screen

Result = TypeVar("Result")


class SpanUpdate(ChopsUpdate):
    """Repaints the spans of an update, cut on both sides."""

    def render_segments(self, console: Console) -> str:
        """The update as text and escape sequences."""
        written: list[str] = []
        for y, x1, x2 in self.spans:
            at = -1
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(x, x1), min(end, x2)
                if strip is None or start >= stop:
                    continue
                if start != at:
                    written.append(Control.move_to(start, y).segment.text)
                part = strip if (start, stop) == (x, end) else strip.crop(start - x, stop - x)
                written.append(part.render(console))
                at = stop
        return "".join(written)


class LeanApp(App[Result]):
    """The base of an app for slow links; looks and behaves like any other."""

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if type(renderable) is ChopsUpdate:
            renderable = SpanUpdate(renderable.chops, renderable.spans, renderable.chop_ends)
        super()._display(screen, renderable)
