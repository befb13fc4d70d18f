"""What is said about rungs: how far a trial came, where it waits, who was dropped where. Pure."""

import math
from collections.abc import Sequence

from core.study.events import RungDecided
from core.study.state import RungResult, Trial
from tui import words

SOURCES = {
    "search": "drawn by the search",
    "portfolio": "known-good settings, tried first",
    "user": "you added it",
}


def decision_text(decision: RungDecided) -> str:
    """A decision in a line: who went on from where, `rung 1 at 10 %: 4 of 12 go on`."""
    if decision.text:
        return decision.text
    all_ = len(decision.kept) + len(decision.dropped)
    going = "goes" if len(decision.kept) == 1 else "go"
    return f"rung {decision.rung} at {words.percent(decision.at)}: {len(decision.kept)} of {all_} {going} on"


def decision_lines(decision: RungDecided) -> list[str]:
    """A decision with everyone whom it dropped, and why."""
    dropped = [f"trial {number} is dropped: {why}" for number, why in decision.dropped.items()]
    return [decision_text(decision), *dropped]


def where(trial: Trial, *, brief: bool = False) -> str:
    """Where a trial stands among the rungs, in words; "" where it has none to come to or to have come to.

    `brief` leaves out where the rung lies, as it stands beside the rungs themselves.
    """
    here = trial.rungs[-1] if trial.rungs else None
    name = f"rung {len(trial.rungs)}" if here else ""
    if here and not brief:
        name += f" ({words.percent(here.at)} of the probe)"
    if trial.status == "rung":
        return f"waits at {name}"
    if trial.status == "pruned":
        return f"dropped at {name}"
    if trial.kind != "probe" or trial.ended:
        return ""
    aim = f"is sent to {words.percent(trial.until)} of the probe" if trial.until < 1 else ""
    if here is None:
        return aim
    return f"came past {name}" + (f", {aim}" if aim else ", runs to the end of the probe")


def rung_lines(trial: Trial) -> list[tuple[str, str]]:
    """(name, text) of each rung that a trial came to, with what it had come to there of what the study ranks by."""
    return [
        (f"rung {place}", f"{_value(result)} at {words.percent(result.at)}, {_step(result, trial)}")
        for place, result in enumerate(trial.rungs, 1)
    ]


def _step(result: RungResult, trial: Trial) -> str:
    """The update of a rung; a rung within the warm-up lies behind it, further on than its share says."""
    planned = max(1, math.ceil(result.at * trial.total_steps - 1e-6))
    if not trial.total_steps or result.step <= planned:
        return f"step {result.step}"
    return f"put off to step {result.step} of {trial.total_steps} by the warm-up"


def _value(result: RungResult) -> str:
    return "no value" if result.value is None else words.loss(result.value)


def source_text(trial: Trial) -> str:
    """Where a trial comes from, in words; "" for an ordinary draw of the search."""
    if trial.source == "confirm":
        return f"trial {trial.parent} once more, with another seed"
    if trial.source == "promote":
        how = ", continued from its checkpoint" if trial.continues else ""
        return f"promoted from trial {trial.parent}{how}"
    if trial.source == "search":
        return "" if trial.parent is None else f"after trial {trial.parent}"
    text = SOURCES.get(trial.source, trial.source)
    return text if trial.parent is None else f"{text}, after trial {trial.parent}"


def confirmations(trials: Sequence[Trial], number: int) -> list[Trial]:
    """The runs of a trial's settings with other seeds."""
    return [t for t in trials if t.source == "confirm" and t.parent == number]
