"""How a study came out, in a line: its winner, or what became of its trials. Pure."""

from collections import Counter
from collections.abc import Sequence

from core.engine.standing import best_trial, ranking, value_of_trial
from core.study.state import StudyState, Trial, TrialStatus

LONGEST_REASON = 160
"""Characters of a failure's reason that are told."""
MOST_REASONS = 3
"""So many different reasons of failures are told, the commonest first."""

_FATES: dict[TrialStatus, tuple[str, str]] = {
    "diverged": ("diverged", "diverged"),
    "oom": ("ran out of memory", "ran out of memory"),
    "skipped": ("does not fit its GPU", "do not fit their GPU"),
    "failed": ("failed", "failed"),
    "lost": ("was lost", "were lost"),
    "stopped": ("was stopped", "were stopped"),
    "pruned": ("was dropped at a rung", "were dropped at a rung"),
}
"""What became of one trial and of several, in the order in which it is told."""


def summary(state: StudyState) -> str:
    """How a study came out. Without a trial that completed there is no winner, but the reasons."""
    best = best_trial(state)
    if best is not None:
        return f"best: trial {best.number}{_measured(state, best)}"
    trials = list(state.trials.values())
    tests = [t for t in trials if t.kind == "range"]
    if tests and len(tests) == len(trials):
        return _range(tests[-1])
    probes = [t for t in trials if t.kind == "probe"] or trials
    completed = sum(t.status == "completed" for t in probes)
    verdict = "no trial completed: "
    if completed:
        verdict = f"no winner: {completed} completed without a value of {state.rank_by}, "
    return (verdict + fates(probes)).rstrip(": ,")


def _measured(state: StudyState, best: Trial) -> str:
    placed = {r.trial: r for r in ranking(state) if r.place is not None}
    place = placed.get(best.number)
    value = place.value if place is not None else value_of_trial(best, state.rank_by)
    if value is None:
        return ""
    text = f", {state.rank_by} {value:.4g}"
    if place is None:
        return text
    if place.runs > 1:
        text += f" (mean of {place.runs} seeds)"
    tied = [str(r.trial) for r in placed.values() if r.group == place.group and r is not place]
    if tied:
        text += f", tied with trial{'s' if len(tied) > 1 else ''} {', '.join(tied)}"
    return text


def _range(test: Trial) -> str:
    if test.status == "completed":
        return f"the range test ended at update {test.step}"
    return f"the range test {_FATES[test.status][0] if test.status in _FATES else test.status}" + (
        f": {test.reason}" if test.reason else ""
    )


def fates(trials: Sequence[Trial]) -> str:
    """What became of those trials that ended without a result, those alike together; "" where none did."""
    same = {t.status for t in trials}
    if same in ({"skipped"}, {"oom"}):
        return "none fits its GPU" if "skipped" in same else "all ran out of memory"
    told = []
    for status, words in _FATES.items():
        group = [t for t in trials if t.status == status]
        if group:
            told.append(f"{len(group)} {words[len(group) > 1]}{_details(status, group)}")
    return ", ".join(told)


def _details(status: TrialStatus, group: Sequence[Trial]) -> str:
    if status == "diverged":
        rates = [t.changes.get("learning_rate") for t in group]
        known = [float(r) for r in rates if isinstance(r, int | float)]
        if len(known) < len(group):
            return ""
        more = "s ≥" if min(known) < max(known) else ""
        return f" at learning rate{more} {min(known):g}"
    if status == "failed":
        reasons = Counter(t.reason[:LONGEST_REASON] for t in group if t.reason)
        if len(reasons) == 1 and reasons.total() == len(group):
            return f" ({next(iter(reasons))})"
        told = [f"{often} of them: {reason}" for reason, often in reasons.most_common(MOST_REASONS)]
        others = len(reasons) - len(told)
        told += [f"{others} more reason{'s' if others > 1 else ''}"] if others else []
        return f" ({'; '.join(told)})" if told else ""
    return ""
