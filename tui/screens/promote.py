"""The question before the full training: whether, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.engine.messages import Request
from tui import handover, words
from tui.screens.confirm import ConfirmDialog
from tui.screens.pick import Choice, PickDialog

if TYPE_CHECKING:
    from tui.app import TunedeckApp
    from tui.snapshot import TrialRow


async def ask_promotion(app: TunedeckApp, row: TrialRow) -> Request | None:
    """Ask whether a trial's settings are to be trained fully; the wish, or None."""
    settings = words.settings_line(row.trial.changes) or "the profile as it is"
    question = f"Train fully with the settings of trial {row.number}?"
    horizon = handover.horizon_text(row)
    if handover.can_continue(row):
        choices = [
            Choice("anew", "From the beginning", horizon or "as the profile says"),
            Choice("on", "Continue from its checkpoint", handover.continue_text(row)),
        ]
        picked = await app.push_screen_wait(PickDialog(question, choices, placeholder=""))
        return Request("promote", row.number, continues=picked == "on") if picked else None
    cost = f"{handover.cost_text(row)} The model is saved at the end."
    detail = "\n".join(filter(None, (settings, cost, horizon)))
    dialog = ConfirmDialog(question, detail, yes="Train", danger=False)
    return Request("promote", row.number) if await app.push_screen_wait(dialog) else None
