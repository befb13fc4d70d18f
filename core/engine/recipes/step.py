"""What the daemon of a study does because the study is a step of a recipe; nothing for other studies."""

import subprocess
import sys
from pathlib import Path

from core.engine.launch import PROGRAM
from core.engine.messages import Request
from core.engine.requests import answer
from core.engine.standing import best_trial
from core.profile import Profile
from core.study.events import AnyEvent
from core.study.recipes import recipe_of
from core.study.state import StudyState


def full_training(state: StudyState, profile: Profile, now: float) -> tuple[AnyEvent, ...]:
    """The records that let a step's search end in the full training of its winner; none where there is one already, or
    no winner. Pure."""
    if not profile.search.space or any(t.kind == "full" for t in state.trials.values()):
        return ()
    best = best_trial(state)
    if best is None:
        return ()
    return answer(state, profile, Request("promote", best.number), now).events


def carrier_command(recipe: Path) -> list[str]:
    """The command that carries a recipe on (see `core.engine.recipes.handover`)."""
    return [sys.executable, "-P", str(PROGRAM), "_recipe", str(recipe.resolve())]


def hand_over(study: Path) -> None:
    """Where the study is a step of a recipe, start what carries the recipe on, and do not wait for it.

    Raises:
        OSError: it cannot be started.
    """
    recipe = recipe_of(study)
    if recipe is None:
        return
    subprocess.Popen(
        carrier_command(recipe),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
