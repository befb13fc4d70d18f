"""What a study has cost and will cost, as far as its journal tells. Pure; all times are in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from core.study.state import StudyState, Trial


@dataclass(frozen=True, slots=True)
class Spent:
    """What trials have taken so far."""

    seconds: float
    """All attempts together, one after another."""
    gpu_seconds: float
    """The same times the GPUs that each of them held; 0 on the CPU."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is left, as far as can be told."""

    probes: float
    """How many whole probes' worth is left to run, second runs of the best included."""
    seconds: float | None
    """How long they take one after another; None before any has run."""


def spent(state: StudyState, now: float) -> Spent:
    """What trials have taken, those that run `now` (seconds since the epoch) included."""
    seconds = gpus = 0.0
    for trial in state.trials.values():
        taken = trial.seconds
        attempt = trial.attempt
        if trial.live and attempt is not None and attempt.started is not None:
            taken += max(0.0, now - attempt.started)
        seconds += taken
        gpus += taken * (len(attempt.gpus) if attempt is not None else 0)
    return Spent(seconds, gpus)


def ahead(
    state: StudyState,
    *,
    confirm: int = 0,
    expected_share: float = 1.0,
    step: Callable[[Trial], int] = lambda trial: trial.step,
) -> Ahead:
    """What the search still costs.

    `confirm`: how many of the best run once more. `expected_share`: which part of running all trials whole its early
    stopping is expected to cost (`core.search.cost`). `step`: how far a trial is, where more is known than the journal
    says.
    """
    probes = [t for t in state.trials.values() if t.kind == "probe" and t.source != "confirm"]
    again = [t for t in state.trials.values() if t.kind == "probe" and t.source == "confirm"]
    done = sum(_share(t, step(t)) for t in probes)
    over = all(t.ended for t in probes) and state.to_come() == 0
    left = 0.0
    if not over:
        # Trials that have ended early, however they ended, were expected to.
        left = max(_least(probes), (len(probes) + state.to_come()) * expected_share - done)
    left += max(0, confirm - len(again)) if state.search_on else 0
    left += sum(1 - _share(t, step(t)) for t in again if not t.ended)
    whole = probe_seconds(state)
    return Ahead(left, None if whole is None else left * whole)


def probe_seconds(state: StudyState) -> float | None:
    """How long a whole probe takes on average; None before any has run."""
    ran = [
        t
        for t in state.trials.values()
        if t.kind == "probe" and t.seconds > 0 and t.step > 0 and t.total_steps > 0
    ]
    shares = sum(t.step / t.total_steps for t in ran)
    return sum(t.seconds for t in ran) / shares if shares > 0 else None


def _least(probes: list[Trial]) -> float:
    """What those that run or wait will take at least, up to where they are sent."""
    on = (t for t in probes if t.live or t.status == "queued")
    return sum(max(0.0, t.until - _share(t, t.step)) for t in on)


def _share(trial: Trial, step: int) -> float:
    return min(1.0, step / trial.total_steps) if trial.total_steps > 0 else 0.0
