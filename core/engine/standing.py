"""How the trials of a study stand against each other. The dashboard asks at its first frame, so no profile is read."""

from core.search.ranking import Candidate, Ranked, rank
from core.study.state import StudyState, Trial


def ranking(state: StudyState) -> list[Ranked]:
    """The probes of a study, best first, those without a place last (full trainings are not compared with probes)."""
    return rank((candidate(t) for t in state.trials.values() if t.kind == "probe"), state.rank_by)


def best_trial(state: StudyState) -> Trial | None:
    """The best probe; in a study without probes the best full training; None when none completed."""
    kind = "probe" if any(t.kind == "probe" for t in state.trials.values()) else "full"
    trials = [t for t in state.trials.values() if t.kind == kind]
    ranked = rank((candidate(t) for t in trials), state.rank_by)
    return state.trials[ranked[0].trial] if ranked and ranked[0].place == 1 else None


def candidate(trial: Trial) -> Candidate:
    """A trial as ranking sees it."""
    rate = trial.changes.get("learning_rate")
    return Candidate(
        trial=trial.number,
        completed=trial.status == "completed",
        eval_loss=trial.eval_loss,
        loss=trial.loss,
        learning_rate=float(rate) if isinstance(rate, int | float) else None,
        ending=None if trial.status == "completed" else trial.status,
    )
