"""What happens next in a recipe: decided from its journal and from how its steps' studies stand. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.engine.outcome import summary
from core.study.recipes import RecipeState, StepRecord
from core.study.state import StudyState, Trial

RestKind = Literal["running", "paused", "stopped", "failed", "done"]


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as its study's folder shows it."""

    number: int
    """From 1."""
    record: StepRecord
    folder: str
    """Where its study lies, as a person may write it in a command."""
    state: StudyState | None = None
    """None while its study has no journal."""
    engine: bool = False
    """Whether a daemon serves the study."""
    model: bool = False
    """Whether its result lies there as a model of its own."""

    @property
    def name(self) -> str:
        return self.record.planned.name


@dataclass(frozen=True, slots=True)
class Begin:
    """Make the study of a step and start its daemon; what of it is there already stays."""

    step: int


@dataclass(frozen=True, slots=True)
class Serve:
    """Start the daemon of a step's study, which died with work left."""

    step: int


@dataclass(frozen=True, slots=True)
class Export:
    """Make a trial's weights a model of their own."""

    step: int
    trial: int


@dataclass(frozen=True, slots=True)
class Note:
    """A step's result is there; only its record is missing."""

    step: int
    trial: int


@dataclass(frozen=True, slots=True)
class Finish:
    """All steps are done; the models of those in `remove` are needed no more, also if their removal was begun."""

    remove: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done now."""

    kind: RestKind
    step: int
    text: str
    """Why, as a sentence without its stop; with what to do where a person has to."""


Action = Begin | Serve | Export | Note | Finish | Rest


def next_action(state: RecipeState, views: Sequence[StepView], held: str = "") -> Action:
    """Decide; `held` says why a person wants that no further step starts, and is empty where none does."""
    if state.done:
        return Rest("done", len(views), "all steps are done")
    for view in views:
        begun_later = any(later.state is not None for later in views[view.number :])
        if _has_result(view) or (begun_later and view.record.exported is not None):
            continue
        return _next_of(view, len(views), held)
    return Finish(_not_needed(state))


def due_step(state: RecipeState, action: Action) -> int:
    """The number of the step that `action` is about."""
    return state.current if isinstance(action, Finish) else action.step


def trouble_of(state: RecipeState, action: Action) -> str:
    """Why what is due failed when it was tried last; empty where it did not, or nothing is due any more."""
    return "" if isinstance(action, Rest) else state.steps[due_step(state, action) - 1].trouble


def result_trial(state: StudyState) -> Trial | None:
    """The full training whose weights are a step's result: the last one that completed."""
    full = [t for t in state.trials.values() if t.kind == "full" and t.status == "completed"]
    return full[-1] if full else None


def place(number: int, count: int, name: str) -> str:
    """A step in words, as "step 2 of 4 (domain)"."""
    return f"step {number} of {count} ({name})"


def _has_result(view: StepView) -> bool:
    if view.record.exported is None:
        return False
    return view.record.planned.makes_reward_model or view.model


def _next_of(view: StepView, count: int, held: str) -> Action:
    where, study = place(view.number, count, view.name), view.state
    if study is None:
        if held:
            return Rest(_kind(held), view.number, f"{held} before {where}")
        return Begin(view.number)
    if study.status == "running":
        return Rest("running", view.number, f"{where} runs") if view.engine else Serve(view.number)
    result = result_trial(study)
    if study.status == "finished" and result is not None:
        there = view.model and view.record.exporting == result.number
        if there or view.record.planned.makes_reward_model:
            return Note(view.number, result.number)
        if held:
            return Rest(_kind(held), view.number, f"{held} when {where} was trained")
        return Export(view.number, result.number)
    if study.status == "finished":
        return Rest("failed", view.number, _failure(view, study, where))
    why = f" ({study.reason})" if study.reason else ""
    return Rest(_kind(study.status), view.number, f"{where} is {study.status}{why}")


def _kind(word: str) -> Literal["paused", "stopped"]:
    return "stopped" if word == "stopped" else "paused"


def _failure(view: StepView, study: StudyState, where: str) -> str:
    """Why a step has no result, and what to do."""
    full = [t for t in study.trials.values() if t.kind == "full"]
    then = "after which the recipe goes on by itself"
    if full:
        trial = full[-1]
        why = f": {trial.reason}" if trial.reason else ""
        said = f"its full training, trial {trial.number}, {_ended(trial)}{why}"
        return f"{where} has no result: {said}. Try it again with `tunedeck retry {view.folder} {trial.number}`, {then}"
    cure = f"`tunedeck trials {view.folder}` tells what each one said; `tunedeck retry {view.folder} N` tries one again"
    return f"{where} has no result: {summary(study)}. {cure}, {then}"


def _ended(trial: Trial) -> str:
    words = {"oom": "ran out of memory", "stopped": "was stopped", "lost": "was lost"}
    return words.get(trial.status, trial.status)


def _not_needed(state: RecipeState) -> tuple[int, ...]:
    """The steps whose models nothing needs once all are done. A reward model may be an adapter of the one that its step
    started from, so that this one stays where the reward model is what the recipe makes."""
    if state.keep_models or not state.steps:
        return ()
    last = state.steps[-1].planned
    kept = {last.name, last.source} if last.makes_reward_model else {last.name}
    return tuple(
        number
        for number, step in enumerate(state.steps, 1)
        if step.planned.name not in kept and not step.planned.makes_reward_model
    )
