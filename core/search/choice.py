"""How a search is run where its profile leaves it open: which strategy, and whether trials are stopped early."""

import math
from dataclasses import dataclass
from typing import Literal

from core.profile import Profile
from core.search.halving import Stopping, first_until, profile_settings
from core.search.portfolio import points as known_points
from core.search.space import Space, space_of

Strategy = Literal["grid", "random", "bayesian", "portfolio"]

LEARNS_FROM = 10
"""With fewer trials a sampler that learns has hardly drawn anything after those that it learns from."""
WORTH_STOPPING = 4
"""With fewer trials none is stopped early: two finalists and one that is dropped save next to nothing."""
TELLING = 5
"""Before so many updates hardly anything shows how good a setting is."""
WIDE_GPUS = 8
WIDE_TURNS = 4
"""From so many GPUs, and so many trials for each, waiting for the slowest trial of a rung leaves GPUs idle."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a search is run."""

    strategy: Strategy
    stopping: Stopping
    trials: int
    """How many trials run at most."""
    why: str
    """The reason, in a line for people."""


def choose(profile: Profile, *, gpus: int | None) -> Choice:
    """Decide what `auto` means for the search of a profile; `gpus`: how many it may use, None on the CPU or unknown.
    Where each trial has several, what counts is how many trials they run at once.

    Strategy: a space with no more combinations than trials is tried whole (`grid`). With at least 10 trials, more than
    one parameter that is free and fewer GPUs than half the trials it pays to learn from earlier ones (`bayesian`). Else
    known-good settings are tried first and the rest is spread around them (`portfolio`), or all are drawn (`random`)
    where nothing is known or `search.portfolio` is off.
    Stopping: fewer than 4 trials all run to their end. With 8 GPUs or more and 4 trials or more for each, nobody waits
    for the slowest (`asha`); else the better third goes on from each rung (`halving`).
    """
    space = space_of(profile)
    if not space.axes:
        return Choice("grid", "none", 1, "nothing is searched: one full training")
    size = space.size()
    wanted = profile.search.trials
    trials = wanted if size is None else min(wanted, size)
    places = None if gpus is None else max(1, gpus // profile.resources.gpus_per_trial)
    strategy, why = _strategy(profile, space, size, places)
    stopping, because = _stopping(profile, trials, places)
    return Choice(strategy, stopping, trials, f"{strategy}: {why}; {because}")


def _strategy(
    profile: Profile, space: Space, size: int | None, places: int | None
) -> tuple[Strategy, str]:
    wanted = profile.search.trials
    free = sum(axis.free for axis in space.axes)
    asked = profile.search.strategy
    if asked != "auto":
        return asked, "as the profile says"
    if size is not None and size <= wanted:
        fit = "the one combination" if size == 1 else f"all {size} combinations"
        return "grid", f"{fit} can be tried with {wanted} trials"
    if wanted < LEARNS_FROM:
        why = f"{_trials(wanted)} are too few to learn from"
    elif free < 2:
        why = f"{_trials(wanted)} cover one parameter"
    elif places is not None and wanted <= 2 * places:
        why = f"{_gpus(profile, places)} run {_trials(wanted)} nearly at once, there is none to learn from"
    else:
        learns = "later ones learn from earlier ones"
        return "bayesian", f"{_trials(wanted)} over {free} parameters, {learns}"
    if profile.search.portfolio and next(known_points(space), None) is not None:
        return "portfolio", f"{why}, known-good settings come first"
    return "random", f"{why}, and nothing known is to come first"


def _stopping(profile: Profile, trials: int, places: int | None) -> tuple[Stopping, str]:
    asked = profile.search.stopping
    if asked != "auto":
        return asked, f"stopping {asked} as the profile says"
    if trials < WORTH_STOPPING:
        return "none", f"no early stopping among {_trials(trials)}"
    if places is not None and places >= WIDE_GPUS and trials >= WIDE_TURNS * places:
        return "asha", f"asha: {_gpus(profile, places)} need not wait for the slowest of {trials}"
    return "halving", _halving(profile, trials)


def _gpus(profile: Profile, places: int) -> str:
    each = profile.resources.gpus_per_trial
    return f"{places} GPUs" if each == 1 else f"{places} × {each} GPUs"


def _halving(profile: Profile, trials: int) -> str:
    search = profile.search
    first = first_until(profile_settings(profile))
    said = f"halving: {_trials(trials)} are compared at {first * 100:g} % of the probe"
    if profile.train.max_steps is None or search.budget_tokens is not None:
        return said
    probe = math.ceil(search.budget * profile.train.max_steps)
    rung = max(1, math.ceil(first * probe))
    early = "" if rung >= TELLING else ": hardly enough to tell them apart"
    return f"{said} (about {rung} of {probe} updates{early})"


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
