"""The records that make a study, and the files that an attempt finds when it starts."""

import shutil

from core.engine.scheduler import Start
from core.profile import Profile, save
from core.search.samplers import plan, plan_notice
from core.study.events import JOURNAL_VERSION, AnyEvent, StudyCreated, TrialAdded, Warned
from core.study.files import TrialTask, write_record
from core.study.state import Trial
from core.study.store import TrialFolder
from core.version import VERSION


def creation(profile: Profile, now: float) -> list[AnyEvent]:
    """The first records of a study: itself and its trials. Without anything to search it is one full training."""
    settings = plan(profile)
    created = StudyCreated(
        t=now,
        version=JOURNAL_VERSION,
        name=profile.profile.name,
        tunedeck=VERSION,
        rank_by="eval_loss" if profile.rank_by() == "eval_loss" else "loss",
        planned=len(settings),
    )
    searched = bool(profile.search.space)
    trials = [
        TrialAdded(t=now, trial=number, settings=chosen, kind="probe" if searched else "full")
        for number, chosen in enumerate(settings, 1)
    ]
    notice = plan_notice(profile)
    return [created, *trials, *([Warned(t=now, text=notice)] if notice else [])]


def prepare(
    folder: TrialFolder, trial: Trial, profile: Profile, start: Start, threads: int | None
) -> None:
    """Write what the worker of an attempt reads, and clear away what older attempts said about their end.

    `threads` is the most CPU threads to compute with.

    Raises:
        ProfileError: the trial's settings do not go with the profile.
        OSError: the disk is full or the folder cannot be written.
    """
    own = profile.with_changes(trial.changes).as_training()
    full = trial.kind == "full"
    task = TrialTask(
        trial=trial.number,
        attempt=start.attempt,
        kind=trial.kind,
        budget=1.0 if full else profile.search.budget,
        device=start.device,
        gpus=start.gpus,
        resume_from=trial.resume_from,
        save_model=full,
        threads=threads,
    )
    folder.path.mkdir(parents=True, exist_ok=True)
    for stale in (folder.run, folder.report, folder.exit):
        stale.unlink(missing_ok=True)
    if trial.resume_from is None:
        # An attempt that starts over must never be mistaken for what an earlier one had reached.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    save(own, folder.profile)
    write_record(folder.task, task)
