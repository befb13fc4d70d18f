"""Which settings a search tries: every combination of a grid, or combinations drawn at random."""

import random
from itertools import pairwise

from core.profile import Profile
from core.search.space import Axis, axes, combination, space_size
from core.values import Scalar

Settings = dict[str, Scalar]

MISSES = 200
"""So many draws in a row that were all drawn before end the drawing: hardly anything new is left."""


def plan(profile: Profile) -> list[Settings]:
    """The settings of every trial of a search, in the order in which they run; never the same ones twice.

    The same profile and seed give the same plan. A space without parameters gives one trial with the profile's own
    settings.
    """
    space = axes(profile)
    if not space:
        return [{}]
    if profile.search.strategy == "grid":
        return _grid(space, space_size(profile), profile.search.trials, profile.search.seed)
    return _random(space, space_size(profile), profile.search.trials, profile.search.seed)


def plan_notice(profile: Profile) -> str | None:
    """What a person should know about the plan, or None."""
    size = space_size(profile)
    if profile.search.strategy == "grid" and size is not None and size > profile.search.trials:
        return (
            f"the grid has {size} combinations, search.trials allows {profile.search.trials}: "
            "they are spread evenly over the grid"
        )
    return None


def _grid(space: list[Axis], size: int | None, trials: int, seed: int) -> list[Settings]:
    if size is None:
        raise ValueError("a grid needs lists of values, or ranges with a step")
    if size <= trials:
        return [combination(space, index) for index in range(size)]
    # One from each of `trials` equal stretches of the grid: spread evenly, yet in step with no parameter.
    numbers = random.Random(seed)
    ends = [size * i // trials for i in range(trials + 1)]
    return [combination(space, a + int(numbers.random() * (b - a))) for a, b in pairwise(ends)]


def _random(space: list[Axis], size: int | None, trials: int, seed: int) -> list[Settings]:
    numbers = random.Random(seed)
    wanted = trials if size is None else min(trials, size)
    drawn: dict[tuple[Scalar, ...], Settings] = {}
    misses = 0
    while len(drawn) < wanted and misses < MISSES:
        settings = {axis.name: axis.draw(numbers.random()) for axis in space}
        key = tuple(settings.values())
        misses = misses + 1 if key in drawn else 0
        drawn.setdefault(key, settings)
    if len(drawn) < wanted and size is not None:
        _add_rest(drawn, space, size, wanted, numbers)
    return list(drawn.values())


def _add_rest(
    drawn: dict[tuple[Scalar, ...], Settings],
    space: list[Axis],
    size: int,
    wanted: int,
    numbers: random.Random,
) -> None:
    """Fill up with what drawing did not find: the rest of a finite space from a random place on."""
    start = int(numbers.random() * size)
    for offset in range(size):
        if len(drawn) == wanted:
            return
        settings = combination(space, (start + offset) % size)
        drawn.setdefault(tuple(settings.values()), settings)
