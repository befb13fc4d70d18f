"""The one-line editor that opens on a field of the form."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input


class PathSuggester(Suggester):
    """Completes the path that is typed, with the right arrow key."""

    def __init__(self, folder: Path, suffixes: tuple[str, ...] = ()) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._folder, self._suffixes = folder, suffixes

    async def get_suggestion(self, value: str) -> str | None:
        # A folder may lie on a network that hangs: the dashboard goes on meanwhile.
        return await asyncio.to_thread(complete_path, value, self._folder, self._suffixes)


def complete_path(value: str, folder: Path, suffixes: tuple[str, ...]) -> str | None:
    """`value` completed to the first folder, or file with one of `suffixes` (none: folders only), that fits."""
    head, slash, start = value.rpartition("/")
    if not start or value.startswith("["):
        return None
    inside = folder / Path((head or "/") if slash else ".").expanduser()
    try:
        entries = sorted(entry for entry in inside.iterdir() if entry.name.startswith(start))
        for entry in entries:
            if entry.is_dir():
                return f"{head}{slash}{entry.name}/"
            if entry.suffix in suffixes:
                return f"{head}{slash}{entry.name}"
    except OSError:
        return None
    return None


class FieldEditor(Input):
    """Opens over a field's value. Enter accepts, Tab and the arrows accept and go on, Esc takes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept(0)", "Accept", show=False, priority=True),
        Binding("tab,down", "accept(1)", "Accept, next", show=False, priority=True),
        Binding("shift+tab,up", "accept(-1)", "Accept, previous", show=False, priority=True),
        Binding("escape", "cancel", "Undo the edit", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    FieldEditor { display: none; position: absolute; layer: over; height: 1; border: none; padding: 0; }
    FieldEditor.-open { display: block; }
    """

    class Accepted(Message):
        """The edit is over; `move` fields on from here (0: stay)."""

        def __init__(self, move: int) -> None:
            super().__init__()
            self.move = move

    class Cancelled(Message):
        """The edit is taken back."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, compact=True)
        self.cursor_blink = False  # Each blink would be sent over the link.

    @property
    def is_open(self) -> bool:
        """Whether a field is being edited."""
        return self.has_class("-open")

    def open(self, text: str, *, suggester: Suggester | None = None, placeholder: str = "") -> None:
        """Edit `text`, of which all is selected."""
        self.suggester = suggester
        self.placeholder = placeholder
        with self.prevent(Input.Changed):
            self.value = text
        self.add_class("-open")
        self.focus()
        self.action_select_all()

    def close(self) -> None:
        """Leave the field."""
        self.remove_class("-open")

    def place(self, region: Region | None) -> None:
        """Lie over `region` of the form."""
        if region is not None:
            self.styles.offset = (region.x, region.y)
            self.styles.width = region.width

    def action_accept(self, move: int) -> None:
        self.post_message(self.Accepted(move))

    def action_cancel(self) -> None:
        self.post_message(self.Cancelled())
