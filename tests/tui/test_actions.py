"""The table of actions, and what is made of it."""

from collections import Counter

import pytest

from tui.actions import ACTIONS, in_contexts
from tui.keymap import bindings, help_lines, hints, key_label

SCREENS = {
    "studies": ("studies", "table", "app"),
    "configure": ("configure", "app"),
    "data": ("data", "app"),
    "range": ("range", "app"),
    "trials": ("trials", "detail", "table", "app"),
    "gpus": ("gpus", "app"),
    "results": ("results", "table", "app"),
}


@pytest.mark.parametrize("contexts", SCREENS.values(), ids=SCREENS.keys())
def test_no_key_does_two_things_on_a_screen(contexts: tuple[str, ...]) -> None:
    keys = Counter(key for a in in_contexts(contexts) for key in a.keys)  # type: ignore[arg-type]
    twice = {key for key, count in keys.items() if count > 1}
    # Enter opens what the cursor of the table is on: both mean the same.
    assert not twice - {"enter"}


def test_ids_are_unique() -> None:
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)


def test_what_destroys_or_costs_sits_on_a_capital() -> None:
    for name in ("delete_study", "stop_trial", "stop_study", "promote"):
        assert all(a.keys[0].isupper() for a in ACTIONS if a.name == name)


def test_every_action_is_bound_and_listed() -> None:
    for contexts in SCREENS.values():
        bound = {b.id for b in bindings(*contexts)}  # type: ignore[arg-type,union-attr]
        listed = in_contexts(contexts)  # type: ignore[arg-type]
        assert {a.id for a in listed if a.context != "table"} <= bound
        assert len(help_lines(contexts, ascii=False)) == len(listed)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [60, 79, 159])
@pytest.mark.parametrize(
    "context", ["studies", "configure", "data", "range", "trials", "gpus", "results"]
)
def test_the_footer_fits_and_always_names_help_and_quit(context: str, width: int) -> None:
    shown = hints((context,), width, ascii=False)  # type: ignore[arg-type]
    assert sum(hint.width for hint in shown) <= width
    assert {"keys", "quit"} <= {hint.word for hint in shown}


def test_keys_are_written_as_on_a_keyboard() -> None:
    assert key_label("question_mark", ascii=True) == "?"
    assert key_label("ctrl+p", ascii=True) == "Ctrl+P"
    assert key_label("up", ascii=True) == "Up" and key_label("up", ascii=False) == "↑"
    assert key_label("D", ascii=True) == "D"
