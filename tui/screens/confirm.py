"""Dialogs: a question before something is destroyed or costs, a message, a text to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

Answer = TypeVar("Answer")
Check = Callable[[str], str | None]
"""What is wrong with a text, or None."""


class Dialog(ModalScreen[Answer], Generic[Answer]):
    """A box in the middle of the screen; Esc closes it without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("left", "app.focus_previous", "Previous", show=False),
        Binding("right", "app.focus_next", "Next", show=False),
    ]
    ESCAPE_TO_MINIMIZE = False

    def action_cancel(self) -> None:
        self.dismiss(None)

    def room(self, lines: int, *, around: int = 8) -> int:
        """How many of `lines` fit beside `around` others, those of the border, the title and the hint."""
        # As much of the screen as the style sheet allows: 95 %.
        return min(lines, max(3, self.app.size.height * 95 // 100 - around))


class ConfirmDialog(Dialog[bool]):
    """Asks before an act. y or the named button does it; n, Esc or Enter at first do not."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", "Yes", show=False),
        Binding("n", "no", "No", show=False),
    ]

    def __init__(self, question: str, detail: str, *, yes: str, danger: bool = True) -> None:
        super().__init__()
        self._question, self._detail = question, detail
        self._yes, self._danger = yes, danger

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, classes="dialog-title", markup=False)
            if self._detail:
                yield Static(self._detail, classes="dialog-text", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("No (n)", id="no", compact=True)
                yield Button(
                    f"{self._yes} (y)",
                    id="yes",
                    variant="error" if self._danger else "primary",
                    compact=True,
                )

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_yes(self) -> None:
        self.dismiss(True)

    def action_no(self) -> None:
        self.dismiss(False)


class MessageDialog(Dialog[None]):
    """Says something that does not fit into a line: an error with what to do, or a text to copy."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q", "cancel", "Close", show=False, priority=True),
    ]

    def __init__(self, title: str, text: str, *, error: bool = False) -> None:
        super().__init__()
        self._title, self._text, self._error = title, text, error

    def compose(self) -> ComposeResult:
        from tui.widgets.text_pane import TextPane

        with Vertical(classes="dialog -message"):
            kind = "dialog-title -error" if self._error else "dialog-title"
            yield Static(self._title, classes=kind, markup=False)
            yield TextPane(ascii=bool(getattr(self.app, "ascii", False)), id="message")
            yield Static("Enter or Esc closes this", classes="dialog-hint", markup=False)

    def on_mount(self) -> None:
        from rich.text import Text

        from tui.widgets.text_pane import TextPane

        pane = self.query_one(TextPane)
        lines = self._text.splitlines() or [""]
        width = max(20, min(76, self.app.size.width - 12))
        needed = sum(1 + len(text) // width for text in lines)
        pane.styles.height = self.room(needed)
        pane.set_lines([Text(text) for text in lines])
        pane.focus()


class TextDialog(Dialog[str]):
    """Asks for a line of text; what is wrong with it is said while it is typed."""

    def __init__(
        self,
        title: str,
        text: str,
        *,
        value: str = "",
        placeholder: str = "",
        check: Check | None = None,
        note: Check | None = None,
    ) -> None:
        super().__init__()
        self._title, self._text = title, text
        self._value, self._placeholder = value, placeholder
        self._check, self._note = check, note

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._title, classes="dialog-title", markup=False)
            yield Static(self._text, classes="dialog-text", markup=False)
            yield Input(self._value, placeholder=self._placeholder, compact=True, id="answer")
            yield Static("", classes="dialog-problem", markup=False)
            yield Static("Enter accepts, Esc closes this", classes="dialog-hint", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._say(self._value)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._say(event.value)

    def _say(self, value: str) -> None:
        problem = self._check(value) if self._check and value.strip() else None
        note = self._note(value) if self._note and problem is None else None
        line = self.query_one(".dialog-problem", Static)
        line.set_class(problem is not None, "-error")
        line.update(problem or note or "")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        problem = self._check(event.value) if self._check else None
        if problem is None and event.value.strip():
            self.dismiss(event.value.strip())
        else:
            line = self.query_one(".dialog-problem", Static)
            line.add_class("-error")
            line.update(problem or "Nothing is written yet.")
