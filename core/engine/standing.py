"""How the trials of a study stand against each other. The dashboard asks at its first frame, so no profile is read."""

from collections.abc import Iterable
from dataclasses import replace

from core.search.metric import Direction, find, losses_compare
from core.search.ranking import Candidate, Ranked, rank
from core.study.state import StudyState, Trial


def ranking(state: StudyState) -> list[Ranked]:
    """The probes of a study, best first, those without a place last.

    Full trainings and range tests are not compared with probes; a confirmation counts in the trial that it confirms.
    """
    return rank_trials(state.trials.values(), state.rank_by, state.direction)


def rank_trials(trials: Iterable[Trial], rank_by: str, direction: Direction) -> list[Ranked]:
    """The same of some trials: those that are no probes are left out."""
    return _rank((t for t in trials if t.kind == "probe"), rank_by, direction)


def best_trial(state: StudyState) -> Trial | None:
    """The best probe; in a study without probes the best full training; None when none completed."""
    kind = "probe" if any(t.kind == "probe" for t in state.trials.values()) else "full"
    trials = (t for t in state.trials.values() if t.kind == kind)
    ranked = _rank(trials, state.rank_by, state.direction)
    return state.trials[ranked[0].trial] if ranked and ranked[0].place == 1 else None


def value_of_trial(trial: Trial, rank_by: str) -> float | None:
    """What a trial has come to in what the study ranks by, in that metric's own direction; its last rung's value where
    it waits or was dropped there."""
    if trial.status in ("rung", "pruned") and trial.rungs:
        return trial.rungs[-1].value
    if trial.value is not None:
        return trial.value
    # Studies of earlier versions wrote the losses alone.
    return {"eval_loss": trial.eval_loss, "loss": trial.loss}.get(rank_by)


def candidate(trial: Trial, rank_by: str) -> Candidate:
    """A trial as ranking sees it."""
    rate = trial.changes.get("learning_rate")
    at_rung = trial.status in ("rung", "pruned") and trial.rungs
    return Candidate(
        trial=trial.number,
        completed=trial.status == "completed",
        value=value_of_trial(trial, rank_by),
        learning_rate=float(rate) if isinstance(rate, int | float) else None,
        ending=None if trial.status == "completed" else trial.status,
        share=trial.rungs[-1].at if at_rung else None,
        noise=trial.noise,
        eval_loss=trial.eval_loss,
        confirms=trial.parent if trial.source == "confirm" else None,
    )


def _rank(trials: Iterable[Trial], rank_by: str, direction: Direction) -> list[Ranked]:
    given, metric = list(trials), find(rank_by, direction)
    candidates = [candidate(t, rank_by) for t in given]
    # Of those that get a place, whoever else is among them: the dashboard leaves out what has not ended.
    placed = (t.changes for t in given if t.status == "completed")
    if metric.counted and not losses_compare(placed):
        candidates = [replace(c, eval_loss=None) for c in candidates]
    return rank(candidates, metric)
