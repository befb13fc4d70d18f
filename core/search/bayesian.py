"""Proposes settings where earlier trials did well: Optuna's tree-structured Parzen estimator, told of all trials anew.

Only the process that proposes loads this. It keeps nothing; the same request gives the same points. (Bergstra et al.
2011; jointly over parameters: Falkner et al. 2018, "BOHB"; constant liar: Ginsbourger et al. 2010.)
"""

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from core.profile import Profile
from core.search.constraints import derive
from core.search.proposals import Seen
from core.search.space import Axis, Key, Space, key_of, space_of
from core.search.spread import Point, remainder, spread
from core.values import Scalar

LEARNS_FROM = 4
"""With fewer results the next point is spread among the others."""

TRIES = 64
"""So often the sampler is asked for a point that is new and can run, before one is drawn."""

SHARED = 5
"""A share of the probe counts when one trial in so many came so far: twice as many as the sampler calls good."""

SAME_SHARE = 1e-6
"""Shares of the probe that differ by less are the same rung."""


@dataclass(frozen=True, slots=True)
class Coded:
    """An axis as the sampler sees it: a range's numbers, or the places of listed values, in order if they have one."""

    axis: Axis
    distribution: BaseDistribution
    values: tuple[Scalar, ...] | None
    """The values whose places the sampler sees; None where it sees the numbers themselves."""

    def encode(self, value: Scalar) -> int | float | None:
        """What the sampler sees; None for a value that is none of the axis."""
        if self.values is not None:
            return self.values.index(value) if value in self.values else None
        low, high = self.axis.low, self.axis.high
        if low is None or high is None or isinstance(value, str | bool):
            return None
        return value if low <= value <= high else None

    def decode(self, seen: int | float) -> Scalar:
        """The axis's value."""
        return self.axis.tidy(seen) if self.values is None else self.values[int(seen)]


def propose(profile: Profile, trials: Sequence[Seen], count: int, seed: int) -> list[Point]:
    """The next `count` points of a profile's space, each new and able to run; fewer where there are no others."""
    space = space_of(profile)
    axes = {axis.name: coded(axis) for axis in space.axes if axis.free}
    tried = {key_of(derive(profile, seen.sampled)) for seen in trials if seen.sampled}
    study = rebuilt(axes, trials, seed)
    points: list[Point] = []
    taken = [space.active(seen.sampled) for seen in trials if seen.sampled]
    fallback = chain(spread(space, seed, taken), remainder(space, seed))
    while len(points) < count:
        point = _asked(profile, space, axes, study, tried) if study else None
        point = point or next(
            (p for p in fallback if key_of(derive(profile, p)) not in tried), None
        )
        if point is None:
            break
        tried.add(key_of(derive(profile, point)))
        points.append(point)
    return points


def coded(axis: Axis) -> Coded:
    """An axis as the sampler sees it; it has more than one value."""
    if axis.low is not None and axis.high is not None:
        whole = isinstance(axis.low, int)
        distribution: BaseDistribution = (
            IntDistribution(int(axis.low), int(axis.high), log=axis.log)
            if whole
            else FloatDistribution(axis.low, axis.high, log=axis.log)
        )
        return Coded(axis, distribution, None)
    listed = tuple(axis.values or ())
    if not axis.ordered:
        return Coded(axis, CategoricalDistribution(range(len(listed))), listed)
    numbers = tuple(sorted(listed, key=float))
    return Coded(axis, IntDistribution(0, len(numbers) - 1), numbers)


def rebuilt(axes: dict[str, Coded], trials: Sequence[Seen], seed: int) -> optuna.Study | None:
    """A study that was told of all trials; None where there is too little to learn from."""
    told = _told(trials)
    if sum(t.value is not None for t in told) < LEARNS_FROM or not axes:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        # Groups are marked as experimental; nothing else knows joint distributions of conditional parameters.
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(
            seed=random.Random(f"{seed} {len(trials)}").getrandbits(32),
            n_startup_trials=LEARNS_FROM,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
    study = optuna.create_study(sampler=sampler)
    for one in told:
        sampled = one.seen.sampled
        point = {n: axis.encode(sampled[n]) for n, axis in axes.items() if n in sampled}
        known = {n: v for n, v in point.items() if v is not None}
        if len(known) < len(point) or not known:
            continue
        study.add_trial(
            optuna.create_trial(
                state=one.state,
                value=one.value if one.state == TrialState.COMPLETE else None,
                params=known,
                distributions={n: axes[n].distribution for n in known},
                intermediate_values=one.intermediate,
                constraints={"memory": 1.0} if one.seen.state == "oom" else None,
            )
        )
    return study


@dataclass(frozen=True, slots=True)
class Told:
    """One trial as the sampler is told of it."""

    seen: Seen
    state: TrialState
    value: float | None
    intermediate: dict[int, float] | None = None


def _told(trials: Sequence[Seen]) -> list[Told]:
    """Trials with values that can be compared.

    Values of one rung only are told as results: those at the highest share that at least `LEARNS_FROM` trials and a
    fifth of all with a value have reached. One that was dropped before is told as pruned where it stood, which counts
    behind all results. A diverged one gets a value that is worse than the worst by the spread of all, so that its
    surroundings are avoided; one out of memory breaks a constraint; one that has not come so far yet is told as running
    (constant liar). A failed one says nothing about its settings.
    """
    values = [_values(seen) for seen in trials]
    level = _level([v for v in values if v])
    results = [_at(v, level) for v in values]
    finite = [r for r in results if r is not None]
    worst = _worse(finite)
    told = []
    for seen, reached, result in zip(trials, values, results, strict=True):
        if seen.state == "failed":
            continue
        if seen.state in ("diverged", "oom"):
            told.append(Told(seen, TrialState.COMPLETE, worst))
        elif result is not None:
            told.append(Told(seen, TrialState.COMPLETE, result))
        elif seen.state == "completed" and reached:
            share = max(reached)
            told.append(
                Told(seen, TrialState.PRUNED, reached[share], {round(share * 1e6): reached[share]})
            )
        else:
            told.append(Told(seen, TrialState.RUNNING, None))
    return told


def _values(seen: Seen) -> dict[float, float]:
    """Share → finite value of a trial that did not diverge."""
    if seen.state in ("diverged", "oom", "failed"):
        return {}
    found = dict(seen.rungs)
    if seen.value is not None and seen.share > 0:
        found[seen.share] = seen.value
    return {share: value for share, value in found.items() if math.isfinite(value)}


def _level(values: Sequence[dict[float, float]]) -> float:
    """The highest share at which enough trials have a value; 0 where none has one."""
    shares = sorted({share for reached in values for share in reached}, reverse=True)
    enough = max(LEARNS_FROM, len(values) / SHARED)
    counts = ((share, sum(_at(v, share) is not None for v in values)) for share in shares)
    most = max((sum(_at(v, s) is not None for v in values) for s in shares), default=0)
    return next((share for share, count in counts if count >= min(enough, most)), 0.0)


def _at(reached: dict[float, float], share: float) -> float | None:
    return next((v for s, v in reached.items() if abs(s - share) <= SAME_SHARE), None)


def _worse(values: Sequence[float]) -> float:
    """A value clearly worse than all: by their spread, or by a tenth of their size where they hardly differ."""
    if not values:
        return 0.0
    worst = max(values)
    return worst + max(worst - min(values), 0.1 * abs(worst), 1e-3)


def _asked(
    profile: Profile,
    space: Space,
    axes: dict[str, Coded],
    study: optuna.Study,
    tried: set[Key],
) -> Point | None:
    """A point of the sampler that is new and can run, left in the study as running; None where it finds none."""
    for _ in range(TRIES):
        trial = study.ask()
        point = _drawn(space, axes, trial)
        if space.obstacle(point) is None and key_of(derive(profile, point)) not in tried:
            return point
        study.tell(trial, state=TrialState.FAIL)
    return None


def _drawn(space: Space, axes: dict[str, Coded], trial: optuna.Trial) -> Point:
    """Values for the parameters that have an effect, those first that others depend on."""
    whole: Point = {axis.name: axis.draw(0.0) for axis in space.axes}
    drawn: Point = {}
    left = [axis.name for axis in space.axes if axis.free]
    while True:
        active = space.active({**whole, **drawn})
        name = next((n for n in left if n in active and not _waits(space, n, left)), None)
        if name is None:
            return active
        left.remove(name)
        axis = axes[name]
        drawn[name] = axis.decode(_suggested(trial, name, axis.distribution))


def _suggested(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> int | float:
    match distribution:
        case FloatDistribution():
            return trial.suggest_float(
                name, distribution.low, distribution.high, log=distribution.log
            )
        case IntDistribution():
            return trial.suggest_int(
                name, distribution.low, distribution.high, log=distribution.log
            )
        case CategoricalDistribution():
            return int(trial.suggest_categorical(name, range(len(distribution.choices))))
    raise TypeError(f"{distribution} is none that an axis is told by")


def _waits(space: Space, name: str, left: list[str]) -> bool:
    """Whether a parameter that is still to be drawn decides if `name` has an effect."""
    return bool(set(space.controls(name)) & set(left))
