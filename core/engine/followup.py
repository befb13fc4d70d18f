"""What follows when an attempt has ended: a memory fix, another attempt, a pause of the study. Pure."""

from collections.abc import Collection
from typing import cast

from core.engine.endings import Outcome
from core.memory.remedies.ladder import next_fix
from core.profile import Profile, ProfileError
from core.study.events import (
    AdviceAsked,
    AnyEvent,
    Ending,
    FixSuggested,
    StudyChanged,
    TrialEnded,
    TrialQueued,
    Warned,
)
from core.study.state import StudyState, Trial
from core.values import Scalar

PROVABLE = ("cuda", "cpu-allocator", "limit")
"""Kinds of out-of-memory endings that a dry run can show again. When the kernel killed the trial it was the machine's
main memory that was short, of which a dry run knows nothing."""

OTHER_STATES = frozenset({"optim", "offload_optimizer", "adapter_precision", "precision"})
"""Parameters with which what goes on from a checkpoint may not go on with its optimizer's states."""

SAME_FAILURES = 2
"""So many trials that fail alike before any has trained mean that the rest would too."""


def follow_up(
    state: StudyState, number: int, outcome: Outcome, profile: Profile, progress: bool, now: float
) -> list[AnyEvent]:
    """The records that come after the end of an attempt of trial `number`, which `state` knows already.

    `progress` tells whether any trial of the study has trained so far.
    """
    trial = state.trials[number]
    if outcome.disk_full:
        return _after_full_disk(state, trial, now)
    if trial.status == "oom":
        return _after_oom(state, trial, outcome, profile, now)
    if trial.status == "lost":
        return _after_loss(trial, now)
    if trial.status == "rung" and trial.asked == "pause" and trial.asked_by == "user":
        # It came to its rung before it heard of the wish; there it would go on by itself.
        return [as_it_stands(trial, "paused", now, trial.asked_reason)]
    if trial.status == "paused" and trial.asked_by == "study" and state.status == "running":
        # The study was resumed while the trial still saved its checkpoint.
        return [_again(trial, now, "the study was resumed")]
    if trial.status == "failed" and not outcome.trained and not progress:
        return _after_failure(state, trial, now)
    return []


def ladder_fix(
    trial: Trial, profile: Profile, now: float, *, trained: bool, apply: bool
) -> list[AnyEvent]:
    """The next rung of the ladder for a trial that ran out of memory, where no fix can be proven.

    `trained`: it came as far as its first step. `apply`: try again with it, where the profile says so.
    """
    if not trained:
        return [
            _warn(
                trial,
                now,
                "memory ran out before the first step: no smaller batch helps, the model itself is too large; "
                "a smaller model, quantization_bit = 4 or a higher memory limit would",
            )
        ]
    found = _rung(trial, profile)
    if found is None:
        return [no_remedy(trial, now)]
    return _suggest(trial, *found, profile, now, apply=apply)


def no_remedy(trial: Trial, now: float) -> Warned:
    """Nothing is left to try."""
    return _warn(
        trial,
        now,
        "no remedy is left that keeps the effective batch: a shorter cutoff_len, quantization_bit = 4 or a "
        "smaller model need less memory",
    )


def checkpoint_for(trial: Trial, changes: Collection[str]) -> str | None:
    """Where another attempt with these parameters changed by a fix goes on from; None from the beginning.

    A probe begins again so that its profile alone reproduces it; a long training keeps what it has.
    """
    # The weights of another method are no beginning for this one.
    return trial.resume_from if trial.kind == "full" and "finetuning_type" not in changes else None


def as_it_stands(trial: Trial, ending: Ending, now: float, reason: str) -> TrialEnded:
    """The record that ends a trial that has no process; what earlier attempts reached stays."""
    return TrialEnded(
        t=now,
        trial=trial.number,
        attempt=trial.next_attempt,
        ending=ending,
        reason=reason,
        step=trial.step,
        total_steps=trial.total_steps,
        loss=trial.loss,
        eval_loss=trial.eval_loss,
        value=trial.value,
        noise=trial.noise,
        checkpoint=trial.resume_from,
    )


def unwanted(trial: Trial) -> bool:
    """Whether the trial was to end anyway (a person or the guard asked for it), so that nothing starts it again."""
    return trial.asked_by in ("user", "guard")


def _after_oom(
    state: StudyState, trial: Trial, outcome: Outcome, profile: Profile, now: float
) -> list[AnyEvent]:
    apply = not unwanted(trial)
    first = sum(a.ending == "oom" for a in trial.attempts) < 2
    if outcome.neighbour and first and apply and profile.memory.on_oom == "apply":
        reason = "tried once more as it is: the memory that was missing was held by another program"
        return [_again(trial, now, reason)]
    if outcome.evaluating:
        smaller = _smaller_evaluation(trial, profile)
        if smaller is not None:
            return _suggest(trial, *smaller, profile, now, apply=apply)
    if (
        profile.memory.on_oom == "skip"
        or outcome.memory not in PROVABLE
        or state.status == "stopped"
    ):
        return ladder_fix(trial, profile, now, trained=outcome.trained, apply=apply)
    return [AdviceAsked(t=now, trial=trial.number, attempt=trial.next_attempt, about="fix")]


def _smaller_evaluation(trial: Trial, profile: Profile) -> tuple[dict[str, Scalar], str] | None:
    try:
        batch = profile.with_changes(trial.changes).train.per_device_eval_batch_size
    except ProfileError:
        return None
    if batch is None or batch < 2:
        return None
    text = f"per-device eval batch {batch} → {batch // 2}, tried without proof; training stays as it is"
    return {"per_device_eval_batch_size": batch // 2}, text


def _rung(trial: Trial, profile: Profile) -> tuple[dict[str, Scalar], str] | None:
    try:
        train = profile.with_changes(trial.changes).train
    except ProfileError:
        return None
    fix = next_fix(
        per_device_train_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        gradient_checkpointing=train.gradient_checkpointing,
    )
    return None if fix is None else (cast(dict[str, Scalar], fix.changes), fix.text)


def _suggest(
    trial: Trial,
    changes: dict[str, Scalar],
    text: str,
    profile: Profile,
    now: float,
    *,
    apply: bool,
) -> list[AnyEvent]:
    if profile.memory.on_oom == "skip":
        return []
    number = trial.number
    fix = FixSuggested(t=now, trial=number, attempt=trial.next_attempt, changes=changes, text=text)
    if profile.memory.on_oom == "ask" or not apply:
        return [fix]
    again = TrialQueued(
        t=now,
        trial=number,
        attempt=trial.upcoming,
        overrides=changes,
        resume_from=checkpoint_for(trial, changes),
        reason=text,
        # Whether it fits could not be told for the last attempt, and cannot for this one.
        unchecked=True,
    )
    return [fix, again]


def _after_loss(trial: Trial, now: float) -> list[AnyEvent]:
    losses = sum(a.ending == "lost" for a in trial.attempts)
    if losses > 1 or unwanted(trial):
        return []
    return [_again(trial, now, f"tried once more: {trial.reason}")]


def _after_full_disk(state: StudyState, trial: Trial, now: float) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    if not unwanted(trial):
        again = "the disk was full: it runs again when the study is resumed"
        events.append(_again(trial, now, again))
    if state.status == "running":
        reason = f"the disk is full (trial {trial.number} could not write): make room, then resume the study"
        events.append(StudyChanged(t=now, status="paused", reason=reason))
    return events


def _after_failure(state: StudyState, trial: Trial, now: float) -> list[AnyEvent]:
    alike = [t for t in state.trials.values() if t.status == "failed" and t.reason == trial.reason]
    more = state.queued() or state.to_come()
    if len(alike) < SAME_FAILURES or not more or state.status != "running":
        return []
    numbers = ", ".join(str(t.number) for t in alike)
    return [
        StudyChanged(
            t=now,
            status="paused",
            reason=f"trials {numbers} failed alike before their first step, so the rest would too: {trial.reason}",
        )
    ]


def _again(trial: Trial, now: float, reason: str) -> TrialQueued:
    return TrialQueued(
        t=now,
        trial=trial.number,
        attempt=trial.upcoming,
        resume_from=trial.resume_from,
        reason=reason,
    )


def _warn(trial: Trial, now: float, text: str) -> Warned:
    return Warned(t=now, trial=trial.number, text=text)
