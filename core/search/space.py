"""The search space: its parameters, how a value of one is drawn, how many combinations can run, and which they are.

A *combination* (or point) maps searched names to values. A parameter without effect in it (a rank in full fine-tuning)
is left out of it, so that two combinations that train alike are one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from core.catalogue import MOST_VALUES, find
from core.params import Range
from core.profile import Profile
from core.space_checks import (
    ACCUMULATION,
    BATCH,
    ENTANGLED,
    active_part,
    combination_problems,
    controllers,
    deciding_values,
)
from core.values import Scalar

MOST_COUNTED = 5_000
"""So many combinations of parameters that depend on each other are looked at one by one. Of more, the number that could
run if nothing excluded anything is told."""

READABLE_VALUES = 1000
"""How many different values a continuous range is cut into at least: 3e-4 rather than 0.00030128474."""


Key = tuple[tuple[str, str, Scalar], ...]


def key_of(point: Mapping[str, Scalar]) -> Key:
    """What tells combinations apart: 1 and true are different values, the order of names is none."""
    return tuple(sorted((n, type(v).__name__, v) for n, v in point.items()))


@dataclass(frozen=True, slots=True)
class Axis:
    """One searched parameter: all its values in order, or None where there are too many, and how to draw one."""

    name: str
    values: Sequence[Scalar] | None
    draw: Callable[[float], Scalar]
    """Makes a value of a number drawn evenly from [0, 1)."""
    tidy: Callable[[float], Scalar]
    """The nearest value of the axis as it would be drawn, for a number inside its range."""
    low: float | None = None
    """The ends of a range without a step; None for a list, and for a range that is one by its step."""
    high: float | None = None
    log: bool = False

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers, so that neighbours are alike."""
        return self.values is None or all(_is_number(v) for v in self.values)

    @property
    def free(self) -> bool:
        """Whether there is anything to choose."""
        return self.values is None or len(self.values) > 1


@dataclass(frozen=True, slots=True)
class Space:
    """The searched parameters of a profile, with what the profile says of all others."""

    profile: Profile
    axes: tuple[Axis, ...]
    tied: frozenset[str]
    """The parameters whose values decide which others have an effect, or what goes together."""
    _base: Mapping[str, object]
    _obstacles: dict[Key, str | None] = field(default_factory=dict, compare=False, repr=False)

    def active(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What of a combination has an effect."""
        return active_part(self._base, point)

    def obstacle(self, point: Mapping[str, Scalar]) -> str | None:
        """Why a combination, of which everything has an effect, cannot run, in words; None where it can."""
        key = key_of({name: value for name, value in point.items() if name in self.tied})
        if key and key not in self._obstacles:
            problem = next(combination_problems(self.profile.tables(), point), None)
            self._obstacles[key] = None if problem is None else f"{problem.key}: {problem.wrong}"
        return self._obstacles[key] if key else None

    def controls(self, name: str) -> frozenset[str]:
        """The searched parameters that decide whether the searched parameter `name` has an effect."""
        keys = controllers(find(name).key)
        return frozenset(axis.name for axis in self.axes if find(axis.name).key in keys)

    def size(self) -> int | None:
        """How many different combinations can run, 1 for an empty space; None where a range makes them endless.

        Where more than `MOST_COUNTED` combinations would have to be looked at it is how many there are at most.
        """
        tied = [axis for axis in self.axes if axis.name in self.tied]
        raw = math.prod(len(axis.values) for axis in tied if axis.values is not None)
        if raw > MOST_COUNTED or any(axis.values is None for axis in tied):
            return None if any(axis.values is None for axis in self.axes) else self.raw_size()
        size = 0
        for _, others in self._groups():
            lists = [axis.values for axis in others]
            if any(listed is None for listed in lists):
                return None
            size += math.prod(len(listed) for listed in lists if listed is not None)
        return size

    def _groups(self) -> Iterator[tuple[dict[str, Scalar], list[Axis]]]:
        """What has an effect of each different combination of the tied parameters, where that can run, and the other
        parameters that have one beside it: all values of these multiply."""
        tied = [axis for axis in self.axes if axis.name in self.tied]
        others = [axis for axis in self.axes if axis.name not in self.tied]
        anything = {axis.name: axis.draw(0.0) for axis in others}
        known = set()
        for values in product(*(axis.values or () for axis in tied)):
            chosen = {axis.name: value for axis, value in zip(tied, values, strict=True)}
            active = self.active({**anything, **chosen})
            own = {name: value for name, value in active.items() if name in self.tied}
            key = key_of(own)
            if key not in known and self.obstacle(active) is None:
                known.add(key)
                yield own, [axis for axis in others if axis.name in active]

    def raw_size(self) -> int:
        """How many combinations there are, those without effect or that cannot run included; the axes are finite."""
        return math.prod(len(axis.values or ()) for axis in self.axes)

    def points(self) -> list[dict[str, Scalar]]:
        """Every different combination of a finite space that can run, in order; the last parameter changes fastest.

        Takes as long as there are such combinations: ask for `size` first.
        """
        found = []
        for own, others in self._groups():
            for values in product(*(axis.values or () for axis in others)):
                point = own | {a.name: v for a, v in zip(others, values, strict=True)}
                found.append({a.name: point[a.name] for a in self.axes if a.name in point})
        places = {a.name: {v: at for at, v in enumerate(a.values or ())} for a in self.axes}
        return sorted(found, key=lambda p: [at[p[n]] if n in p else 0 for n, at in places.items()])


def space_of(profile: Profile) -> Space:
    """The search space of a profile."""
    named = {find(name).key: name for name in profile.search.space}
    controlling = set().union(*(controllers(key) for key in named))
    tied = {name for key, name in named.items() if key in controlling or name in ENTANGLED}
    if not profile.search.hold_effective_batch:
        tied -= {BATCH, ACCUMULATION}
    space = tuple(axes(profile))
    return Space(profile, space, frozenset(tied), deciding_values(profile.tables()))


def axes(profile: Profile) -> list[Axis]:
    """The searched parameters of a profile, in the order in which it names them."""
    return [
        _held_axis(profile, name, entry) or _range_axis(name, entry)
        if isinstance(entry, Range)
        else _list_axis(name, tuple(entry))
        for name, entry in profile.search.space.items()
    ]


def space_size(profile: Profile) -> int | None:
    """How many different combinations can run, 1 for an empty space; None where a range makes them endless."""
    return space_of(profile).size()


def combination(axes: Sequence[Axis], index: int) -> dict[str, Scalar]:
    """The combination at `index` of a finite space in order; the last parameter changes fastest.

    Raises:
        ValueError: a parameter of the space has endless values.
    """
    chosen: dict[str, Scalar] = {}
    for axis in reversed(axes):
        if axis.values is None:
            raise ValueError(f"{axis.name} has too many values to be counted through")
        index, at = divmod(index, len(axis.values))
        chosen[axis.name] = axis.values[at]
    return {axis.name: chosen[axis.name] for axis in axes}


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list_axis(name: str, values: tuple[Scalar, ...]) -> Axis:
    def nearest(number: float) -> Scalar:
        numbers = [v for v in values if isinstance(v, int | float)]
        return min(numbers, key=lambda v: abs(v - number)) if numbers else values[0]

    return Axis(name, values, lambda u: values[int(u * len(values))], nearest)


def _held_axis(profile: Profile, name: str, entry: Range) -> Axis | None:
    """Those values of a range that can be a factor of the held effective batch; None where it is not held, or none can.

    They are few, and would hardly ever be drawn among all.
    """
    if not profile.search.hold_effective_batch or name not in (BATCH, ACCUMULATION):
        return None
    held = profile.batch_per_gpu()
    factors = [v for v in _range_axis(name, entry).values or () if held % int(v) == 0]
    return _list_axis(name, tuple(factors)) if factors else None


def _range_axis(name: str, entry: Range) -> Axis:
    whole = find(name).kind == "int"
    if entry.step is not None:
        return _list_axis(name, _stepped(entry.low, entry.high, entry.step, whole))
    return _whole_axis(name, entry) if whole else _continuous_axis(name, entry)


def _whole_axis(name: str, entry: Range) -> Axis:
    first, last = int(entry.low), int(entry.high)
    count = last - first + 1
    values = range(first, last + 1) if count <= MOST_VALUES else None
    log = entry.scale == "log"

    def tidy(number: float) -> int:
        return min(last, max(first, round(number)))

    def draw(u: float) -> int:
        if not log:
            return first + int(u * count)
        # Half a unit on either side gives the ends their full share.
        return tidy((first - 0.5) * ((last + 0.5) / (first - 0.5)) ** u)

    return Axis(name, values, draw, tidy, first, last, log)


def _continuous_axis(name: str, entry: Range) -> Axis:
    low, high, log = entry.low, entry.high, entry.scale == "log"
    digits = _digits(math.log10(high / low)) if log else 0
    places = 0 if log else math.ceil(math.log10(READABLE_VALUES / (high - low)))

    def tidy(number: float) -> float:
        readable = float(f"{number:.{digits - 1}e}") if log else round(number, places)
        return min(high, max(low, readable))

    def draw(u: float) -> float:
        return tidy(low * (high / low) ** u if log else low + u * (high - low))

    return Axis(name, None, draw, tidy, low, high, log)


def _stepped(low: float, high: float, step: float, whole: bool) -> tuple[Scalar, ...]:
    # Sums of decimal fractions miss their end by a rounding error, and carry it into what people read.
    count = int((high - low) / step + 1e-9) + 1
    values = [float(f"{low + i * step:.12g}") for i in range(count)]
    if whole:
        return tuple(dict.fromkeys(round(v) for v in values))
    return tuple(dict.fromkeys(min(v, high) for v in values))


def _digits(decades: float) -> int:
    """Significant digits that cut `decades` orders of magnitude into readable values, three in the usual case."""
    # Three digits give 900 values a decade.
    return 3 + max(0, math.ceil(-math.log10(decades))) if decades < 1 else 3
