"""What can be done with a trial's model, as commands. Pure."""

from collections.abc import Iterable

from core.study.state import Trial

USES = (
    ("export", "Export", "one model folder, checked, ready to serve"),
    ("chat", "Chat", "talk to it in the terminal; /compare asks its base as well"),
    ("eval", "Evaluate", "loss, perplexity, accuracy; --generate compares answers"),
)
"""The command, its title and what it does."""


def model_of(trials: Iterable[Trial], number: int) -> Trial | None:
    """The completed full training with the trial's settings: itself, or the last one that was made of it."""
    found = [
        t
        for t in trials
        if t.kind == "full" and t.status == "completed" and number in (t.number, t.parent)
    ]
    own = next((t for t in found if t.number == number), None)
    return own or (found[-1] if found else None)


def use_command(use: str, folder: str, number: int) -> str:
    """The command line, for a study's folder as a shell takes it."""
    output = f" -o model-{number}" if use == "export" else ""
    return f"tunedeck {use} {folder} --trial {number}{output}"


def without_model(trial: Trial) -> str:
    """Why a trial has no model, and what would make one."""
    if trial.kind == "full":
        return (
            f"Trial {trial.number} is {trial.status}: its weights are there when it has completed."
        )
    return f"Trial {trial.number} keeps no weights: P trains its settings fully, and keeps them."
