"""From the table of actions to bindings, footer and help."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textual.binding import Binding, BindingType

from tui.actions import Action, Context, in_contexts

_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "comma": ",",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "escape": "Esc",
    "enter": "Enter",
    "space": "Space",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "f1": "F1",
    "up": "Up",
    "down": "Down",
    "left": "Left",
    "right": "Right",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "backspace": "Bksp",
    "delete": "Del",
}
_ARROWS = {"up": "↑", "down": "↓", "left": "←", "right": "→", "enter": "⏎"}


def key_label(key: str, *, ascii: bool) -> str:
    """A key as it stands on a keyboard."""
    if not ascii and key in _ARROWS:
        return _ARROWS[key]
    if key in _NAMES:
        return _NAMES[key]
    if key.startswith("ctrl+"):
        return f"Ctrl+{key[5:].upper()}"
    return key


def bindings(*contexts: Context) -> list[BindingType]:
    """Textual's bindings of the actions of these contexts."""
    return [
        Binding(
            ",".join(action.keys),
            action.call.removeprefix("app.") if action.context == "app" else action.call,
            action.words,
            show=False,
            id=action.id,
        )
        for action in in_contexts(contexts)
        if action.context != "table"
    ]


@dataclass(frozen=True, slots=True)
class Hint:
    """A key and what it does, in a word."""

    key: str
    word: str
    call: str

    @property
    def width(self) -> int:
        """Cells on the line, with the gap behind."""
        return len(self.key) + 1 + len(self.word) + 2


def hints(contexts: Sequence[Context], width: int, *, ascii: bool) -> list[Hint]:
    """The footer's hints that fit into `width` cells, the heaviest first to stay."""
    listed = [a for a in in_contexts((*contexts, "app")) if a.short]
    kept: list[Action] = []
    left = width
    for action in sorted(listed, key=lambda a: -a.weight):
        cells = _hint(action, ascii).width
        if cells <= left:
            kept.append(action)
            left -= cells
    return [_hint(action, ascii) for action in listed if action in kept]


def _hint(action: Action, ascii: bool) -> Hint:
    return Hint(key_label(action.keys[0], ascii=ascii), action.short, action.call)


def help_lines(contexts: Iterable[Context], *, ascii: bool) -> list[tuple[str, str]]:
    """(keys, words) of every action that works in these contexts, in the table's order."""
    lines = []
    for action in in_contexts(contexts):
        keys = " ".join(dict.fromkeys(key_label(k, ascii=ascii) for k in action.keys))
        lines.append((keys, action.words))
    return lines
