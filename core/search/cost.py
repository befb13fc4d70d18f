"""What a search with early stopping is expected to cost, before anything has run."""

from core.search.halving import HalvingSettings, Stopping, rungs

CATCHING_UP = 1 / 6
"""So large a share of those at a rung goes on beside the best ones since they may catch up, on recorded learning curves
(`python -m bench search` prints what this comes to beside what the rule really costs)."""


def expected_share(settings: HalvingSettings, stopping: Stopping, trials: int) -> float:
    """The expected cost of all trials' probes, as a share of what they cost when all run to their end: in (0, 1].

    Failures are left out: they only make it cheaper.
    """
    if stopping == "none" or trials <= settings.finalists:
        return 1.0
    share_kept = min(1.0, 1 / settings.reduction + (CATCHING_UP if settings.pace > 0 else 0))
    running, last, cost = float(trials), 0.0, 0.0
    for place in (*rungs(settings), 1.0):
        cost += running * (place - last)
        running, last = min(running, max(settings.finalists, running * share_kept)), place
    return cost / trials
