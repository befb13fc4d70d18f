"""A study as a step of a recipe, in the words that the dashboard has for it."""

from dataclasses import dataclass, replace
from pathlib import Path

from core.study.recipes import RecipeReader, recipe_of
from core.study.store import StudyError
from tui.paths import shell_path


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
    from core.engine.recipes.plan import Rest, trouble_of

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
    trouble = trouble_of(reader.state, action)
    if trouble and not carrier_alive(recipe):
        again = f"`tunedeck resume {shell_path(recipe)}` tries it again"
        return replace(place, after=f"{trouble}: {again}", waits=True)
    return replace(place, after="the recipe goes on: the next step is being prepared")


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
