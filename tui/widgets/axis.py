"""Ranges, ticks and labels of a plot's axes: pure functions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# A log axis ends at these multiples of a power of ten. Coarse on purpose: a range that follows
# the data exactly would move every dot, and so repaint the whole plot, at each new point.
_LOG_GRID = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
_MAX_LABEL = 8
_LOG_TICKS = (1.0, 2.0, 5.0)
_ROUND = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with the values that get a label."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 5 × a power of ten that divides `span` into at most `count` parts."""
    raw = span / max(1, count)
    if not (raw > 0 and math.isfinite(raw)):
        return 1.0
    power = _power(math.floor(math.log10(raw)))
    return next((f * power for f in (1.0, 2.0, 5.0) if f * power >= raw), 10.0 * power)


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.25, 1.5, 2 … 8 × a power of ten at or above `value`; 1 if not positive."""
    if not value > 0:
        return 1.0
    power = _power(math.floor(math.log10(value)))
    return next((f * power for f in _ROUND if f * power >= value), value)


def linear_axis(low: float, high: float, count: int) -> Axis:
    """An axis whose ends are ticks, with about `count` ticks, that holds `low` … `high`."""
    if low == high:
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    step = nice_step(high - low, max(1, count - 1))
    first, last = math.floor(low / step), math.ceil(high / step)
    bottom, top = first * step, last * step
    if not (math.isfinite(bottom) and math.isfinite(top)) or last - first > 1000:
        return Axis(low, high, (low, high))
    return Axis(bottom, top, tuple(i * step for i in range(first, last + 1)))


def log_axis(low: float, high: float, count: int) -> Axis:
    """A logarithmic axis that holds `low` … `high`, both positive, with at most `count` ticks."""
    bottom, top = _grid_down(low), _grid_up(high)
    if bottom == top:
        bottom, top = bottom / 2, top * 2
    first, last = math.floor(math.log10(bottom)), math.ceil(math.log10(top))
    every = range(first, last + 1)
    for multiples in (_LOG_GRID, _LOG_TICKS, (1.0,)):
        ticks = [m * _power(k) for k in every for m in multiples]
        ticks = [tick for tick in ticks if bottom <= tick <= top]
        if 2 <= len(ticks) <= count:
            return Axis(bottom, top, tuple(ticks), log=True)
    decades = [_power(k) for k in every if bottom <= _power(k) <= top]
    if len(decades) > count > 0:
        return Axis(bottom, top, tuple(decades[:: math.ceil(len(decades) / count)]), log=True)
    return Axis(bottom, top, (bottom, top), log=True)


def _power(exponent: int) -> float:
    """10 ** exponent within what a float holds: 1e-307 … 1e308."""
    return float(f"1e{min(308, max(-307, exponent))}")


def _grid_down(value: float) -> float:
    power = _power(math.floor(math.log10(value)))
    return max((m * power for m in _LOG_GRID if m * power <= value), default=value)


def _grid_up(value: float) -> float:
    power = _power(math.floor(math.log10(value)))
    return min((m * power for m in _LOG_GRID if m * power >= value), default=min(10 * power, 1e308))


def value_label(value: float, span: float | None = None) -> str:
    """A number in at most 8 characters; decimals as fine as a step of `span` asks for."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        forms = (f"{value:.1e}".replace(".0e", "e"), f"{value:.0e}")
        short = [re.sub(r"e(-?)\+?0*(?=\d)", r"e\1", form) for form in forms]
        return next((form for form in short if len(form) <= _MAX_LABEL), short[1])
    if span is None or not span > 0:
        if size >= 1e4:
            return f"{value:.0f}"
        text = f"{value:.4g}"
        return text if len(text) <= _MAX_LABEL else f"{value:.3g}"
    decimals = max(0, -math.floor(math.log10(span) + 1e-9))
    text = f"{value:.{min(6, decimals)}f}"
    return text[:_MAX_LABEL].rstrip(".") if "." in text else text


def step_label(step: float) -> str:
    """A step count: 950, 1200, 12k, 1.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(step) >= unit:
            return f"{step / (1e3 if name == 'k' else unit):.4g}{name}"
    return f"{step:.6g}"
