"""The question what is to be done with a trial's model; the command is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.model_use import USES, model_of, use_command, without_model
from tui.screens.pick import Choice, PickDialog
from tui.source import shell_path

if TYPE_CHECKING:
    from tui.screens.base import DeckScreen
    from tui.snapshot import StudyView


async def ask_use(screen: DeckScreen, view: StudyView, number: int) -> None:
    """Ask, and copy the command: it runs as long as a model takes to load, in a terminal of its own."""
    trials = [row.trial for row in view.rows]
    model = model_of(trials, number)
    if model is None:
        trial = next((t for t in trials if t.number == number), None)
        if trial is not None:
            screen.say(without_model(trial), "warning")
        return
    choices = [Choice(use, title, note) for use, title, note in USES]
    question = f"What is to be done with the model of trial {model.number}?"
    dialog = PickDialog(
        question, choices, placeholder="", hint="Enter copies the command, Esc closes this"
    )
    picked = await screen.deck.push_screen_wait(dialog)
    if picked is not None:
        screen.deck.copy(use_command(picked, shell_path(view.folder), model.number))
