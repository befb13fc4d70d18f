"""The keys that work on the present screen, from the table of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from tui.actions import Context
from tui.keymap import help_lines
from tui.screens.confirm import Dialog
from tui.theme import COLOURS
from tui.widgets.text_pane import TextPane

_GROUPS: dict[Context, str] = {
    "app": "everywhere",
    "table": "in a table",
    "studies": "studies",
    "configure": "configure",
    "data": "the data",
    "range": "the learning-rate test",
    "trials": "trials",
    "detail": "the selected trial",
    "gpus": "GPUs",
    "results": "results",
}
_TABLES: frozenset[Context] = frozenset({"studies", "trials", "results"})


class HelpDialog(Dialog[None]):
    """Lists keys and what they do; capitals destroy or cost, and ask first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,q,enter", "cancel", "Close", show=False),
    ]

    def __init__(self, contexts: Sequence[Context], *, ascii: bool) -> None:
        super().__init__()
        self._contexts = tuple(contexts)
        self._ascii = ascii

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -help"):
            yield Static("Keys that work here", classes="dialog-title", markup=False)
            yield TextPane(ascii=self._ascii)
            hint = "Capitals destroy or cost, and ask first.   Esc closes this"
            yield Static(hint, classes="dialog-hint", markup=False)

    def on_mount(self) -> None:
        pane = self.query_one(TextPane)
        lines = self.lines()
        pane.styles.height = self.room(len(lines))
        pane.set_lines(lines)
        pane.focus()

    def lines(self) -> list[Text]:
        """The help as text."""
        listed: list[Context] = []
        for context in self._contexts:
            listed.append(context)
            if context in _TABLES and "table" not in listed:
                listed.append("table")
        lines: list[Text] = []
        for context in listed:
            if lines:
                lines.append(Text(""))
            lines.append(Text(_GROUPS[context], style=COLOURS["muted"]))
            for keys, words in help_lines((context,), ascii=self._ascii):
                line = Text().append(f"  {keys:<14} ", f"bold {COLOURS['primary']}")
                lines.append(line.append(words, COLOURS["text"]))
        return lines
