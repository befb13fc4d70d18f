"""What is said before a trial's settings are trained fully: its cost, where it starts, what its rate means. Pure."""

from __future__ import annotations

from tui import words
from tui.snapshot import TrialRow


def cost_text(row: TrialRow) -> str:
    """How long the full training takes, as far as the trial tells."""
    run = row.curve.run if row.curve else None
    if run is None or not row.step or not row.trial.seconds:
        return "It runs until its end, as long as the profile says."
    return (
        f"It takes {run.full_steps} steps, about {words.duration(_seconds(row, run.full_steps))}."
    )


def _seconds(row: TrialRow, steps: int) -> float:
    """How long `steps` updates take at the trial's pace; of a short trial most was spent on starting."""
    pace = row.curve.steps_per_s if row.curve else None
    if pace is None:
        return row.trial.seconds * steps / row.step
    return row.trial.seconds + max(0, steps - row.step) / pace


def horizon_text(row: TrialRow) -> str:
    """What a probe's length means for its learning rate; "" where it means nothing.

    A probe that ends its own decay early favours a rate up to about twice too high for the full training.
    """
    run = row.curve.run if row.curve else None
    rate = row.trial.changes.get("learning_rate")
    short = run is not None and 0 < row.total_steps < run.full_steps
    if run is None or not short or isinstance(rate, bool) or not isinstance(rate, int | float):
        return ""
    if row.status != "completed":
        done = f"{row.step} of {run.full_steps} steps"
        return f"Its rate {words.setting(rate)} was tried for {done}, not to the end of its probe."
    return (
        f"Its rate {words.setting(rate)} did well over {row.total_steps} of {run.full_steps} steps; for all of them "
        f"down to {words.setting(rate / 2)} may end better."
    )


def can_continue(row: TrialRow) -> bool:
    """Whether the trial kept a checkpoint that its full training can go on from."""
    trial = row.trial
    return trial.kind == "probe" and trial.status == "completed" and trial.resume_from is not None


def continue_text(row: TrialRow) -> str:
    """What going on from the checkpoint saves."""
    run = row.curve.run if row.curve else None
    of = f" of {run.full_steps}" if run is not None else ""
    return f"{row.step}{of} steps are done"
