"""Removes checkpoints that nothing will go on from: each of them holds weights and optimizer states."""

import shutil

from core.study.state import StudyState, Trial
from core.study.store import StudyFolder


def after_end(folder: StudyFolder, trial: Trial) -> None:
    """Remove what an attempt of a probe that has ended left besides the checkpoint that it would go on from.

    A full training's own settings say what it keeps.
    """
    if trial.kind == "full" or trial.live or trial.status == "queued":
        return
    checkpoints = folder.trial(trial.number).checkpoints
    # What diverged would diverge again from there.
    kept = "" if trial.status == "diverged" else (trial.resume_from or "").rpartition("/")[2]
    if not checkpoints.is_dir():
        return
    for path in checkpoints.iterdir():
        if path.name != kept:
            shutil.rmtree(path, ignore_errors=True)


def after_study(folder: StudyFolder, state: StudyState) -> None:
    """Remove the checkpoints of trials that were dropped at a rung: no decision will revive them any more."""
    for trial in state.trials.values():
        if trial.status == "pruned":
            shutil.rmtree(folder.trial(trial.number).checkpoints, ignore_errors=True)
        else:
            # What a daemon that died had not come to.
            after_end(folder, trial)
