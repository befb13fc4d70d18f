"""Follows the live trials: what they log, what the guard says, and what becomes of them when they have ended."""

import time
from functools import partial

from core.engine.endings import classify, gather
from core.engine.memory.calibrate import learn
from core.engine.scheduler import Start
from core.engine.service import Service
from core.engine.starts import back, make_watch
from core.engine.tidy import after_end
from core.engine.watch import Watch
from core.study.events import TrialAsked, TrialStalled, TrialStarted, Warned
from core.study.state import Trial
from core.study.store import now


def look_at(service: Service, trial: Trial) -> None:
    """Follow a live trial: what it logged, whether it still lives."""
    watch = service.watches.get(trial.number)
    if watch is None:
        watch = service.watches[trial.number] = make_watch(service, trial)
    # Asked first: what a trial wrote before its end is then surely seen.
    alive = service.launcher.alive(service.folder.trial(trial.number))
    for verdict in watch.poll():
        if verdict.action == "warn":
            service.record(Warned(t=now(), trial=trial.number, text=verdict.reason))
        elif service.state.trials[trial.number].status != "stopping":
            service.log.say(f"the guard stops trial {trial.number}: {verdict.reason}")
            service.commit(
                TrialAsked(
                    t=now(),
                    trial=trial.number,
                    attempt=watch.attempt,
                    ask="stop",
                    by="guard",
                    reason=verdict.reason,
                )
            )
    silence = watch.stalled(time.monotonic())
    if silence is not None and alive:
        service.record(
            TrialStalled(t=now(), trial=trial.number, attempt=watch.attempt, text=silence)
        )
    if not alive:
        _end(service, service.state.trials[trial.number])
        return
    if trial.attempt is not None and trial.attempt.shim is None:
        _meet(service, trial)
    _mind_pause(service, trial, watch)


def take_over(service: Service, trial: Trial) -> None:
    """Find a trial again that an earlier daemon started, or its end."""
    folder, attempt = service.folder.trial(trial.number), trial.attempt
    if attempt is None or service.launcher.alive(folder):
        service.log.say(f"trial {trial.number} is still running")
        if attempt is not None and attempt.shim is not None and trial.asked is not None:
            # The earlier daemon may have written the request down and died before it made it.
            service.launcher.ask(attempt.shim, trial.asked)
        return
    facts = gather(folder, trial, service.profile)
    if facts.exit is None:
        service.launcher.kill_leftovers(service.mark(trial))
    never = facts.exit is None and facts.report is None and attempt.shim is None
    if never and trial.asked is None:
        reason = "the daemon ended before it could start it"
        again = Start(trial.number, attempt.number, attempt.device)
        service.record(back(again, trial, reason))
        return
    _end(service, trial)


def _end(service: Service, trial: Trial) -> None:
    """Class the end of an attempt, and do what follows from it."""
    folder = service.folder.trial(trial.number)
    facts = gather(folder, trial, service.profile)
    outcome = classify(facts, now())
    reason = f": {outcome.event.reason}" if outcome.event.reason else ""
    service.log.say(f"trial {trial.number} ended, {outcome.event.ending}{reason}")
    service.watches.pop(trial.number, None)
    for uuid in trial.attempt.gpus if trial.attempt else ():
        service.pool.released(uuid)
    service.launcher.kill_leftovers(service.mark(trial))
    service.conclude(outcome)
    service.guarded(partial(after_end, service.folder, service.state.trials[trial.number]))
    service.guarded(partial(learn, facts, outcome))


def _meet(service: Service, trial: Trial) -> None:
    """Find the shim of an attempt whose start was not recorded any more."""
    mark = service.mark(trial)
    shim = service.launcher.find(mark)
    if shim is not None:
        service.record(TrialStarted(t=now(), trial=mark.trial, attempt=mark.attempt, shim=shim))
        if trial.asked is not None:
            service.launcher.ask(shim, trial.asked)


def _mind_pause(service: Service, trial: Trial, watch: Watch) -> None:
    if trial.status != "pausing":
        return
    if watch.asked_at is None:
        watch.asked_at = time.monotonic()
    patience = service.settings.pause_patience
    if not watch.told_slow and time.monotonic() - watch.asked_at > patience:
        watch.told_slow = True
        text = "it was asked to pause and has not saved its checkpoint yet; stop it to free its device at once"
        service.record(Warned(t=now(), trial=trial.number, text=text))
