"""The records that make a study, and the files that an attempt finds when it starts."""

import shutil
from dataclasses import replace

import msgspec

from core.engine.scheduler import Start
from core.profile import Profile, save
from core.search.choice import Choice, choose
from core.search.halving import Stopping, first_look, first_until, profile_settings, rungs
from core.search.metric import resolve
from core.search.samplers import plan, plan_notices
from core.study.events import JOURNAL_VERSION, AnyEvent, StudyCreated, TrialAdded, Warned
from core.study.files import CACHE, RangeTest, TrialTask, write_record
from core.study.state import Trial
from core.study.store import TrialFolder
from core.version import VERSION


def creation(profile: Profile, now: float, gpus: int | None = None) -> list[AnyEvent]:
    """The first records of a study: itself and its trials. Without anything to search it is one full training.

    `gpus`: how many it may use, None on the CPU. They decide with the number of trials what `auto` means.

    Raises:
        MetricError: it is to be ranked by something that no trial logs.
    """
    searched = bool(profile.search.space)
    choice = choose(profile, gpus=gpus)
    chosen = _as_chosen(profile, choice)
    planned = plan(chosen)
    metric = resolve(
        profile.search.rank_by,
        profile.search.rank_direction,
        profile.has_validation(),
        profile.method.stage,
    )
    created = StudyCreated(
        t=now,
        version=JOURNAL_VERSION,
        name=profile.profile.name,
        tunedeck=VERSION,
        rank_by=metric.name,
        direction=metric.direction,
        planned=choice.trials if choice.strategy == "bayesian" else len(planned),
        strategy=choice.strategy,
        stopping=choice.stopping if searched else "none",
        choice=choice.why if searched else "",
    )
    until = first_until(profile_settings(profile)) if created.stopping != "none" else 1.0
    trials = [
        TrialAdded(
            t=now,
            trial=number,
            settings=trial.settings,
            kind="probe" if searched else "full",
            source=trial.source,
            sampled=trial.sampled,
            until=until,
        )
        for number, trial in enumerate(planned, 1)
    ]
    return [created, *trials, *(Warned(t=now, text=text) for text in plan_notices(chosen))]


def range_creation(profile: Profile, now: float, test: RangeTest) -> list[AnyEvent]:
    """The first records of a study that is a learning-rate range test of the profile's own settings."""
    created = StudyCreated(
        t=now,
        version=JOURNAL_VERSION,
        name=profile.profile.name,
        tunedeck=VERSION,
        rank_by="loss",
        planned=1,
        strategy="grid",
        choice=f"a range test: the learning rate rises from {test.low:g} to {test.high:g} over {test.steps} updates",
    )
    return [created, TrialAdded(t=now, trial=1, settings={}, kind="range", source="user")]


def _as_chosen(profile: Profile, choice: Choice) -> Profile:
    """The profile with what was decided in place of `auto`, so that nothing decides again otherwise."""
    decided = {"strategy": choice.strategy, "stopping": choice.stopping}
    return replace(profile, search=profile.search.model_copy(update=decided))


def prepare(
    folder: TrialFolder,
    trial: Trial,
    profile: Profile,
    start: Start,
    threads: int | None,
    test: RangeTest | None = None,
    stopping: Stopping = "none",
) -> None:
    """Write what the worker of an attempt reads, and clear away what older attempts said about their end.

    `threads` is the most CPU threads to compute with, `test` what a range test runs, `stopping` how the study ends
    trials early.

    Raises:
        ProfileError: the trial's settings do not go with the profile.
        OSError: the disk is full or the folder cannot be written.
    """
    own = profile.with_changes(trial.changes).as_training()
    folder.path.mkdir(parents=True, exist_ok=True)
    for stale in (folder.run, folder.report, folder.exit):
        stale.unlink(missing_ok=True)
    if trial.resume_from is None:
        # An attempt that starts over must never be mistaken for what an earlier one had reached.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    save(own, folder.profile)
    task = _task(trial, profile, start, threads, test or RangeTest())
    write_record(folder.task, msgspec.structs.replace(task, looks=_looks(trial, profile, stopping)))


def _looks(trial: Trial, profile: Profile, stopping: Stopping) -> tuple[float, ...]:
    """Where a trial is evaluated so that it can be compared: also at rungs that it passes without a stop."""
    if trial.kind != "probe" or trial.source == "confirm" or stopping == "none":
        return ()
    settings = profile_settings(profile)
    return (first_look(settings), *rungs(settings))


def _task(
    trial: Trial, profile: Profile, start: Start, threads: int | None, test: RangeTest
) -> TrialTask:
    search, probe, full = profile.search, trial.kind == "probe", trial.kind == "full"
    steps = profile.train.max_steps
    return TrialTask(
        trial=trial.number,
        attempt=start.attempt,
        kind=trial.kind,
        budget=search.budget if probe else 1.0,
        device=start.device,
        gpus=start.gpus,
        processes=max(1, len(start.gpus)),
        resume_from=trial.resume_from,
        save_model=full,
        threads=threads,
        until=trial.until if probe else 1.0,
        budget_tokens=search.budget_tokens if probe else None,
        full_rows=profile.effective_batch() * steps if steps is not None else None,
        own_batch=profile.effective_batch(),
        cache=f"../../{CACHE}",
        # A training that continues from a probe has to know what that one's schedule was.
        schedule=search.probe_schedule,
        keep_checkpoint=probe and search.keep_checkpoints and trial.source != "confirm",
        # Checkpoints are named from the study's folder, and this trial's is two levels below it.
        continues=f"../../{trial.continues}" if trial.continues is not None else None,
        range_low=test.low,
        range_high=test.high,
        range_steps=test.steps,
    )
