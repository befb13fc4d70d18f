"""The second runs of the best trials, before a winner is named. Pure."""

from core.engine.standing import ranking
from core.profile import Profile
from core.study.events import TrialAdded
from core.study.state import StudyState, Trial

STRIDE = 1_000_003
"""From one seed to the next; a prime far from the small numbers that people choose."""
SEEDS = 2**32
"""Seeds are below it."""


def confirmations(state: StudyState, profile: Profile, now: float) -> list[TrialAdded]:
    """The runs that are to confirm the first `search.confirm` of the ranking; none before all else is done.

    Each has another train.seed and train.order_seed than its trial, told by the profile alone. The rows to evaluate on
    stay. A winner that only leads because another's confirmation was bad is not confirmed in its turn: one round is
    made, and another where trials were added after it.
    """
    wanted = profile.search.confirm
    probes = [t for t in state.trials.values() if t.kind == "probe"]
    if wanted == 0 or not state.search_on or not _done(state, probes):
        return []
    newest = max((t.number for t in probes if t.source != "confirm"), default=0)
    if any(t.source == "confirm" and t.number > newest for t in probes):
        return []
    seconds = {t.parent for t in probes if t.source == "confirm"}
    best = [r.trial for r in ranking(state) if r.place is not None][:wanted]
    again = [state.trials[n] for n in best if n not in seconds]
    first = state.next_number()
    return [_again(t, first + i, profile, now) for i, t in enumerate(again)]


def _done(state: StudyState, probes: list[Trial]) -> bool:
    """Whether every probe has come to its end. One that a person paused may yet be the best."""
    return bool(probes) and state.to_come() == 0 and all(t.ended and not t.advising for t in probes)


def _again(trial: Trial, number: int, profile: Profile, now: float) -> TrialAdded:
    train = profile.with_changes(trial.changes).train
    order = train.data_seed if train.order_seed is None else train.order_seed
    return TrialAdded(
        t=now,
        trial=number,
        settings={
            **trial.changes,
            "seed": (train.seed + STRIDE) % SEEDS,
            "order_seed": (order + STRIDE) % SEEDS,
        },
        source="confirm",
        parent=trial.number,
        sampled=trial.sampled,
    )
