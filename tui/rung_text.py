"""What is said about rungs: how far a trial came, where it waits, who was dropped where. Pure."""

from collections.abc import Sequence

from core.study.events import RungDecided
from core.study.state import Trial
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


def where(trial: Trial) -> str:
    """Where a trial stands among the rungs, in words; "" where it has none to come to or to have come to."""
    here = trial.rungs[-1] if trial.rungs else None
    name = f"rung {len(trial.rungs)} ({words.percent(here.at)} of the probe)" if here else ""
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


def rung_lines(trial: Trial, rank_by: str) -> list[tuple[str, str]]:
    """(name, text) of each rung that a trial came to, with what it had come to there."""
    found = []
    for place, result in enumerate(trial.rungs, 1):
        value = (
            f"{words.metric(rank_by)} {words.loss(result.value)}"
            if result.value is not None
            else "no value"
        )
        found.append((f"rung {place}", f"{words.percent(result.at)}, step {result.step}: {value}"))
    return found


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


def derived(trial: Trial) -> str:
    """What follows from the point of the space that a trial stands for, `lora_alpha 32`; "" where nothing does."""
    more = {k: v for k, v in trial.settings.items() if trial.sampled and k not in trial.sampled}
    return ", ".join(f"{name} {words.setting(value)}" for name, value in more.items())
