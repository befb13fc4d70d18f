"""The search space: how many combinations it has, which they are, and how one is drawn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.catalogue import find
from core.params import Range
from core.profile import Profile
from core.values import Scalar

MOST_ENUMERATED = 1_000_000
"""Values of one range that are listed at most; one with more counts as endless, nobody tries them all."""

READABLE_VALUES = 1000
"""How many different values a continuous range is cut into at least: 3e-4 rather than 0.00030128474."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One searched parameter: all its values in order, or None where there are too many, and how to draw one."""

    name: str
    values: Sequence[Scalar] | None
    draw: Callable[[float], Scalar]
    """Makes a value of a number drawn evenly from [0, 1)."""


def axes(profile: Profile) -> list[Axis]:
    """The searched parameters of a profile, in the order in which it names them."""
    return [
        _range_axis(name, entry) if isinstance(entry, Range) else _list_axis(name, tuple(entry))
        for name, entry in profile.search.space.items()
    ]


def space_size(profile: Profile) -> int | None:
    """How many combinations the space holds, 1 for an empty one; None where a range makes them endless."""
    size = 1
    for axis in axes(profile):
        if axis.values is None:
            return None
        size *= len(axis.values)
    return size


def combination(space: list[Axis], index: int) -> dict[str, Scalar]:
    """The combination at `index` of a finite space in order; the last parameter changes fastest.

    Raises:
        ValueError: a parameter of the space has endless values.
    """
    chosen: dict[str, Scalar] = {}
    for axis in reversed(space):
        if axis.values is None:
            raise ValueError(f"{axis.name} has too many values to be counted through")
        index, at = divmod(index, len(axis.values))
        chosen[axis.name] = axis.values[at]
    return {axis.name: chosen[axis.name] for axis in space}


def _list_axis(name: str, values: tuple[Scalar, ...]) -> Axis:
    return Axis(name, values, lambda u: values[int(u * len(values))])


def _range_axis(name: str, entry: Range) -> Axis:
    whole = find(name).kind == "int"
    low, high, step = entry.low, entry.high, entry.step
    if step is not None:
        return _list_axis(name, _stepped(low, high, step, whole))
    if whole:
        first, last = int(low), int(high)
        count = last - first + 1
        values = range(first, last + 1) if count <= MOST_ENUMERATED else None
        if entry.scale == "log":
            # Half a unit on either side gives the ends their full share.
            start, width = math.log(first - 0.5), math.log((last + 0.5) / (first - 0.5))
            return Axis(
                name, values, lambda u: min(last, max(first, round(math.exp(start + u * width))))
            )
        return Axis(name, values, lambda u: first + int(u * count))
    if entry.scale == "log":
        digits = _digits(math.log10(high / low))
        return Axis(
            name,
            None,
            lambda u: _inside(float(f"{low * (high / low) ** u:.{digits - 1}e}"), low, high),
        )
    places = math.ceil(math.log10(READABLE_VALUES / (high - low)))
    return Axis(name, None, lambda u: _inside(round(low + u * (high - low), places), low, high))


def _stepped(low: float, high: float, step: float, whole: bool) -> tuple[Scalar, ...]:
    # Sums of decimal fractions miss their end by a rounding error, and carry it into what people read.
    count = min(int((high - low) / step + 1e-9) + 1, MOST_ENUMERATED)
    values = [float(f"{low + i * step:.12g}") for i in range(count)]
    if whole:
        return tuple(dict.fromkeys(round(v) for v in values))
    return tuple(dict.fromkeys(min(v, high) for v in values))


def _digits(decades: float) -> int:
    """Significant digits that cut `decades` orders of magnitude into readable values, three in the usual case."""
    # Three digits give 900 values a decade.
    return 3 + max(0, math.ceil(-math.log10(decades))) if decades < 1 else 3


def _inside(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))
