"""What a search still costs, as far as its journal tells. Pure; the dashboard asks at its first frame."""

from collections.abc import Sequence

from core.study.state import Trial


def still_to_start(
    trials: Sequence[Trial], *, to_come: int, confirm: int = 0, expected_share: float = 1.0
) -> float:
    """How many whole probes' worth the search has yet to start, besides what runs now up to where it was sent.

    `to_come`: trials that are not proposed yet. `confirm`: how many of the best run once more. `expected_share`: which
    part of running all trials whole the study's early stopping is expected to cost (`core.search.cost`).
    """
    probes = [t for t in trials if t.kind == "probe" and t.source != "confirm"]
    again = [t for t in trials if t.kind == "probe" and t.source == "confirm"]
    left = 0.0
    if to_come or not all(t.ended for t in probes):
        # What broke down takes nothing more, and nobody else runs longer for it.
        sound = [t for t in probes if not t.ended or t.status in ("completed", "pruned")]
        sent = sum(t.until if t.live else _done(t) for t in sound)
        left = max(_queued(probes), (len(sound) + to_come) * expected_share - sent)
    return left + max(0, confirm - len(again)) + _queued(again)


def probe_seconds(trials: Sequence[Trial]) -> float | None:
    """How long a whole probe takes on average, its starts included; None before one ended or came to a rung.

    Those that broke down tell of their starts above all.
    """
    told = [t for t in trials if t.kind == "probe" and (t.status == "completed" or t.rungs)]
    shares = sum(map(_done, told))
    return sum(t.seconds for t in told) / shares if shares > 0 else None


def to_run(trial: Trial) -> float:
    """The share of a whole probe that an attempt of the trial had or has to run up to where it was sent."""
    return max(0.0, trial.until - _done(trial))


def _queued(probes: Sequence[Trial]) -> float:
    """What those that wait for a place will take at least, up to where they are sent."""
    return sum(to_run(t) for t in probes if t.status == "queued")


def _done(trial: Trial) -> float:
    return min(1.0, trial.step / trial.total_steps) if trial.total_steps > 0 else 0.0
