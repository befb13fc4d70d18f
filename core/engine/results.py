"""What a study found, as profiles made of its trials."""

import time
from dataclasses import replace

from core.data_size import round_up, steps_per_epoch, training_steps
from core.engine.standing import ranking, value_of_trial
from core.params import TunedTable
from core.profile import Profile, load
from core.study.files import RunInfo, read_record
from core.study.state import Trial
from core.study.store import StudyError, StudyReader
from core.values import Scalar

TUNED_COMMENT = """Found by tunedeck; [tuned] says how. Run it as the full training:
  tunedeck train THIS_FILE"""
"""What stands on top of a saved winner."""


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
    study = load(reader.folder.profile)
    profile = study.with_changes(trial.changes)
    if as_probe:
        if run is None:
            raise StudyError(f"trial {number} never came to train: its length is not known")
        if trial.kind == "probe" and study.search.probe_schedule == "full":
            raise StudyError(
                f"trial {number} ran the first part of the full training's schedule (search.probe_schedule): "
                "no training of its own reproduces it"
            )
    changes = _own_counts(study, profile, run, as_probe=as_probe) if run is not None else {}
    changed = profile.with_changes(changes) if changes else profile
    return replace(changed.as_training(), tuned=_tuned(reader, trial, run))


def _own_counts(study: Profile, own: Profile, run: RunInfo, *, as_probe: bool) -> dict[str, Scalar]:
    """The profile's counts of updates as a trial of another effective batch took them: for as many rows.

    A study's profile gives them for its own batch and the full training; a probe takes its share.
    """
    train, reference = own.train, run.full_steps
    changes: dict[str, Scalar] = {}
    if own.effective_batch() != study.effective_batch():
        each = steps_per_epoch(run.train_rows * study.passes(), study.effective_batch())
        reference = training_steps(each, train.num_train_epochs, train.max_steps)
        if train.max_steps is not None:
            changes["max_steps"] = run.full_steps
        for name in ("eval_steps", "save_steps"):
            count = getattr(train, name)
            if count is not None:
                changes[name] = max(1, round(count * run.full_steps / reference))
    steps = run.total_steps if as_probe else run.full_steps
    if as_probe:
        changes["max_steps"] = steps
    if train.warmup_steps is not None and steps != reference:
        changes["warmup_steps"] = round_up(train.warmup_steps * steps / reference)
    return changes


def _tuned(reader: StudyReader, trial: Trial, run: RunInfo | None) -> TunedTable:
    state = reader.state
    placed = [r for r in ranking(state) if r.place is not None]
    own = next((r for r in placed if r.trial == trial.number), None)
    runner_up = next((r for r in placed if r.trial != trial.number), None)
    return TunedTable(
        study=str(reader.folder.path.resolve()),
        trial=trial.number,
        metric=state.rank_by,
        value=own.value if own else value_of_trial(trial, state.rank_by),
        strategy=state.strategy,
        stopping=state.stopping,
        seeds=own.runs if own else 1,
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
