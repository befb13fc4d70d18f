"""What a client's wish does to a study: the records to write and the answer. Pure.

A `TrialAsked` about a live trial tells the daemon to ask its process as well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.catalogue import UnknownParameterError, find
from core.engine.followup import as_it_stands, checkpoint_for
from core.engine.messages import Reply, Request
from core.params import SEARCHABLE_TABLES
from core.profile import Profile, ProfileError
from core.search.halving import first_until, profile_settings
from core.study.events import (
    AnyEvent,
    Asked,
    Asker,
    StudyChanged,
    TrialAdded,
    TrialAsked,
    TrialQueued,
)
from core.study.state import StudyState, Suggestion, Trial, TrialStatus
from core.study.store import describe, trial_path
from core.values import Scalar

_HOPELESS: Mapping[TrialStatus, str] = {
    "diverged": "diverged",
    "oom": "ran out of memory",
    "failed": "failed",
    "skipped": "was proven not to fit",
}
"""Endings of a trial whose full training would end alike."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records that a request leads to, none where it is refused, and what the client is told."""

    reply: Reply
    events: tuple[AnyEvent, ...] = ()


class _RefusedError(Exception):
    """The request cannot be done; the message is the answer."""


def answer(state: StudyState, profile: Profile, request: Request, now: float) -> Answer:
    """Decide about a request; `now` is in seconds since the epoch."""
    try:
        if request.command == "add":
            return _add(state, profile, request.changes or {}, now)
        if request.command == "ping":
            return Answer(Reply(True, status_line(state)))
        if request.trial is None:
            return _about_study(state, request, now)
        trial = state.trials.get(request.trial)
        if trial is None:
            raise _RefusedError(_no_trial(state, request.trial))
        return _about_trial(state, profile, trial, request, now)
    except _RefusedError as refusal:
        return Answer(Reply(False, str(refusal), request.trial))


def status_line(state: StudyState) -> str:
    """What the study does now, in a line."""
    counts = (
        (len(state.live()), "running"),
        (len(state.queued()), "waiting"),
        (len(state.waiting_at_rung()), "at a rung"),
        (sum(t.ended for t in state.trials.values()), "ended"),
        (state.to_come(), "to come"),
    )
    words = [f"{n} {what}" for n, what in counts if n]
    reason = f" ({state.reason})" if state.reason else ""
    return f"the study is {state.status}{reason}: {', '.join(words) or 'no trials'}"


def _about_study(state: StudyState, request: Request, now: float) -> Answer:
    if request.command == "stop":
        return _stop_study(state, now)
    if request.command == "pause":
        return _pause_study(state, now)
    if request.command == "resume":
        return _resume_study(state, now)
    raise _RefusedError(f"say which trial to {request.command}")


def _about_trial(
    state: StudyState, profile: Profile, trial: Trial, request: Request, now: float
) -> Answer:
    match request.command:
        case "stop":
            return _stop(state, trial, now)
        case "pause":
            return _pause(trial, now)
        case "resume":
            return _resume(state, trial, now)
        case "retry":
            return _retry(state, profile, trial, request, now)
        case "promote":
            return _promote(state, profile, trial, request, now)
        case _:
            raise _RefusedError(f"{request.command} is not about one trial")


def _stop_study(state: StudyState, now: float) -> Answer:
    if state.status in ("stopped", "finished") and not state.live():
        raise _RefusedError(f"the study is {state.status} already")
    events: list[AnyEvent] = [
        StudyChanged(t=now, status="stopped", reason="stopped by you", search=False)
    ]
    live = [t for t in state.live() if t.status != "stopping"]
    events += [_asked(t, "stop", "study", now, "the study was stopped") for t in live]
    for trial in state.queued():
        events += _end_waiting(trial, "stop", "study", now, "the study was stopped before it ran")
    for trial in state.waiting_at_rung():
        reason = "the study was stopped while it waited at its rung"
        events += _end_waiting(trial, "stop", "study", now, reason)
    what = _count(len(state.live()), "running trial")
    text = f"the study stops; {what} will end" if state.live() else "the study is stopped"
    return Answer(Reply(True, text), tuple(events))


def _pause_study(state: StudyState, now: float) -> Answer:
    if state.status != "running":
        raise _RefusedError(f"the study is {state.status}: there is nothing to pause")
    events: list[AnyEvent] = [StudyChanged(t=now, status="paused", reason="paused by you")]
    live = [t for t in state.live() if t.status in ("starting", "running")]
    events += [_asked(t, "pause", "study", now, "the study was paused") for t in live]
    text = "the study is paused"
    if live:
        text = f"the study pauses; {_count(len(live), 'running trial')} will save a checkpoint and free the device"
    return Answer(Reply(True, text), tuple(events))


def _resume_study(state: StudyState, now: float) -> Answer:
    stopping = [t for t in state.live() if t.status == "stopping" and t.asked_by == "study"]
    if stopping:
        what = "a trial is" if len(stopping) == 1 else f"{len(stopping)} trials are"
        raise _RefusedError(f"{what} still stopping: try again in a moment")
    again = [t for t in state.trials.values() if _held_by_study(t)]
    if state.status == "running" and not again:
        raise _RefusedError("the study is running already; resume a paused trial by its number")
    # A trial that a fix is looked for is work yet.
    mended = [t for t in state.trials.values() if t.advising == "fix"]
    others = [*state.queued(), *state.live(), *state.waiting_at_rung(), *mended]
    waiting = len(others) + state.left_to_propose()
    if not again and not waiting:
        again = [t for t in state.trials.values() if t.status == "paused"]
    if not again and not waiting:
        raise _RefusedError("nothing is left to do: add a trial, retry or promote one")
    events: list[AnyEvent] = [StudyChanged(t=now, status="running", search=True)]
    events += [_goes_on(t, now, "the study was resumed") for t in again]
    waiting += len(again)
    return Answer(Reply(True, f"the study goes on with {_count(waiting, 'trial')}"), tuple(events))


def _held_by_study(trial: Trial) -> bool:
    """Whether the trial waits only because the study was paused or stopped."""
    return trial.status in ("paused", "stopped") and trial.asked_by == "study"


def _stop(state: StudyState, trial: Trial, now: float) -> Answer:
    if trial.status == "stopping":
        raise _RefusedError(f"trial {trial.number} is stopping already")
    if trial.live:
        event = _asked(trial, "stop", "user", now, "stopped by you")
        return Answer(_yes(trial, "will stop within seconds"), (event,))
    if trial.status in ("queued", "paused", "rung"):
        events = _end_waiting(trial, "stop", "user", now, "stopped by you while it waited")
        return Answer(_yes(trial, "is stopped"), (*events, *_without(state, trial, now)))
    if trial.advising == "fix" and trial.asked != "stop":
        event = _asked(trial, "stop", "user", now, "stopped by you")
        return Answer(
            _yes(trial, "stays as it is; a fix that is found is only suggested"), (event,)
        )
    raise _RefusedError(f"trial {trial.number} has ended already ({trial.status})")


def _pause(trial: Trial, now: float) -> Answer:
    if trial.status in ("starting", "running"):
        event = _asked(trial, "pause", "user", now, "paused by you")
        return Answer(_yes(trial, "will save a checkpoint and free its device"), (event,))
    if trial.status in ("queued", "rung"):
        events = _end_waiting(trial, "pause", "user", now, "paused by you while it waited")
        return Answer(_yes(trial, "is paused"), events)
    raise _RefusedError(f"trial {trial.number} is {trial.status}: it cannot be paused")


def _resume(state: StudyState, trial: Trial, now: float) -> Answer:
    if trial.status == "pausing":
        raise _RefusedError(
            f"trial {trial.number} still saves its checkpoint: try again in a moment"
        )
    if trial.status == "rung":
        raise _RefusedError(f"trial {trial.number} waits at its rung for the others")
    if trial.status not in ("paused", "pruned"):
        raise _RefusedError(f"trial {trial.number} is {trial.status}, not paused")
    start = "continues from its checkpoint" if trial.resume_from else "starts from the beginning"
    if trial.status == "paused" and trial.at_rung:
        start = "waits at its rung again"
    events = (_goes_on(trial, now, "resumed by you"), *_wake(state, now))
    return Answer(_yes(trial, start + _when(state)), events)


def _retry(
    state: StudyState, profile: Profile, trial: Trial, request: Request, now: float
) -> Answer:
    if trial.status in ("pausing", "stopping"):
        raise _RefusedError(f"trial {trial.number} is still {trial.status}: try again in a moment")
    if not (trial.ended or trial.status == "paused"):
        how = "waiting at a rung" if trial.status == "rung" else trial.status
        raise _RefusedError(f"trial {trial.number} is {how}: stop it before trying again")
    fix = _chosen(trial, request)
    wanted = fix.changes if fix else request.changes or {}
    changes = _checked(profile, trial.changes, wanted)
    if not changes and trial.status in ("pruned", "paused", "stopped"):
        event = _goes_on(trial, now, "tried again by you")
        return Answer(_yes(trial, "goes on" + _when(state)), (event, *_wake(state, now)))
    resume = trial.resume_from
    if changes:
        resume = checkpoint_for(trial, changes) if fix is not None else None
    if trial.status in ("diverged", "completed"):
        resume = None  # It would diverge again from where it stood, or have nothing left to do.
    reason = fix.text if fix else ("with " + describe(changes) if changes else "tried again by you")
    queued = TrialQueued(
        t=now,
        trial=trial.number,
        attempt=trial.upcoming,
        overrides=changes,
        resume_from=resume,
        reason=reason,
        # What a person wants although it ran out of memory or would, and what was chosen with its memory known.
        unchecked=fix is not None or (not changes and trial.status in ("oom", "skipped")),
    )
    text = f"is tried again: {reason}" if changes else "is tried again"
    return Answer(_yes(trial, text + _when(state)), (queued, *_wake(state, now)))


def _chosen(trial: Trial, request: Request) -> Suggestion | None:
    """The fix that a retry is to be made with, if any: the first one where nothing was said."""
    if request.changes is not None:
        if request.fix:
            raise _RefusedError("a retry is made with a fix or with changes, not with both")
        return None
    if request.fix == 0:
        return None
    suggestion = trial.suggestion
    if request.fix is None:
        return suggestion
    if not 1 <= request.fix <= trial.options:
        many = "1 fix" if trial.options == 1 else f"{trial.options or 'no'} fixes"
        raise _RefusedError(
            f"trial {trial.number} has {many} to choose from: there is no number {request.fix}"
        )
    if suggestion is None or not suggestion.fixes:
        return suggestion
    option = suggestion.fixes[request.fix - 1]
    return Suggestion(option.changes, option.text)


def _add(state: StudyState, profile: Profile, changes: dict[str, Scalar], now: float) -> Answer:
    settings = _checked(profile, {}, changes)
    for other in state.trials.values():
        # A batch that was chosen by memory is not what a person asks for again.
        same = settings == (other.settings if other.fitted else other.changes)
        if other.kind == "probe" and same:
            again = ": retry it" if other.ended and other.status != "completed" else ""
            raise _RefusedError(
                f"trial {other.number} has the same settings already ({other.status}){again}"
            )
    number = state.next_number()
    rungs = state.stopping != "none" and state.search_on
    until = first_until(profile_settings(profile)) if rungs else 1.0
    added = TrialAdded(t=now, trial=number, settings=settings, source="user", until=until)
    what = describe(settings) or "the profile's own settings"
    text = f"trial {number} is added with {what}{_when(state)}"
    return Answer(Reply(True, text, number), (added, *_wake(state, now)))


def _promote(
    state: StudyState, profile: Profile, trial: Trial, request: Request, now: float
) -> Answer:
    if trial.kind == "full":
        raise _RefusedError(f"trial {trial.number} is a full training already")
    if trial.kind == "range":
        raise _RefusedError(
            f"trial {trial.number} is a range test: it has no settings to train with"
        )
    if trial.status in _HOPELESS:
        raise _RefusedError(
            f"trial {trial.number} {_HOPELESS[trial.status]}, and its full training would too: "
            "promote another, or retry it first"
        )
    for other in state.trials.values():
        if other.parent == trial.number and other.kind == "full" and not other.ended:
            raise _RefusedError(
                f"trial {other.number} is the full training of trial {trial.number} already"
            )
    changes = _checked(profile, trial.changes, request.changes or {})
    settings = {**_checked(profile, {}, trial.changes), **changes}
    number = state.next_number()
    added = TrialAdded(
        t=now,
        trial=number,
        settings=settings,
        kind="full",
        source="promote",
        parent=trial.number,
        continues=_kept_checkpoint(trial, changes) if request.continues else None,
    )
    begin = f", from update {trial.step} of its probe on" if request.continues else ""
    text = f"trial {number} is the full training with the settings of trial {trial.number}{begin}{_when(state)}"
    return Answer(
        Reply(True, text + _horizon(profile, settings, changes), number),
        (added, *_wake(state, now)),
    )


def _kept_checkpoint(trial: Trial, changes: Mapping[str, Scalar]) -> str:
    """The checkpoint that a trial kept at its end, relative to the study's folder."""
    if trial.status != "completed" or trial.resume_from is None:
        raise _RefusedError(
            f"trial {trial.number} kept no checkpoint to continue from: search.keep_checkpoints = true keeps one of "
            "every trial that runs its whole probe. Its full training can start from the beginning"
        )
    shaping = [name for name in changes if find(name).table != "train"]
    if shaping:
        raise _RefusedError(
            f"a training that continues from a checkpoint cannot change {shaping[0]}"
        )
    return f"{trial_path(trial.number)}/{trial.resume_from}"


def _horizon(profile: Profile, settings: Mapping[str, Scalar], chosen: Mapping[str, Scalar]) -> str:
    """What a probe's length means for the rate of the full training; empty where it means nothing.

    A probe of a tenth of the training that decays to its own end prefers a rate about twice too high.
    """
    search = profile.search
    if search.probe_schedule != "own" or (search.budget == 1 and search.budget_tokens is None):
        return ""
    rate = settings.get("learning_rate", profile.train.learning_rate)
    if not isinstance(rate, int | float) or "learning_rate" in chosen:
        return ""
    return (
        f". It keeps the learning rate {rate:.3g}; short probes favour rates up to about twice too high for a full "
        f"training, so {rate / 2:.3g} may end better"
    )


def _checked(
    profile: Profile, base: dict[str, Scalar], changes: dict[str, Scalar]
) -> dict[str, Scalar]:
    """`changes` with their plain names, checked alone and together with `base`."""
    named: dict[str, Scalar] = {}
    for key, value in changes.items():
        try:
            parameter = find(key)
            if parameter.table not in SEARCHABLE_TABLES:
                raise _RefusedError(f"{parameter.key} belongs to the whole study, not to one trial")
            named[parameter.name] = parameter.validate(value)
        except UnknownParameterError as error:
            raise _RefusedError(str(error)) from None
        except ValueError as error:
            raise _RefusedError(f"{key}: {error}") from None
    try:
        profile.with_changes({**base, **named})
    except ProfileError as error:
        raise _RefusedError("; ".join(str(p) for p in error.problems)) from None
    return named


def _asked(trial: Trial, ask: Asked, by: Asker, now: float, reason: str) -> TrialAsked:
    return TrialAsked(
        t=now, trial=trial.number, attempt=trial.next_attempt, ask=ask, by=by, reason=reason
    )


def _end_waiting(
    trial: Trial, ask: Asked, by: Asker, now: float, reason: str
) -> tuple[AnyEvent, ...]:
    """End a trial that has no process; what earlier attempts reached stays."""
    ended = as_it_stands(trial, "paused" if ask == "pause" else "stopped", now, reason)
    return (_asked(trial, ask, by, now, reason), ended)


def _goes_on(trial: Trial, now: float, reason: str) -> AnyEvent:
    """Back to the rung where it stood, else another attempt; what was dropped at a rung runs to its end."""
    if trial.at_rung and trial.status != "pruned":
        return as_it_stands(trial, "rung", now, trial.waits)
    return TrialQueued(
        t=now,
        trial=trial.number,
        attempt=trial.upcoming,
        resume_from=trial.resume_from,
        until=1.0 if trial.status == "pruned" else None,
        reason=reason,
    )


def _wake(state: StudyState, now: float) -> Iterable[AnyEvent]:
    """A study that was over goes on with new work; one that a person paused waits for that person."""
    if state.status in ("finished", "stopped") or (state.status == "paused" and not _more(state)):
        return (StudyChanged(t=now, status="running"),)
    return ()


def _without(state: StudyState, trial: Trial, now: float) -> Iterable[AnyEvent]:
    """A paused study whose last waiting trial is taken away goes on, and so comes to its end."""
    if state.status == "paused" and not _more(state, without=trial.number):
        return (StudyChanged(t=now, status="running"),)
    return ()


def _more(state: StudyState, without: int | None = None) -> bool:
    """Whether trials run, wait or are still to come, one left out of the count."""
    there = (*state.queued(), *state.live(), *state.waiting_at_rung())
    return state.to_come() > 0 or any(t.number != without for t in there)


def _when(state: StudyState) -> str:
    if state.status == "paused" and _more(state):
        return "; it waits until the study is resumed"
    return ""


def _yes(trial: Trial, what: str) -> Reply:
    return Reply(True, f"trial {trial.number} {what}", trial.number)


def _no_trial(state: StudyState, number: int) -> str:
    last = max(state.trials, default=0)
    return f"there is no trial {number}" + (f": they are numbered 1 to {last}" if last else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
