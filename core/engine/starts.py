"""Starts an attempt: its files, the intent, the act and the fact are written in this order."""

import msgspec

from core.catalogue import find
from core.engine.endings import Outcome
from core.engine.launch import LaunchError, LaunchSpec, LeaseTakenError, Mark
from core.engine.prepare import prepare
from core.engine.recorder import FULL, disk_trouble
from core.engine.scheduler import Start
from core.engine.service import Service
from core.engine.watch import Watch
from core.profile import ProfileError
from core.study.events import (
    StudyChanged,
    TrialEnded,
    TrialQueued,
    TrialStarted,
    TrialStarting,
    Warned,
)
from core.study.state import Trial
from core.study.store import now


def start(service: Service, decided: Start) -> None:
    """Start an attempt, or record why it cannot start."""
    trial = service.state.trials[decided.trial]
    if service.state.status != "running":
        return
    folder = service.folder.trial(decided.trial)
    trial = _with_checkpoint(service, trial)
    if trial.continues is not None and not (service.folder.path / trial.continues).is_dir():
        reason = f"the checkpoint that it was to continue from is gone ({trial.continues})"
        _fail(service, decided, reason, alone=True)
        return
    mark = Mark(service.name(), decided.trial, decided.attempt)
    try:
        prepare(
            folder,
            trial,
            service.profile,
            decided,
            service.pool.threads,
            service.range_test,
            service.state.stopping,
        )
    except ProfileError as error:
        reason = "; ".join(str(p) for p in error.problems)
        _fail(service, decided, f"these settings do not go together: {reason}", alone=True)
        return
    except OSError as error:
        _cannot_write(service, decided, error)
        return
    service.guarded(lambda: service.foresight.write(trial, decided, service.pool))
    intent = TrialStarting(
        t=now(),
        trial=decided.trial,
        attempt=decided.attempt,
        device=decided.device,
        gpus=decided.gpus,
    )
    if not service.recorder.record(intent):
        service.recorder.record(back(decided, trial, "it could not be recorded"))
        return
    try:
        shim = service.launcher.start(LaunchSpec(folder, mark, decided.device, decided.gpus))
    except LeaseTakenError as error:
        service.pool.released(error.uuid)
        service.record(back(decided, trial, str(error)))
        return
    except LaunchError as error:
        _fail(service, decided, str(error))
        return
    service.record(TrialStarted(t=now(), trial=decided.trial, attempt=decided.attempt, shim=shim))
    service.watches[decided.trial] = make_watch(service, service.state.trials[decided.trial])
    where = f" on GPU {', '.join(decided.gpus)}" if decided.gpus else ""
    service.log.say(f"trial {decided.trial}, attempt {decided.attempt} started{where}")


def _with_checkpoint(service: Service, trial: Trial) -> Trial:
    """The trial without its checkpoint where that was removed: it begins again."""
    folder = service.folder.trial(trial.number)
    if trial.resume_from is None or (folder.path / trial.resume_from).is_dir():
        return trial
    text = f"its checkpoint {trial.resume_from} is gone: it begins again"
    service.record(Warned(t=now(), trial=trial.number, text=text))
    return msgspec.structs.replace(trial, resume_from=None)


def back(decided: Start, trial: Trial, reason: str) -> TrialQueued:
    """The record that puts an attempt back into the queue which never came to run."""
    return TrialQueued(
        t=now(),
        trial=decided.trial,
        attempt=decided.attempt,
        resume_from=trial.resume_from,
        reason=reason,
        unchecked=trial.checked,
    )


def make_watch(service: Service, trial: Trial) -> Watch:
    """What follows the latest attempt of a trial."""
    attempt = trial.attempt.number if trial.attempt else trial.next_attempt
    profile = service.profile.with_changes(trial.changes)
    held = profile.alignment.ppo_target if profile.alignment.ppo_kl_coef else None
    return Watch(
        service.folder.trial(trial.number),
        attempt,
        profile.train,
        guarded=service.profile.search.guard,
        resumed=trial.resume_from is not None,
        stalled=bool(trial.stalled),
        patience=service.settings.stall_patience,
        stage=profile.method.stage,
        kl_target=held,
        decided={find(name).key for name in trial.changes},
    )


def _fail(service: Service, decided: Start, reason: str, *, alone: bool = False) -> None:
    """An attempt cannot start; `alone`: that says nothing about other trials."""
    service.log.say(f"trial {decided.trial} cannot start: {reason}")
    event = TrialEnded(
        t=now(),
        trial=decided.trial,
        attempt=decided.attempt,
        ending="failed",
        reason=reason,
        usage_error=True,
    )
    if alone:
        service.record(event)
    else:
        service.conclude(Outcome(event, trained=False))


def _cannot_write(service: Service, decided: Start, error: OSError) -> None:
    if error.errno not in FULL:
        _fail(service, decided, f"its folder cannot be written: {error.strerror}")
        return
    service.log.say(f"the study is paused: {disk_trouble(error)}")
    service.record(StudyChanged(t=now(), status="paused", reason=disk_trouble(error)))
