"""Which settings a search tries: the plan of a grid, of random draws, of known-good settings and what lies around."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Literal

from core.problems import Problem
from core.profile import Profile, ProfileError
from core.search.choice import choose
from core.search.constraints import Settings, derive
from core.search.portfolio import points as known_points
from core.search.space import Key, Space, combination, key_of, space_of
from core.search.spread import MOST_LISTED, Point, draws, remainder, spread
from core.space_checks import without_effect

LOOKED_AT = 200
"""So many combinations of a large space are looked at for some that cannot run."""

SEEDED = 3
"""So many trials of a search that draws come from the known-good list first."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A trial that is to run."""

    settings: Settings
    """What differs from the profile, with what follows from the point."""
    sampled: Point
    """The point of the space; parameters without effect are left out."""
    source: Literal["search", "portfolio"]


def plan(profile: Profile) -> list[Planned]:
    """The trials of a search in the order in which they run, as far as they are known before any has run.

    Never the same settings twice. The same profile and seed give the same plan. A space without parameters gives one
    trial with the profile's own settings. Of `bayesian` it is what comes before the sampler has anything to learn
    from; the rest is proposed later, one by one (`core.search.proposals`).

    Raises:
        ProfileError: no combination that can run was found, in a space too large to tell when the profile was checked.
    """
    space = space_of(profile)
    if not space.axes:
        return [Planned({}, {}, "search")]
    points, known, trials = _points(space)
    planned = _planned(profile, points, known, trials)
    if not planned:
        raise ProfileError(
            profile.profile.name, [Problem("search.space", "no combination that can run was found")]
        )
    return planned


def _points(space: Space) -> tuple[Iterable[Point], list[Point], int]:
    """The points to try in order, which of them are known to be good, and how many are wanted."""
    search = space.profile.search
    choice = choose(space.profile, gpus=None)
    known = list(known_points(space)) if search.portfolio or choice.strategy == "portfolio" else []
    if choice.strategy == "grid":
        grid = _grid(space, space.size(), choice.trials, search.seed)
        listed = {key_of(point) for point in grid}
        first = [point for point in known if key_of(point) in listed]
        return [*first, *grid], first, choice.trials
    rest = remainder(space, search.seed)
    if choice.strategy == "portfolio":
        around = spread(space, search.seed, known, _middle(known))
        return chain(known, around, rest), known, choice.trials
    known = known[: min(SEEDED, choice.trials // 2)]
    if choice.strategy == "random":
        return chain(known, draws(space, search.seed), rest), known, choice.trials
    begin = startup(choice.trials)
    return chain(known, spread(space, search.seed, known), rest), known, begin


def _middle(known: list[Point]) -> Point | None:
    """Of the known-good settings those with the middle learning rate; None where nothing is known."""
    rated = [p for p in known if isinstance(p.get("learning_rate"), float)]
    ordered = sorted(rated, key=lambda p: float(p["learning_rate"])) or known
    return ordered[len(ordered) // 2] if ordered else None


def startup(trials: int) -> int:
    """How many trials run before a sampler proposes: a third of all, at least 4, at most 10."""
    return min(trials, max(4, min(10, math.ceil(trials / 3))))


def plan_notices(profile: Profile) -> list[str]:
    """What a person should know about the plan, each in a sentence."""
    space = space_of(profile)
    if not space.axes:
        return []
    told = [f"{reason}: it is not searched" for reason in without_effect(profile.tables())]
    told += _unlike(space)
    left_out = _left_out(space)
    if left_out:
        told.append(left_out)
    size, wanted = space.size(), profile.search.trials
    if size is not None and size > wanted and choose(profile, gpus=None).strategy == "grid":
        told.append(
            f"the grid has {size} combinations, search.trials allows {wanted}: "
            "they are spread evenly over the grid"
        )
    return told


def fewer_notice(profile: Profile) -> str | None:
    """That the space holds fewer combinations than the search asks for, where it does: nothing is wrong with that."""
    space = space_of(profile)
    size, wanted = space.size(), profile.search.trials
    if not space.axes or size is None or size >= wanted:
        return None
    what = "grid" if choose(profile, gpus=None).strategy == "grid" else "space"
    return (
        f"search.trials asks for {wanted}, the {what} has {size} "
        f"combination{'' if size == 1 else 's'}: the search ends after them"
    )


def _unlike(space: Space) -> list[str]:
    """The searched parameters that change by what trials are judged."""
    profile = space.profile
    if not profile.rank_by().startswith("eval_"):
        return []
    names = ["train_on_prompt"] + ["val_size", "data_seed", "max_samples"] * (
        not profile.data.eval_dataset
    )
    return [
        f"{axis.name} is searched and decides what the evaluation sees: {profile.rank_by()} of trials "
        "that differ in it cannot be compared"
        for axis in space.axes
        if axis.name in names and axis.free
    ]


def _left_out(space: Space) -> str | None:
    """Which combinations cannot run, by an example; None where all can as far as a look at some tells."""
    raw = None if any(a.values is None for a in space.axes) else space.raw_size()
    numbers = random.Random(0)
    if raw is not None and raw <= 1000:
        some: Iterable[Point] = (combination(space.axes, i) for i in range(raw))
    else:
        some = ({a.name: a.draw(numbers.random()) for a in space.axes} for _ in range(LOOKED_AT))
    reasons = dict.fromkeys(r for r in (space.obstacle(space.active(p)) for p in some) if r)
    if not reasons:
        return None
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
    return f"combinations that cannot run are left out: {next(iter(reasons))}{more}"


def _planned(
    profile: Profile, points: Iterable[Point], known: list[Point], trials: int
) -> list[Planned]:
    """Trials for points, without those whose settings come twice."""
    chosen: dict[Key, Planned] = {}
    good = {key_of(point) for point in known}
    for point in points:
        settings = derive(profile, point)
        source: Literal["search", "portfolio"] = "portfolio" if key_of(point) in good else "search"
        chosen.setdefault(key_of(settings), Planned(settings, point, source))
        if len(chosen) == trials:
            break
    return list(chosen.values())


def _grid(space: Space, size: int | None, trials: int, seed: int) -> list[Point]:
    if size is None:
        raise ValueError("a grid needs lists of values, or ranges with a step")
    if space.raw_size() <= MOST_LISTED:
        listed = space.points()
        if len(listed) <= trials:
            return listed
        return [listed[at] for at in _strata(len(listed), trials, random.Random(seed))]
    if size <= trials:
        return space.points()
    numbers = random.Random(seed)
    strata = [combination(space.axes, at) for at in _strata(space.raw_size(), trials, numbers)]
    thinned = [p for p in map(space.active, strata) if space.obstacle(p) is None]
    return list(islice(_once((*thinned, *islice(draws(space, seed), trials))), trials))


def _strata(size: int, count: int, numbers: random.Random) -> list[int]:
    # One from each of `count` equal stretches: spread evenly, yet in step with no parameter.
    ends = [size * i // count for i in range(count + 1)]
    return [a + int(numbers.random() * (b - a)) for a, b in pairwise(ends)]


def _once(points: Iterable[Point]) -> Iterator[Point]:
    known = set()
    for point in points:
        key = key_of(point)
        if key not in known:
            known.add(key)
            yield point
