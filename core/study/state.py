"""A study's state: a fold over its journal. The daemon, the dashboard and the command line share this reducer.

Trials are immutable: one that did not change between two looks is the same object, so a view need only repaint
those that are not.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from core.study.events import (
    Advice,
    AdviceAsked,
    AdviceGiven,
    AnyEvent,
    Asked,
    Asker,
    DaemonStarted,
    Ending,
    FixOption,
    FixSuggested,
    RungDecided,
    SearchPlanned,
    Source,
    StudyChanged,
    StudyCreated,
    StudyStatus,
    TrialAdded,
    TrialAsked,
    TrialEnded,
    TrialKind,
    TrialQueued,
    TrialStalled,
    TrialStarted,
    TrialStarting,
    Warned,
)
from core.study.files import ProcessRecord
from core.values import Scalar

TrialStatus = Literal[
    "queued", "starting", "running", "pausing", "stopping",
    "paused", "rung", "completed", "pruned", "diverged", "oom", "failed", "stopped", "lost", "skipped",
]  # fmt: skip
"""`rung`: it waits at a rung for a decision. `pruned`: it was dropped at a rung."""

LIVE: frozenset[TrialStatus] = frozenset({"starting", "running", "pausing", "stopping"})
"""A process may exist for the trial."""
ENDED: frozenset[TrialStatus] = frozenset(
    {"completed", "pruned", "diverged", "oom", "failed", "stopped", "lost", "skipped"}
)
"""The trial has come to its end, unless a person asks for another attempt."""

_ENDING: dict[Asked, TrialStatus] = {"pause": "pausing", "stop": "stopping"}

MOST_WARNINGS = 200


class Attempt(msgspec.Struct, frozen=True):
    """One start of a trial's worker."""

    number: int
    device: Literal["cuda", "cpu"] = "cpu"
    gpus: tuple[str, ...] = ()
    started: float | None = None
    """Seconds since the epoch."""
    ended: float | None = None
    shim: ProcessRecord | None = None
    ending: Ending | None = None
    reason: str = ""
    overrides: dict[str, Scalar] = {}


class RungResult(msgspec.Struct, frozen=True):
    """What a trial had come to at a rung."""

    at: float
    """The share of the probe."""
    step: int
    value: float | None
    """Of what the study ranks by; None where it was not measured or is not finite."""


class Suggestion(msgspec.Struct, frozen=True):
    """A memory fix that waits for a decision."""

    changes: dict[str, Scalar]
    text: str
    fixes: tuple[FixOption, ...] = ()
    """What a person can choose from, the first one being `changes`; empty for a rung of the ladder."""


class Trial(msgspec.Struct, frozen=True):
    """A trial as the journal tells it; what changes by the second is in its metrics file."""

    number: int
    settings: dict[str, Scalar]
    kind: TrialKind = "probe"
    source: Source = "search"
    parent: int | None = None
    status: TrialStatus = "queued"
    reason: str = ""
    """Why it is in this state, in words."""
    attempts: tuple[Attempt, ...] = ()
    """Attempts that were started, oldest first."""
    next_attempt: int = 1
    """The number of the attempt that is queued or, when nothing is queued, of the last one."""
    overrides: dict[str, Scalar] = {}
    resume_from: str | None = None
    asked: Asked | None = None
    asked_by: Asker | None = None
    asked_reason: str = ""
    suggestion: Suggestion | None = None
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    value: float | None = None
    """The last value of what the study ranks by."""
    noise: float | None = None
    """How far off that value may be by chance, as its curve tells; None where that is not known."""
    tokens: int | None = None
    """Tokens trained on so far."""
    sampled: dict[str, Scalar] = {}
    """The point of the search space that it stands for."""
    until: float = 1.0
    """The share of the probe that it is sent to."""
    continues: str | None = None
    """The checkpoint of its probe that it continues from, relative to the study's folder."""
    rungs: tuple[RungResult, ...] = ()
    """The rungs that it came to, in order."""
    stalled: str = ""
    """Since when it has logged nothing, in words; empty while it logs."""
    peak_memory: int | None = None
    forecast: int | None = None
    """What the last attempt on a GPU was forecast to allocate at most, bytes."""
    measured: int | None = None
    """What that attempt allocated at most, bytes."""
    proven: bool = False
    """Whether that forecast came from a dry run."""
    advising: Advice | None = None
    """What its memory is being looked into for just now."""
    advice: str = ""
    """What the last look into its memory said."""
    checked: bool = False
    """Whether the queued attempt starts without another look at whether it fits."""
    fitted: str = ""
    """How its batch was chosen by its memory, in words; empty where it was not."""
    seconds: float = 0.0
    """Time that its attempts ran, all together."""
    usage_error: bool = False
    added: float = 0.0
    fixes: tuple[str, ...] = ()
    """The memory fixes applied so far, in words."""

    @property
    def changes(self) -> dict[str, Scalar]:
        """Everything in which the trial differs from the study's profile."""
        return {**self.settings, **self.overrides}

    @property
    def attempt(self) -> Attempt | None:
        """The latest attempt that was started."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def at_rung(self) -> bool:
        """Whether it has come to the rung that it was sent to, so that nothing is left to run before a decision."""
        return self.until < 1 and bool(self.rungs) and self.rungs[-1].at >= self.until

    @property
    def waits(self) -> str:
        """Where it waits at its rung, in words."""
        return f"waits at {100 * self.until:.3g} % of its probe"

    @property
    def upcoming(self) -> int:
        """The number that another attempt gets: that of the planned one, where it never started."""
        started = any(a.number == self.next_attempt for a in self.attempts)
        return self.next_attempt + 1 if started else self.next_attempt

    @property
    def options(self) -> int:
        """How many fixes a person can choose from."""
        return max(1, len(self.suggestion.fixes)) if self.suggestion is not None else 0


class Notice(msgspec.Struct, frozen=True):
    """Something that a person should know, with the trial that it is about."""

    t: float
    text: str
    trial: int | None = None


@dataclass
class StudyState:
    """A study as its journal tells it. Only `apply` changes it."""

    name: str = ""
    tunedeck: str = ""
    created: float = 0.0
    rank_by: str = "loss"
    direction: Literal["min", "max"] = "min"
    planned: int = 0
    strategy: Literal["grid", "random", "bayesian", "portfolio"] = "random"
    stopping: Literal["none", "halving", "asha"] = "none"
    choice: str = ""
    """Why the search is run so."""
    decisions: list[RungDecided] = field(default_factory=list)
    """What was decided at the rungs, oldest first."""
    status: StudyStatus = "running"
    reason: str = ""
    search_on: bool = True
    """Whether the search goes on while the study runs; a person who stops the study stops that too."""
    daemon: ProcessRecord | None = None
    trials: dict[int, Trial] = field(default_factory=dict)
    warnings: list[Notice] = field(default_factory=list)
    updated: float = 0.0
    """When the last record was written, seconds since the epoch."""
    version: int = 0
    """How many records were applied: grows with every change."""

    @property
    def exists(self) -> bool:
        """Whether the journal has said anything yet."""
        return self.created > 0

    def live(self) -> list[Trial]:
        """Trials that may have a process."""
        return [t for t in self.trials.values() if t.live]

    def queued(self) -> list[Trial]:
        """Trials that wait to start, in the order in which they will."""
        return [t for t in self.trials.values() if t.status == "queued"]

    def waiting_at_rung(self) -> list[Trial]:
        """Trials that wait at a rung for a decision."""
        return [t for t in self.trials.values() if t.status == "rung"]

    def searched(self) -> list[Trial]:
        """The trials that the search itself wanted: no confirmations, and nothing that a person added."""
        own = ("search", "portfolio")
        return [t for t in self.trials.values() if t.kind == "probe" and t.source in own]

    def left_to_propose(self) -> int:
        """How many planned trials have no settings yet."""
        return max(0, self.planned - len(self.searched())) if self.strategy == "bayesian" else 0

    def to_come(self) -> int:
        """How many trials the search will still propose by itself."""
        return self.left_to_propose() if self.search_on else 0

    def unfinished(self) -> bool:
        """Whether there is work that goes on by itself."""
        if self.status != "running":
            return False
        busy = ("queued", "rung")
        return self.to_come() > 0 or any(
            t.live or t.status in busy or t.advising for t in self.trials.values()
        )

    def next_number(self) -> int:
        return max(self.trials, default=0) + 1


def apply(state: StudyState, event: AnyEvent) -> None:
    """Apply one record to `state`. A record about a trial that does not exist changes nothing but the counters."""
    state.updated = event.t
    state.version += 1
    match event:
        case StudyCreated():
            state.name, state.tunedeck, state.created = event.name, event.tunedeck, event.t
            state.rank_by, state.direction = event.rank_by, event.direction
            state.planned, state.choice = event.planned, event.choice
            state.strategy, state.stopping = event.strategy, event.stopping
        case StudyChanged():
            state.status, state.reason = event.status, event.reason
            state.search_on = state.search_on if event.search is None else event.search
        case SearchPlanned():
            state.planned = event.planned
        case DaemonStarted():
            state.daemon = event.process
        case Warned():
            state.warnings.append(Notice(event.t, event.text, event.trial))
            del state.warnings[:-MOST_WARNINGS]
        case TrialAdded():
            state.trials[event.trial] = Trial(
                number=event.trial,
                settings=event.settings,
                kind=event.kind,
                source=event.source,
                parent=event.parent,
                sampled=event.sampled,
                until=event.until,
                continues=event.continues,
                added=event.t,
            )
        case RungDecided():
            _decide(state, event)
        case _:
            trial = state.trials.get(event.trial)
            if trial is not None:
                state.trials[event.trial] = _apply_to_trial(trial, event)


def _decide(state: StudyState, event: RungDecided) -> None:
    state.decisions.append(event)
    change = msgspec.structs.replace
    for number, until in event.kept.items():
        trial = state.trials.get(number)
        if trial is not None and trial.status in ("rung", "pruned"):
            state.trials[number] = change(
                trial,
                status="queued",
                reason=event.text,
                until=until,
                next_attempt=trial.upcoming,
                asked=None,
                asked_by=None,
                asked_reason="",
            )
    for number, reason in event.dropped.items():
        trial = state.trials.get(number)
        if trial is not None and trial.status == "rung":
            state.trials[number] = change(trial, status="pruned", reason=reason)


def _apply_to_trial(
    trial: Trial,
    event: TrialQueued
    | AdviceAsked
    | AdviceGiven
    | TrialStarting
    | TrialStarted
    | TrialAsked
    | TrialEnded
    | FixSuggested
    | TrialStalled,
) -> Trial:
    change = msgspec.structs.replace
    match event:
        case AdviceAsked():
            return change(trial, advising=event.about)
        case AdviceGiven():
            return _advise(trial, event)
        case TrialQueued():
            applied = trial.fixes + ((event.reason,) if event.overrides else ())
            return change(
                trial,
                status="queued",
                reason=event.reason,
                next_attempt=event.attempt,
                overrides={**trial.overrides, **event.overrides},
                resume_from=event.resume_from,
                until=trial.until if event.until is None else event.until,
                asked=None,
                asked_by=None,
                asked_reason="",
                suggestion=None,
                advising=None,
                checked=event.unchecked,
                fixes=applied,
                usage_error=False,
            )
        case TrialStarting():
            attempt = Attempt(
                event.attempt, event.device, event.gpus, event.t, overrides=trial.overrides
            )
            others = tuple(a for a in trial.attempts if a.number != event.attempt)
            return change(
                trial,
                status="starting",
                reason="",
                advising=None,
                attempts=(*others, attempt),
                next_attempt=event.attempt,
            )
        case TrialStarted():
            # One that was asked to end before its start was known goes on ending.
            status = "running" if trial.asked is None else _ENDING[trial.asked]
            return change(
                trial, status=status, attempts=_last(trial, event.attempt, shim=event.shim)
            )
        case TrialAsked():
            return change(
                trial,
                status=_ENDING[event.ask] if trial.live else trial.status,
                asked=event.ask,
                asked_by=event.by,
                asked_reason=event.reason,
            )
        case TrialEnded():
            return _end(trial, event)
        case TrialStalled():
            return change(trial, stalled=event.text)
        case FixSuggested():
            fix = Suggestion(event.changes, event.text, event.fixes)
            return change(trial, suggestion=fix, advising=None)


def _advise(trial: Trial, event: AdviceGiven) -> Trial:
    if trial.next_attempt != event.attempt:
        return msgspec.structs.replace(trial, advising=None)
    return msgspec.structs.replace(
        trial,
        advising=None,
        advice=event.text,
        overrides={**trial.overrides, **event.overrides},
        fitted=event.text if event.about == "fit" else trial.fitted,
    )


def _end(trial: Trial, event: TrialEnded) -> Trial:
    forecast = event.forecast is not None
    rungs = trial.rungs
    if event.ending == "rung":
        # One that began again comes to the same rungs again.
        before = tuple(r for r in rungs if r.at < trial.until)
        rungs = (*before, RungResult(trial.until, event.step, event.value))
    return msgspec.structs.replace(
        trial,
        status=event.ending,
        reason=event.reason,
        rungs=rungs,
        stalled="",
        value=event.value,
        noise=event.noise,
        tokens=event.tokens if event.tokens is not None else trial.tokens,
        advising=None,
        checked=False,
        forecast=event.forecast if forecast else trial.forecast,
        measured=event.peak_memory if forecast else trial.measured,
        proven=event.proven if forecast else trial.proven,
        attempts=_last(
            trial, event.attempt, ended=event.t, ending=event.ending, reason=event.reason
        ),
        resume_from=event.checkpoint,
        step=event.step,
        total_steps=event.total_steps or trial.total_steps,
        loss=event.loss,
        eval_loss=event.eval_loss,
        peak_memory=max_or_none(trial.peak_memory, event.peak_memory),
        seconds=trial.seconds + event.seconds,
        usage_error=event.usage_error,
    )


def _last(trial: Trial, number: int, **changes: object) -> tuple[Attempt, ...]:
    """The attempts with `changes` made to the one of this number."""
    return tuple(
        msgspec.structs.replace(a, **changes) if a.number == number else a for a in trial.attempts
    )


def max_or_none(*values: int | None) -> int | None:
    """The largest of the values that are not None; None where there is none."""
    present = [v for v in values if v is not None]
    return max(present) if present else None


def finite(value: float | None) -> float | None:
    """`value` where it is a finite number, else None."""
    return value if value is not None and math.isfinite(value) else None
