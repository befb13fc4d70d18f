"""A study as a step of a recipe, in the words that the dashboard has for it."""

from dataclasses import dataclass, replace
from pathlib import Path

from core.study.recipes import RecipeReader, is_recipe, recipe_of, unbegun_step
from core.study.store import StudyError, StudyFolder, is_study, now
from tui.paths import shell_path

LATE = 60.0
"""Seconds after which a handover that should have begun by itself will not: it begins within a few."""


@dataclass(frozen=True, slots=True)
class RecipePlace:
    """Which step of which recipe a study is."""

    recipe: str
    step: str
    number: int
    """From 1."""
    count: int
    after: str = ""
    """What comes of the recipe now that this step is over; empty while it is not."""
    waits: bool = False
    """Whether somebody has to do something before it goes on."""
    done: bool = False
    """Whether all steps of the recipe are."""

    @property
    def title(self) -> str:
        """The study's name, as lists and headers show it: what tells the steps of a recipe apart is not cut off."""
        return f"{self.number}/{self.count} {self.step} of {self.recipe}"

    @property
    def short(self) -> str:
        return f"step {self.number} of {self.count}"


def place_in_recipe(study: Path) -> RecipePlace | None:
    """Which step of a recipe the study in a folder is; None of an ordinary study."""
    recipe = recipe_of(study)
    if recipe is None:
        return None
    steps = RecipeReader(recipe).state.steps
    number = next(n for n, s in enumerate(steps, 1) if s.planned.folder == study.name)
    return RecipePlace(recipe.name, steps[number - 1].planned.name, number, len(steps))


def after_step(place: RecipePlace, study: Path) -> RecipePlace:
    """The same place with what comes of the recipe now that the step in the folder `study` is over."""
    # Imported here: who looks at an ordinary study should not pay for the catalogue.
    from core.engine.recipes.handover import carrier_alive, stands
    from core.engine.recipes.plan import Rest, Serve, trouble_of

    recipe = study.resolve().parent
    try:
        reader = RecipeReader(recipe)
        action = stands(reader)
    except StudyError as error:
        return replace(place, after=str(error), waits=True)
    if isinstance(action, Rest):
        if action.kind == "done":
            return replace(place, after=f"the recipe is done: {_result(reader)}", done=True)
        if action.kind == "running":
            return replace(place, after=f"the recipe goes on: {action.text}. 1 lists the studies")
        return replace(place, after=action.text, waits=True)
    prepared = replace(place, after="the recipe goes on: the next step is being prepared")
    if carrier_alive(recipe):
        return prepared
    if trouble := trouble_of(reader.state, action):
        return replace(place, after=f"{trouble}: {_again(recipe)}", waits=True)
    if isinstance(action, Serve):
        name = reader.state.steps[action.step - 1].planned.name
        again = f"`tunedeck attach {shell_path(recipe)}` starts it again"
        gone = f"the engine of step {action.step} ({name}) is gone: {again}"
        return replace(place, after=gone, waits=True)
    if _quiet(reader, study) > LATE:
        nobody = f"nobody hands over to the next step: {_again(recipe)}"
        return replace(place, after=nobody, waits=True)
    return prepared


def _quiet(reader: RecipeReader, study: Path) -> float:
    """Seconds since anything happened in a recipe or in the study of its step."""
    files = (reader.folder.journal, StudyFolder(study).journal)
    return now() - max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


@dataclass(frozen=True, slots=True)
class Unbegun:
    """A recipe of which a step should have begun and did not."""

    name: str
    why: str
    """What is wrong, and what to do, as a sentence without its stop."""
    readable: bool = True
    updated: float = 0.0
    """When something happened last, seconds since the epoch."""


def unbegun(folder: Path) -> Unbegun | None:
    """What is to be known of a recipe that has no study for the step that it is at; None of one that has, and of what
    is no recipe."""
    if is_study(folder) or not is_recipe(folder):
        return None
    try:
        reader = RecipeReader(folder)
    except StudyError as error:
        return Unbegun(folder.name, str(error), readable=False)
    number = unbegun_step(reader)
    if number is None:
        return None
    from core.engine.recipes.handover import carrier_alive

    steps = reader.state.steps
    step, held = steps[number - 1], reader.folder.held()
    place = RecipePlace(folder.name, step.planned.name, number, len(steps))
    where = f"{place.short} ({place.step})"
    if carrier_alive(folder):
        why = f"{where} begins just now"
    elif held:
        why = f"{where} has not begun: the recipe is {held}; {_again(folder)}"
    elif step.trouble:
        # One line: a profile that does not fit is told in several.
        trouble = " ".join(step.trouble.split()).rstrip(".")
        why = f"{where} has not begun: {trouble}; {_again(folder)}"
    else:
        why = f"{where} has not begun: what should have begun it is gone; {_again(folder)}"
    return Unbegun(place.title, why, updated=reader.state.updated)


def begin(folder: Path) -> Path:
    """Take a recipe up that has no study for the step that it is at; the folder of that step's study.

    Raises:
        StudyError: the step does not begin; the message says why, and what to do.
        EngineError: what begins it cannot be started.
    """
    from core.engine.recipes.handover import take_up

    before = unbegun_step(RecipeReader(folder))
    take_up(folder)
    reader = RecipeReader(folder)
    if (waits := unbegun(folder)) is not None:
        raise StudyError(f"{waits.name}: {waits.why}")
    number = before or reader.state.current
    return reader.folder.study(reader.state.steps[number - 1].planned).path


def _again(recipe: Path) -> str:
    return f"`tunedeck resume {shell_path(recipe)}` tries it again"


def carry_on(study: Path) -> None:
    """Take the recipe up of which a study is a step, where it should go on and nobody sees to it.

    Raises:
        StudyError: the recipe or a study of it cannot be read.
        OSError: what carries it on cannot be started.
    """
    recipe = recipe_of(study)
    if recipe is None:
        return
    from core.engine.recipes.handover import carrier_alive, stands
    from core.engine.recipes.plan import Rest
    from core.engine.recipes.step import hand_over

    if not isinstance(stands(RecipeReader(recipe)), Rest) and not carrier_alive(recipe):
        hand_over(study)


def _result(reader: RecipeReader) -> str:
    last = reader.state.steps[-1]
    study = reader.folder.study(last.planned)
    if last.planned.makes_reward_model:
        return f"the reward model is in {study.trial(last.exported or 1).output}"
    return f"the model is in {reader.folder.model(last.planned)}"
