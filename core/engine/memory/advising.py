"""Carries out looks into the trials' memory: asks an adviser, one at a time, and acts on what it says."""

from collections.abc import Sequence
from functools import partial

from core.engine.memory.advice import after_crash, after_fit, after_look, too_large_to_start
from core.engine.memory.advisers import Ticket
from core.engine.memory.clearance import ANYWHERE, Verdict
from core.engine.memory.foresight import Device, smallest_of
from core.engine.memory.jobs import Result
from core.engine.scheduler import Ready
from core.engine.service import Service
from core.study.events import Advice, AdviceAsked
from core.study.state import Trial
from core.study.store import now

AHEAD = 4
"""So many trials beyond those that could run now are looked at, so that no GPU waits for a proof."""


def advise(service: Service) -> None:
    """One tick: take in what an adviser said, skip what cannot fit, ask for what is not known."""
    done = service.advisers.poll()
    if done is not None:
        _take_in(service, *done)
    ticket = service.advisers.ticket
    if ticket is not None and not _wanted(service, ticket):
        service.advisers.close()
    if service.recorder.trouble is not None:
        return
    waiting = _waiting(service)
    # Reading the devices costs more than all else here, and mostly nobody waits.
    crashed = [t for t in service.state.trials.values() if t.advising == "fix"]
    if not waiting and not crashed:
        return
    devices = service.foresight.devices(service.pool)
    for trial in waiting:
        _act(service, trial, devices)
    if not service.advisers.busy:
        _ask(service, crashed, devices)


def cleared(service: Service) -> Ready:
    """The waiting trials that may start as far as their memory is concerned, and on which GPUs."""
    ready: dict[int, frozenset[str] | None] = {}
    waiting = _waiting(service)
    devices = service.foresight.devices(service.pool) if waiting else ()
    for trial in waiting:
        if _needs_fit(service, trial):
            continue
        verdict = _verdict(service, trial, devices)
        if verdict.gpus is None or verdict.gpus:
            ready[trial.number] = verdict.gpus
    return ready


def _waiting(service: Service) -> list[Trial]:
    """The trials whose memory is to be known by now."""
    state = service.state
    if state.status != "running":
        return []
    return state.queued()[: service.pool.most + AHEAD]


def _verdict(service: Service, trial: Trial, devices: Sequence[Device]) -> Verdict:
    """What is known about a trial's start; whatever goes wrong there, the trial starts."""
    try:
        return service.foresight.verdict(trial, devices)
    except Exception as error:
        service.report(error)
        return ANYWHERE


def _needs_fit(service: Service, trial: Trial) -> bool:
    """Whether the trial's batch is still to be chosen by its memory."""
    # A second run of a trial has the batch that was chosen for that trial.
    wanted = service.profile.search.fit and not trial.fitted and not trial.attempts
    wanted = wanted and trial.source != "confirm"
    return wanted and not trial.checked and service.foresight.own(trial) is not None


def _act(service: Service, trial: Trial, devices: Sequence[Device]) -> None:
    """Do what follows for a waiting trial from what is known already."""
    foresight = service.foresight
    if _needs_fit(service, trial):
        own, device = foresight.own(trial), _largest(devices)
        if own is not None and device is not None:
            known = foresight.fits.get(foresight.shape(own, device.target))
            if known is not None:
                _fitted(service, trial, known, device)
        return
    verdict = _verdict(service, trial, devices)
    gpu = verdict.too_large
    result = gpu.result if gpu is not None else None
    if gpu is None or result is None or result.forecast is None:
        said = foresight.said(trial, devices)
        if trial.advising and not service.advisers.busy and verdict.ask is None and said:
            # An earlier daemon had asked, and knew the answer by the time that it died.
            service.commit(after_look(trial, said, now()))
        return
    where = (gpu.name, gpu.target)
    events = too_large_to_start(
        service.state, trial, result.forecast, result, where, service.profile, now()
    )
    service.guarded(partial(foresight.learn_fixes, trial, result, gpu.target))
    service.commit(*events)


def _take_in(service: Service, ticket: Ticket, result: Result) -> None:
    foresight = service.foresight
    foresight.learn(result)
    if not _wanted(service, ticket):
        return
    trial = service.state.trials[ticket.trial]
    devices = foresight.devices(service.pool)
    if ticket.about == "fix":
        device = _device_of(trial, devices)
        if device is not None:
            service.guarded(partial(foresight.learn_fixes, trial, result, device.target))
        service.commit(*after_crash(service.state, trial, result, service.profile, now()))
    elif ticket.about == "fit":
        _fitted(service, trial, result, _largest(devices))
    elif _verdict(service, trial, devices).too_large is None:
        service.commit(after_look(trial, result, now()))


def _fitted(service: Service, trial: Trial, result: Result, device: Device | None) -> None:
    if device is not None:
        service.guarded(partial(service.foresight.learn_fixes, trial, result, device.target))
    service.commit(*after_fit(trial, result, now()))


def _largest(devices: Sequence[Device]) -> Device | None:
    return max(devices, key=lambda device: device.target.free, default=None)


def _device_of(trial: Trial, devices: Sequence[Device]) -> Device | None:
    """Where the trial's last attempt ran."""
    gpus = trial.attempt.gpus if trial.attempt is not None else ()
    return smallest_of(gpus, devices)


def _wanted(service: Service, ticket: Ticket) -> bool:
    """Whether the trial still waits for what the adviser was asked."""
    trial = service.state.trials.get(ticket.trial)
    return (
        trial is not None
        and trial.advising == ticket.about
        and trial.next_attempt == ticket.attempt
    )


def _ask(service: Service, crashed: Sequence[Trial], devices: Sequence[Device]) -> None:
    """Give the next adviser its job, if there is one to do; trials that have crashed come first."""
    for trial in crashed:
        _begin(service, trial, "fix", _device_of(trial, devices))
        return
    for trial in _waiting(service):
        if _needs_fit(service, trial):
            device = _largest(devices)
            if device is not None:
                _begin(service, trial, "fit", device)
                return
            continue
        gpu = _verdict(service, trial, devices).ask
        if gpu is not None:
            device = next(d for d in devices if d.uuid == gpu.uuid)
            _begin(service, trial, "start", device)
            return


def _begin(service: Service, trial: Trial, about: Advice, device: Device | None) -> None:
    """Start an adviser; where that is not possible, its answer is that."""
    own = service.foresight.own(trial)
    if own is None or device is None:
        why = "its settings do not go together" if own is None else "its GPU cannot be seen now"
        _fail(service, trial, about, "", why)
        return
    if trial.advising != about:
        asked = AdviceAsked(t=now(), trial=trial.number, attempt=trial.next_attempt, about=about)
        service.record(asked)
    job = service.foresight.job(about, trial, own, device)
    ticket = Ticket(trial.number, trial.next_attempt, about, job.shape)
    try:
        service.advisers.start(ticket, job, service.folder.trial(trial.number).path)
    except OSError as error:
        _fail(service, trial, about, job.shape, error.strerror or str(error))


def _fail(service: Service, trial: Trial, about: Advice, shape: str, why: str) -> None:
    ticket = Ticket(trial.number, trial.next_attempt, about, shape)
    _take_in(service, ticket, Result(about=about, shape=shape, problem=why))
