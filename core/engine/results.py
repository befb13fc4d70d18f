"""What a study found, as profiles made of its trials."""

import math
import time
from dataclasses import replace

from core.engine.standing import ranking
from core.params import TunedTable
from core.profile import Profile, load
from core.search.samplers import plan
from core.study.files import RunInfo, read_record
from core.study.state import Trial
from core.study.store import StudyError, StudyReader
from core.values import Scalar

TUNED_COMMENT = """Found by tunedeck; [tuned] says how. Run it as the full training:
  tunedeck train THIS_FILE"""
"""What stands on top of a saved winner."""


def plan_size(profile: Profile) -> int:
    """How many trials the search of a profile will run."""
    return len(plan(profile))


def trial_profile(reader: StudyReader, number: int, *, as_probe: bool = False) -> Profile:
    """The profile that runs the settings of trial `number` as a training without a search.

    Its [tuned] table says how it was found. With `as_probe` it trains only as long as the trial did, so that it
    reproduces the trial's loss.

    Raises:
        StudyError: there is no such trial, or (with `as_probe`) it never came to train.
        ProfileError: the study's profile cannot be read.
    """
    state = reader.state
    trial = state.trials.get(number)
    if trial is None:
        raise StudyError(f"{reader.folder.path} has no trial {number}")
    run = read_record(reader.folder.trial(number).run, RunInfo)
    changes: dict[str, Scalar] = dict(trial.changes)
    profile = load(reader.folder.profile).with_changes(changes)
    if as_probe:
        if run is None:
            raise StudyError(f"trial {number} never came to train: its length is not known")
        changes["max_steps"] = run.total_steps
        if profile.train.warmup_steps is not None:
            # Given in updates it is meant for the full training, and a probe takes its share.
            share = run.total_steps / run.full_steps
            changes["warmup_steps"] = math.ceil(profile.train.warmup_steps * share - 1e-9)
        profile = profile.with_changes(changes)
    return replace(profile.as_training(), tuned=_tuned(reader, trial, run))


def _tuned(reader: StudyReader, trial: Trial, run: RunInfo | None) -> TunedTable:
    state = reader.state
    value = trial.eval_loss if state.rank_by == "eval_loss" else trial.loss
    placed = [r for r in ranking(state) if r.place is not None]
    runner_up = next((r for r in placed if r.trial != trial.number), None)
    return TunedTable(
        study=str(reader.folder.path.resolve()),
        trial=trial.number,
        metric=state.rank_by,
        value=value,
        steps=trial.step,
        trials=len(placed),
        runner_up=runner_up.trial if runner_up else None,
        runner_up_value=runner_up.value if runner_up else None,
        peak_memory_gib=round(trial.peak_memory / 2**30, 2) if trial.peak_memory else None,
        device=run.device if run else "",
        precision=run.precision if run else "",
        versions=run.versions if run else {},
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
