"""Dialogs that pick one of several: a profile to open, a value to set."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from core.profile import ready_made
from tui.ascii_text import ascii_text
from tui.screens.confirm import Dialog
from tui.theme import COLOURS
from tui.widgets.lines import clean

_MOST_FILES = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """A line to pick, and what stands behind it."""

    id: str
    title: str
    note: str = ""


class PickDialog(Dialog[str]):
    """A list to pick from with the arrows and Enter; typing narrows it, or names what is not listed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
        Binding("pagedown", "move(8)", "Page down", show=False, priority=True),
        Binding("pageup", "move(-8)", "Page up", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        choices: Sequence[Choice],
        *,
        placeholder: str,
        current: str = "",
        typed: bool = False,
        hint: str = "Enter picks, Esc closes this",
    ) -> None:
        """`typed`: a text that matches nothing is an answer too."""
        super().__init__()
        self._title, self._choices, self._hint = title, list(choices), hint
        self._placeholder, self._current, self._typed = placeholder, current, typed
        self._shown: list[Choice] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -pick"):
            yield Static(self._title, classes="dialog-title", markup=False)
            line = Input(placeholder=self._placeholder, compact=True, id="pick-text")
            line.cursor_blink = False
            yield line
            yield OptionList(id="pick-list", compact=True, markup=False)
            yield Static(self._hint, classes="dialog-hint", markup=False)

    def on_mount(self) -> None:
        rows = self.room(len(self._choices), around=10)
        self.query_one(OptionList).styles.height = max(3, rows)
        self.query_one(OptionList).can_focus = False
        self._fill("")
        self.query_one(Input).focus()

    def _fill(self, query: str) -> None:
        self._shown = narrowed(self._choices, query)
        titles = max((cell_len(c.title) for c in self._choices), default=0) + 2
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options([Option(self._line(c, titles)) for c in self._shown])
        if self._shown:
            ids = [c.id for c in self._shown]
            listed.highlighted = (
                ids.index(self._current) if self._current in ids and not query else 0
            )
        else:
            then = "; Enter takes it as a path" if self._typed else ""
            listed.add_option(Option(f"nothing matches{then}", disabled=True))

    def _line(self, choice: Choice, titles: int) -> Text:
        plain = ascii_text if getattr(self.app, "ascii", False) else clean
        text = Text(plain(choice.title), no_wrap=True, overflow="ellipsis")
        if choice.note:
            text.append(" " * (titles - cell_len(choice.title)))
            text.append(plain(choice.note), COLOURS["muted"])
        return text

    def action_move(self, lines: int) -> None:
        listed = self.query_one(OptionList)
        if self._shown:
            at = 0 if listed.highlighted is None else listed.highlighted
            listed.highlighted = min(len(self._shown) - 1, max(0, at + lines))

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        listed = self.query_one(OptionList)
        text = event.value.strip()
        if self._typed and (("/" in text) or not self._shown) and text:
            self.dismiss(text)
        elif self._shown:
            self.dismiss(self._shown[listed.highlighted or 0].id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[event.option_index].id)


def narrowed(choices: Sequence[Choice], query: str) -> list[Choice]:
    """The choices that have each word of the query; one that is called so comes first, then what begins so."""
    words = query.lower().split()
    name = " ".join(words)

    def rank(choice: Choice) -> tuple[bool, bool]:
        title = choice.title.lower()
        return title != name, not title.startswith(name)

    found = [c for c in choices if all(w in f"{c.title} {c.note}".lower() for w in words)]
    return sorted(found, key=rank)


def profile_choices(folder: Path) -> list[Choice]:
    """The profiles that tunedeck ships, and those in `folder`. Reads each for its notes."""
    listed = [Choice(str(p), p.stem, _notes(p.read_text(encoding="utf-8"))) for p in ready_made()]
    try:
        files = sorted(p for p in folder.glob("*.toml") if p.is_file())[:_MOST_FILES]
    except OSError:
        files = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if "[model]" in text:  # Other tools keep their settings in .toml files too.
            listed.append(Choice(str(path), f"./{path.name}", _notes(text)))
    return listed


def _notes(text: str) -> str:
    """What a profile says about itself, in a line."""
    try:
        table = tomllib.loads(text).get("profile", {})
    except tomllib.TOMLDecodeError:
        return "is not valid TOML"
    notes = table.get("notes", "") if isinstance(table, dict) else ""
    return " ".join(str(notes).split())
