"""Combinations spread over a space so that none lies close to another, more densely around a known-good one if wanted.

Mitchell's best-candidate method (1991): of a few random combinations the one furthest from all others is next.
Distances run round the ends of a range, so that its ends, where a rate diverges or does nothing, are not preferred.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from core.search.space import Axis, Space, key_of
from core.values import Scalar

MISSES = 1000
"""So many draws in a row that were all drawn before, or cannot run, end the drawing: hardly anything new is left."""

MOST_LISTED = 20_000
"""A finite space with no more combinations is listed whole where that is easier than drawing."""

CANDIDATES = 16
COMPARED = 200
"""A candidate is compared with so many combinations, the latest ones: more leave no room to choose."""

PULL = 1.5
"""How strongly combinations gather around a centre: its distance is a share of the way to the end, to this power."""

UNLIKE = 0.5
"""The distance of two values that have no order, as large as any between ordered ones."""

Point = dict[str, Scalar]


def draws(space: Space, seed: int) -> Iterator[Point]:
    """Combinations drawn at random, each once and able to run, until hardly anything new is found."""
    numbers = random.Random(seed)
    return _distinct(space, lambda: [numbers.random() for _ in space.axes])


def spread(
    space: Space, seed: int, taken: Sequence[Point], centre: Point | None = None
) -> Iterator[Point]:
    """Combinations as `draws` gives them, each far from the earlier ones and from those `taken`."""
    numbers = random.Random(seed)
    middle = [
        _place(a, centre[a.name]) if centre and a.name in centre else None for a in space.axes
    ]

    def drawn() -> list[float]:
        return [towards(numbers.random(), m) for m in middle]

    fresh = _distinct(space, drawn)
    chosen = [_places(space, point, middle) for point in taken]
    waiting: list[_Candidate] = []
    while True:
        for point in islice(fresh, CANDIDATES - len(waiting)):
            places = _places(space, point, middle)
            room = min((_squared(places, other) for other in chosen[-COMPARED:]), default=math.inf)
            waiting.append(_Candidate(point, places, room))
        if not waiting:
            return
        best = max(waiting, key=lambda candidate: candidate.room)
        waiting.remove(best)
        for candidate in waiting:
            candidate.room = min(candidate.room, _squared(candidate.places, best.places))
        chosen.append(best.places)
        yield best.point


@dataclass(slots=True, eq=False)
class _Candidate:
    """A combination that may be next, and its squared distance to the nearest of those chosen."""

    point: Point
    places: list[Scalar | None]
    room: float


def remainder(space: Space, seed: int) -> Iterator[Point]:
    """What drawing may have missed: every combination of a finite space that is not too large, from a random one on."""
    if any(axis.values is None for axis in space.axes) or space.raw_size() > MOST_LISTED:
        return
    listed = space.points()
    start = int(random.Random(seed).random() * len(listed))
    yield from listed[start:]
    yield from listed[:start]


def _distinct(space: Space, numbers: Callable[[], list[float]]) -> Iterator[Point]:
    known = set()
    misses = 0
    while misses < MISSES:
        drawn = {a.name: a.draw(u) for a, u in zip(space.axes, numbers(), strict=True)}
        point = space.active(drawn)
        key = key_of(point)
        misses += 1
        if key not in known and space.obstacle(point) is None:
            misses = 0
            known.add(key)
            yield point


def _places(
    space: Space, point: Mapping[str, Scalar], middle: Sequence[float | None]
) -> list[Scalar | None]:
    """Where a point lies on each axis as distances are measured: from 0 to 1, or its value where there is no order."""
    places: list[Scalar | None] = []
    for axis, centre in zip(space.axes, middle, strict=True):
        value = point.get(axis.name)
        place = None if value is None else _place(axis, value)
        places.append(value if place is None else away(place, centre))
    return places


def _squared(one: list[Scalar | None], other: list[Scalar | None]) -> float:
    total = 0.0
    for a, b in zip(one, other, strict=True):
        if isinstance(a, float) and isinstance(b, float):
            gap = abs(a - b)
            total += min(gap, 1 - gap) ** 2
        elif a != b:
            total += UNLIKE**2
    return total


def _place(axis: Axis, value: Scalar) -> float | None:
    """Where a value lies on its axis, from 0 to 1; None where its values have no order or it is none of them."""
    if not axis.ordered or not isinstance(value, int | float):
        return None
    if axis.low is not None and axis.high is not None:
        if not axis.low <= value <= axis.high:
            return None
        if axis.log:
            return math.log(value / axis.low) / math.log(axis.high / axis.low)
        return (value - axis.low) / (axis.high - axis.low)
    values = list(axis.values or ())
    return (values.index(value) + 0.5) / len(values) if value in values else None


def towards(u: float, centre: float | None) -> float:
    """A number from [0, 1) moved towards `centre`; the centre and the ends stay where they are."""
    if centre is None or u == centre:
        return u
    side = 1 - centre if u > centre else -centre
    return min(centre + side * math.pow((u - centre) / side, PULL), math.nextafter(1, 0))


def away(place: float, centre: float | None) -> float:
    """The number that `towards` moves to `place`."""
    if centre is None or place == centre:
        return place
    side = 1 - centre if place > centre else -centre
    return centre + side * math.pow((place - centre) / side, 1 / PULL)
