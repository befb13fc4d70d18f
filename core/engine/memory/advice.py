"""What follows from a look into a trial's memory: the records to write. Pure."""

from core.engine.followup import (
    OTHER_STATES,
    as_it_stands,
    checkpoint_for,
    ladder_fix,
    no_remedy,
    unwanted,
)
from core.engine.memory.jobs import Found, Result
from core.memory.forecast import GIB, Forecast, Target
from core.profile import Profile
from core.study.events import (
    Advice,
    AdviceGiven,
    AnyEvent,
    FixSuggested,
    TrialQueued,
)
from core.study.state import StudyState, Trial

CHOSEN = frozenset({"gpus_per_trial"})
"""Parameters that only a person changes: more GPUs for a trial are fewer for others, of this study and beside it."""


def after_fit(trial: Trial, result: Result, now: float) -> list[AnyEvent]:
    """A batch was looked for that fits `trial` best."""
    found = result.fixes[0] if result.fixes else None
    if found is None:
        text = f"the batch stays as it is: {result.problem}"
    elif not found.option.changes:
        text = f"the batch stays as it is: none larger fits or has the same effective batch ({_needs(found)})"
    else:
        text = f"{found.option.text} ({_needs(found)})"
    overrides = found.option.changes if found else {}
    return [
        AdviceGiven(
            t=now,
            trial=trial.number,
            attempt=trial.next_attempt,
            about="fit",
            text=text,
            overrides=overrides,
        )
    ]


def after_look(trial: Trial, result: Result, now: float) -> AdviceGiven:
    """It was looked whether `trial` fits, and nothing speaks against its start."""
    forecast = result.forecast
    if forecast is None:
        text = f"cannot prove that it fits: {result.problem}"
    elif forecast.tier == "proof":
        text = f"proven to need {forecast.total / GIB:.1f} GiB"
    else:
        why = f" ({'; '.join(forecast.notes)})" if forecast.notes else ""
        text = f"needs about {forecast.total / GIB:.1f} GiB, an estimate{why}"
    return _given(trial, "start", text, now)


def after_crash(
    state: StudyState, trial: Trial, result: Result, profile: Profile, now: float
) -> list[AnyEvent]:
    """A fix was looked for, for a trial that ran out of memory."""
    if result.problem:
        given = _given(trial, "fix", f"cannot prove: {result.problem}", now)
        # A worker tells how many steps it will make when the first one begins.
        trained = trial.total_steps > 0 or trial.step > 0
        apply = _may_go_on(state, trial)
        return [given, *ladder_fix(trial, profile, now, trained=trained, apply=apply)]
    events: list[AnyEvent] = [_given(trial, "fix", result.summary, now)]
    if not result.fixes:
        return [*events, no_remedy(trial, now)]
    return events + _fixes(state, trial, result.fixes, profile, now)


def too_large_to_start(
    state: StudyState,
    trial: Trial,
    forecast: Forecast,
    result: Result,
    where: tuple[str, Target],
    profile: Profile,
    now: float,
) -> list[AnyEvent]:
    """A trial that is proven not to fit the device that has the most memory, `where`, is not started.

    `result` holds the fixes for it, none where none were looked for.
    """
    ended = as_it_stands(trial, "skipped", now, misfit(forecast, *where))
    events: list[AnyEvent] = [ended]
    if result.summary:
        events.append(_given(trial, "start", result.summary, now))
    if profile.memory.on_oom == "skip":
        return events
    if not result.fixes:
        return [*events, no_remedy(trial, now)]
    return events + _fixes(state, trial, result.fixes, profile, now)


def misfit(forecast: Forecast, name: str, target: Target) -> str:
    """Why a trial is not started, with the numbers."""
    # Where a limit binds, it is what the allocator may take that is short, and not the device.
    if target.limit is not None and target.limit < target.free - forecast.context:
        has = f"memory.limit_gib allows {target.limit / GIB:.1f} GiB"
        return f"proven not to fit: its tensors need {forecast.needed / GIB:.1f} GiB, {has}"
    return (
        f"proven not to fit: needs {forecast.total / GIB:.1f} GiB, "
        f"{name} has {target.free / GIB:.1f} GiB free"
    )


def _fixes(
    state: StudyState, trial: Trial, found: tuple[Found, ...], profile: Profile, now: float
) -> list[AnyEvent]:
    """The suggestion, and where it is to be applied the next attempt with the first fix that changes no result."""
    first = found[0].option
    suggested = FixSuggested(
        t=now,
        trial=trial.number,
        attempt=trial.next_attempt,
        changes=first.changes,
        text=first.text,
        fixes=tuple(each.option for each in found),
    )
    # What is proven goes before what a dry run says with reservations.
    same = sorted(
        (
            f.option
            for f in found
            if f.option.numerics == "equivalent" and CHOSEN.isdisjoint(f.option.changes)
        ),
        key=lambda option: not option.proven,
    )
    if checkpoint_for(trial, ()) is not None:
        # The cheapest of those that go on exactly where the checkpoint stands, if there is one.
        same.sort(key=lambda option: not OTHER_STATES.isdisjoint(option.changes))
    chosen = same[0] if same else None
    applies = profile.memory.on_oom == "apply" and _may_go_on(state, trial)
    if chosen is None or not applies:
        return [suggested]
    return [
        suggested,
        TrialQueued(
            t=now,
            trial=trial.number,
            attempt=trial.upcoming,
            overrides=chosen.changes,
            resume_from=checkpoint_for(trial, chosen.changes),
            reason=chosen.text,
            unchecked=True,
        ),
    ]


def _may_go_on(state: StudyState, trial: Trial) -> bool:
    return state.status in ("running", "paused") and not unwanted(trial)


def _given(trial: Trial, about: Advice, text: str, now: float) -> AdviceGiven:
    return AdviceGiven(
        t=now, trial=trial.number, attempt=trial.next_attempt, about=about, text=text
    )


def _needs(found: Found) -> str:
    sure = "proven" if found.option.proven else "an estimate"
    return f"needs {found.option.needed / GIB:.1f} GiB, {sure}"
