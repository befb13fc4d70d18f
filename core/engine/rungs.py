"""What becomes of trials that wait at a rung: the rule of the search, asked with what journal and curves say. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from core.search.halving import (
    Decision,
    Entrant,
    EntrantState,
    HalvingSettings,
    decide,
    decide_asha,
)
from core.search.metric import curve_of, find, losses_compare, signed
from core.study.events import RungDecided
from core.study.metrics import Point
from core.study.state import RungResult, StudyState, Trial

Curve = tuple[tuple[float, float], ...]
"""(share of the probe in (0, 1], value of which the lower is better), in order."""


def decide_rungs(
    state: StudyState,
    settings: HalvingSettings,
    curve: Callable[[Trial], Curve],
    now: float,
    losses: Callable[[Trial], Curve] | None = None,
) -> RungDecided | None:
    """The next decision about those that wait at a rung or were dropped there; None while there is none to make.

    `curve` reads what a trial has logged, `losses` its evaluation losses, which tell equals apart where the study ranks
    by a share of rows and its trials' losses are measures of each other.
    """
    waiting = state.waiting_at_rung()
    if not state.search_on or state.stopping == "none":
        return _to_the_end(waiting, "the search is over", now) if waiting else None
    competing = [t for t in state.trials.values() if _competes(t)]
    if not any(t.status in ("rung", "pruned") for t in competing):
        return None
    metric = find(state.rank_by, state.direction)
    by_loss = losses if metric.counted and losses_compare(t.changes for t in competing) else None
    entrants = [_entrant(t, curve(t), by_loss(t) if by_loss else ()) for t in competing]
    rule = decide_asha if state.stopping == "asha" else decide
    found = rule(settings, entrants, state.to_come())
    if found is not None and state.to_come() == 0:
        found = _straight_on(found, entrants, settings.finalists)
    event = _record(state, found, now) if found is not None else None
    stuck = waiting and state.to_come() == 0 and all(e.state != "open" for e in entrants)
    if event is None and stuck:
        # Nobody is on the way any more who could be waited for.
        return _to_the_end(waiting, "nothing else is left to compare with", now)
    return event


def rung_curve(
    points: Sequence[Point],
    rank_by: str,
    direction: str,
    total_steps: int,
    rungs: Sequence[RungResult],
) -> Curve:
    """What a trial logged, over shares of its probe of `total_steps` updates.

    What was measured at a rung counts for the rung's share: whole updates and the end of the warm-up may have moved it
    a little further on, for one trial more than for another.
    """
    metric = find(rank_by)
    steps = {r.step: r.at for r in rungs}
    found: list[tuple[float, float]] = []
    for share, value in curve_of(points, metric, total_steps):
        at = steps.get(round(share * total_steps), share)
        while found and found[-1][0] >= at:
            found.pop()
        found.append((at, signed(value, "max" if direction == "max" else "min")))
    return tuple(found)


def _competes(trial: Trial) -> bool:
    """Whether a trial is compared at rungs: the search's own and those that a person added, but no second run."""
    return trial.kind == "probe" and trial.source != "confirm"


def _entrant(trial: Trial, curve: Curve, losses: Curve) -> Entrant:
    rate = trial.changes.get("learning_rate")
    return Entrant(
        trial=trial.number,
        until=trial.until,
        state=_state(trial),
        curve=curve,
        learning_rate=float(rate) if isinstance(rate, int | float) else None,
        losses=losses,
    )


def _state(trial: Trial) -> EntrantState:
    match trial.status:
        case "rung":
            return "rung"
        case "pruned":
            return "pruned"
        case "completed":
            return "done"
        case "queued":
            return "open"
        case _ if trial.live or trial.advising == "fix":
            # A fix that is being looked for gives it another attempt.
            return "open"
        case _:
            return "out"


def _straight_on(found: Decision, entrants: Sequence[Entrant], finalists: int) -> Decision:
    """The decision without rungs to come where none could drop anybody: each stop costs a checkpoint and a start."""
    others = sum(
        e.state in ("open", "rung", "done") and e.trial not in {**found.kept, **found.dropped}
        for e in entrants
    )
    ends = dict.fromkeys(found.kept, 1.0)
    if not ends or found.kept == ends or others + len(ends) > finalists:
        return found
    text = f"{found.text}, and from there to the end: no more are dropped"
    return replace(found, kept=ends, text=text)


def _record(state: StudyState, found: Decision, now: float) -> RungDecided | None:
    """The decision as a record, of what it still changes; None where that is nothing."""
    status = {number: trial.status for number, trial in state.trials.items()}
    kept = {n: until for n, until in found.kept.items() if status.get(n) in ("rung", "pruned")}
    dropped = {n: why for n, why in found.dropped.items() if status.get(n) == "rung"}
    if not kept and not dropped:
        return None
    return RungDecided(
        t=now, rung=found.rung, at=found.at, kept=kept, dropped=dropped, text=found.text
    )


def _to_the_end(waiting: Sequence[Trial], why: str, now: float) -> RungDecided:
    numbers = ", ".join(str(t.number) for t in waiting)
    many = "trials" if len(waiting) > 1 else "trial"
    return RungDecided(
        t=now,
        rung=max(len(t.rungs) for t in waiting),
        at=max(t.until for t in waiting),
        kept={t.number: 1.0 for t in waiting},
        text=f"{why}: {many} {numbers} {'run' if len(waiting) > 1 else 'runs'} to the end",
    )
