"""The searched parameters as axes of a picture: where a value lies, and what stands beside the axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.values import Scalar
from tui import words
from tui.widgets import axis

MOST_CHOICES = 12
"""A list of more different numbers is drawn as a range."""
_LOG_SPAN = 30.0
"""Positive values that span more than this factor are drawn in logarithms, whatever the space says."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A parameter's axis, from 0 to 1: a range of numbers, or choices one beside the other."""

    name: str
    title: str
    choices: tuple[Scalar, ...] = ()
    """The values of an axis of choices, in order; empty for a range."""
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def at(self, value: Scalar | None) -> float | None:
        """Where a value lies, 0 … 1; None where it has no place on the axis."""
        if self.choices:
            return self._choice(value)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            return None
        low, high, number = self.low, self.high, float(value)
        if self.log:
            if number <= 0:
                return None
            low, high, number = math.log10(low), math.log10(high), math.log10(number)
        if not high > low:
            return 0.5
        return min(1.0, max(0.0, (number - low) / (high - low)))

    def _choice(self, value: Scalar | None) -> float | None:
        wanted = _key(value)
        for index, choice in enumerate(self.choices):
            if _key(choice) == wanted:
                return (index + 0.5) / len(self.choices)
        return None

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Up to about `count` places with their labels; of choices all, and the caller leaves out what has no room."""
        if self.choices:
            return [((i + 0.5) / len(self.choices), _label(c)) for i, c in enumerate(self.choices)]
        if not self.high > self.low:
            return [(0.5, words.setting(self.low))]
        make = axis.log_axis if self.log else axis.linear_axis
        marks = [t for t in make(self.low, self.high, max(2, count)).ticks if self._holds(t)]
        if len(marks) < 2:
            marks = [self.low, self.high]
        return [(self.at(mark) or 0.0, words.setting(float(f"{mark:.6g}"))) for mark in marks]

    def _holds(self, value: float) -> bool:
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        return self.low - slack <= value <= self.high + slack


def dimensions(
    settings: Sequence[Mapping[str, Scalar]], space: Mapping[str, Any]
) -> tuple[Dimension, ...]:
    """The axes of the parameters that `space` searches or, where it is not known, in which the trials differ.

    `settings` are the trials' values by parameter name, those of the profile included.
    """
    names = [name for name in space if any(name in chosen for chosen in settings)]
    if not names:
        keys = dict.fromkeys(key for chosen in settings for key in chosen)
        names = [k for k in keys if len({_key(chosen.get(k)) for chosen in settings}) > 1]
    return tuple(
        _dimension(name, [c[name] for c in settings if name in c], space.get(name))
        for name in names
    )


def _dimension(name: str, seen: Sequence[Scalar], entry: Any) -> Dimension:
    title = words.title(name)
    values = list(seen)
    scale, ranged = None, False
    if isinstance(entry, Mapping):
        ends = [entry.get("low"), entry.get("high")]
        values += [end for end in ends if isinstance(end, int | float)]
        scale, ranged = entry.get("scale"), True
        listed = entry.get("values")
        if isinstance(listed, list):
            values, ranged = listed + values, False
    elif isinstance(entry, list):
        values = entry + values
    numbers = [
        float(v)
        for v in values
        if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    ]
    different = {_key(v): v for v in values}
    numeric = len(numbers) == len(values) and bool(numbers)
    if not numeric or (not ranged and name != "learning_rate" and len(different) <= MOST_CHOICES):
        choices = list(different.values())
        ordered = sorted(choices, key=float) if numeric else choices
        return Dimension(name, title, choices=tuple(ordered) or ("",))
    low, high = min(numbers), max(numbers)
    log = low > 0 and (scale == "log" or name == "learning_rate" or high / low > _LOG_SPAN)
    return Dimension(name, title, low=low, high=high, log=log)


def _key(value: object) -> object:
    """A value as it is told from others: 1 and 1.0 are the same number, 1 and True are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value), value
    return float(value)


def _label(value: Scalar) -> str:
    return words.setting(value) or "-"
