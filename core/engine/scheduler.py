"""What starts next, and when a study is over: decided from its state and the free devices alone. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.engine.outcome import summary
from core.study.events import StudyChanged
from core.study.state import StudyState, Trial

NEWS_EVERY = 30.0
"""Seconds between two changes of the reason for waiting: other people's processes come and go, each is a record."""


@dataclass(frozen=True, slots=True)
class Supply:
    """What trials may run on now."""

    device: Literal["cuda", "cpu"]
    most: int
    """The most trials at once."""
    free: tuple[str, ...] = ()
    """UUIDs of GPUs that may be leased now, the preferred ones first."""
    waiting: str = ""
    """Why GPUs that the study may use are not free, in words."""
    each: int = 1
    """GPUs of a trial whose own settings say nothing else."""
    total: int | None = None
    """GPUs that the study may use, free or not; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt that is to start now."""

    trial: int
    attempt: int
    device: Literal["cuda", "cpu"]
    gpus: tuple[str, ...] = ()


Ready = Mapping[int, frozenset[str] | None]
"""The waiting trials that may start as far as their memory is concerned, by number, each with the UUIDs of the GPUs
that it fits; None for all GPUs."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What to do now."""

    starts: tuple[Start, ...] = ()
    change: StudyChanged | None = None
    """The study is over, or waits for something else than before."""


def schedule(state: StudyState, supply: Supply, now: float, ready: Ready | None = None) -> Schedule:
    """Decide what starts now; `now` is in seconds since the epoch.

    Without `ready` every trial may start anywhere.
    """
    if state.status != "running":
        return Schedule()
    live, queued = state.live(), state.queued()
    if not live and not queued:
        # A decision at a rung, a proposal and a fix that is being looked for may be work yet.
        return Schedule() if state.unfinished() else Schedule(change=_over(state, now))
    room = max(0, supply.most - len(live))
    waiting = [t for t in queued if ready is None or t.number in ready]
    able = [t for t in waiting if not _lacking(t, supply, ready)]
    if supply.device == "cpu":
        starts = tuple(_start(t, "cpu", ()) for t in able[:room])
    else:
        given = _given(able, supply, ready or {})[:room]
        starts = tuple(_start(t, "cuda", uuids) for t, uuids in given)
    short = min(room, len(waiting)) > len(starts)
    reason = supply.waiting
    if waiting and not able:
        reason = _lacking(waiting[0], supply, ready)
    change = None if starts else _news(state, reason, short, now)
    return Schedule(starts, change)


def gpus_of(trial: Trial, each: int) -> int:
    """How many GPUs a trial is to have: what its own settings say, else `each`."""
    own = trial.changes.get("gpus_per_trial", trial.changes.get("resources.gpus_per_trial", each))
    return int(own) if isinstance(own, int) else each


def _lacking(trial: Trial, supply: Supply, ready: Ready | None) -> str:
    """Why a trial cannot have as many GPUs as it is to have, in words; "" where it can. It waits, as a GPU may come
    back, and stops no other one."""
    wanted = gpus_of(trial, supply.each)
    fitting = (ready or {}).get(trial.number)
    says = f"trial {trial.number} is to have {wanted} GPUs, and"
    if supply.device == "cpu":
        here = "trials run on the CPU here; lower resources.gpus_per_trial"
        return f"{says} {here}" if wanted > 1 else ""
    if supply.total is not None and wanted > max(1, supply.total):
        return f"{says} the study may use {supply.total} here; lower resources.gpus_per_trial"
    if fitting is not None and len(fitting) < wanted:
        return f"{says} those here with the memory that it needs are {len(fitting)}"
    return ""


def _given(
    waiting: list[Trial], supply: Supply, ready: Ready
) -> list[tuple[Trial, tuple[str, ...]]]:
    """Each trial in its turn with the first free GPUs that it fits, all that it is to have or none.

    One that finds too few keeps those that it would take from the trials after it: it would wait for ever while single
    GPUs go to trials that need no more. One that fits none lets the next one pass.
    """
    left, given = list(supply.free), []
    for trial in waiting:
        fitting = ready.get(trial.number)
        wanted = gpus_of(trial, supply.each)
        found = tuple(u for u in left if fitting is None or u in fitting)[:wanted]
        left = [u for u in left if u not in found]
        if len(found) == wanted:
            given.append((trial, found))
    return given


def _news(state: StudyState, waiting: str, short: bool, now: float) -> StudyChanged | None:
    """The change of what the study waits for, where a person should hear of it; `short`: trials wait for a GPU."""
    if not short:
        return StudyChanged(t=now, status="running") if state.reason else None
    if not waiting or _shape(waiting) == _shape(state.reason):
        # Nothing speaks against a GPU now, or the same as before; it has to stay quiet for some readings yet.
        return None
    # A clock that was set back must not silence the news for as long.
    if state.reason and 0 <= now - state.updated < NEWS_EVERY:
        return None
    return StudyChanged(t=now, status="running", reason=waiting)


def _start(trial: Trial, device: Literal["cuda", "cpu"], gpus: tuple[str, ...]) -> Start:
    return Start(trial.number, trial.next_attempt, device, gpus)


def _over(state: StudyState, now: float) -> StudyChanged:
    paused = [t.number for t in state.trials.values() if t.status == "paused"]
    if paused:
        numbers = ", ".join(map(str, paused))
        what = f"trial {numbers} is" if len(paused) == 1 else f"trials {numbers} are"
        return StudyChanged(
            t=now, status="paused", reason=f"{what} paused and nothing else is left to do"
        )
    return StudyChanged(t=now, status="finished", reason=summary(state))


def _shape(reason: str) -> str:
    """A reason without its numbers: memory that goes up and down is not news."""
    return "".join(c for c in reason if not c.isdigit() and c != ".")
