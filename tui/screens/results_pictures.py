"""What the pictures of the Results screen draw: dots, lines and bars made of an outcome. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from tui import words
from tui.findings import RATE
from tui.theme import COLOURS
from tui.widgets import axis
from tui.widgets.loss_chart import ChartSeries
from tui.widgets.parallel import BAD, SHADES, Line, Upright
from tui.widgets.scatter import Dot, Horizontal, Shape, value_range
from tui.widgets.share_bars import Share

if TYPE_CHECKING:
    from core.doctor import NextStep
    from tui.dimension import Dimension
    from tui.findings import Findings, Weight
    from tui.outcome import Outcome, Standing
    from tui.snapshot import TrialRow

SHARES_NOTE = "Of the order of the trials, what each explains by itself beyond chance."
MOST_LINES = 400
"""Parallel lines that are drawn at most: of more, the best and every so manieth of the rest."""
_MOST_TICKS = 5


def field_series(
    rows: Sequence[TrialRow], best: int | None, chosen: int | None
) -> list[ChartSeries]:
    """The best trial's curve and the chosen one's bright, all others dim. The rows have curves."""
    series = []
    for row in sorted(rows, key=lambda r: (r.number != best, r.number != chosen)):
        assert row.curve is not None
        bright = row.number in (best, chosen)
        label = f"best ({row.number})" if row.number == best else f"{row.number}"
        points, diverged = row.curve.train or (), row.status == "diverged"
        series.append(ChartSeries(label, points, dim=not bright, clipped=diverged))
    return series


def default_axis(found: Outcome) -> int:
    """Which dimension the scatter begins with: the learning rate, else the first range, else the first."""
    names = [d.name for d in found.dimensions]
    if RATE in names:
        return names.index(RATE)
    return next((i for i, d in enumerate(found.dimensions) if not d.choices), 0)


def dots(found: Outcome, index: int) -> list[Dot]:
    """Every trial that has the parameter `index`, where it lies on it and what it came to."""
    made = []
    for standing in (*found.standings, *found.open):
        at = standing.at[index] if index < len(standing.at) else None
        if at is not None:
            made.append(Dot(standing.trial, at, standing.value, _shape(standing), _label(standing)))
    return made


def _shape(standing: Standing) -> Shape:
    if standing.place == 1:
        return "best"
    if standing.kind == "placed":
        return "done"
    if standing.kind in ("dropped", "open"):
        return "dropped" if standing.kind == "dropped" else "open"
    diverged = standing.status == "diverged" or standing.reason.startswith("diverged")
    return "diverged" if diverged else "out"


def _label(standing: Standing) -> str:
    if standing.value is None:
        return f"trial {standing.trial}: {words.LOOKS[standing.status].word}"
    at = f" at {words.percent(standing.share)}" if standing.share < 1 else ""
    return f"trial {standing.trial}: {words.loss(standing.value)}{at}"


def horizontal(dimension: Dimension, findings: Findings, ticks: int) -> Horizontal:
    """The axis of a parameter, with what is known to be safe where it is the learning rate."""
    safe = bad = None
    if dimension.name == RATE and not dimension.choices:
        safe = _share(dimension, findings.safe_rate)
        bad = _share(dimension, findings.diverged_rate)
    return Horizontal(tuple(dimension.ticks(ticks)), len(dimension.choices), safe, bad)


def _share(dimension: Dimension, rate: float | None) -> float | None:
    if rate is None or rate < dimension.low * (1 - 1e-9):
        return None
    return dimension.at(rate)


def scatter_title(found: Outcome, dimension: Dimension) -> str:
    """`eval loss over lr, log`."""
    scale = ", log" if dimension.log else ""
    return f"{words.metric(found.metric)} over {dimension.title}{scale}"


def parallel(found: Outcome) -> tuple[list[Upright], list[Line]]:
    """The axes, the most important parameter first and the value last, and a line for each trial."""
    order = axes_order(found)
    standings = (*found.standings, *found.open)
    valued = [s.value for s in standings if s.value is not None]
    low, high = value_range(valued, high_is_good=found.direction == "max") if valued else (0.0, 1.0)
    axes = [
        Upright(found.dimensions[i].title, tuple(found.dimensions[i].ticks(_MOST_TICKS)))
        for i in order
    ]
    axes.append(Upright(words.metric(found.metric), _value_ticks(low, high) if valued else ()))
    lines = []
    for standing in thinned(standings):
        at = _height(standing, low, high, found.direction == "max")
        crossed = tuple(standing.at[i] if i < len(standing.at) else None for i in order)
        lines.append(Line(standing.trial, (*crossed, at), _shade(standing)))
    return axes, lines


def _shade(standing: Standing) -> int:
    """By how it stands among those with a value; one that goes on has no place yet and is drawn as the last of them."""
    if standing.value is None:
        return BAD
    return SHADES - 1 if standing.rank is None else min(SHADES - 1, int(standing.rank * SHADES))


def _value_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    if not high > low:
        return ((0.5, axis.value_label(low)),)
    places = (0.0, 0.5, 1.0)
    return tuple(
        (place, axis.value_label(low + place * (high - low), (high - low) / 100))
        for place in places
    )


def _height(standing: Standing, low: float, high: float, high_is_good: bool) -> float:
    """Where a trial's value lies, from 0 below to 1; what has none lies at the end that is not good."""
    if standing.value is None or not math.isfinite(standing.value):
        return 0.0 if high_is_good else 1.0
    if not high > low:
        return 0.5
    return min(1.0, max(0.0, (standing.value - low) / (high - low)))


def axes_order(found: Outcome) -> list[int]:
    """The dimensions, those that matter most first; as the space has them where that is not known."""
    weight = {w.name: w.share or 0.0 for w in found.findings.importances}
    indexes = range(len(found.dimensions))
    return sorted(indexes, key=lambda i: -weight.get(found.dimensions[i].name, 0.0))


def thinned(standings: Sequence[Standing]) -> list[Standing]:
    """At most `MOST_LINES` of the standings: the better half of these whole, the rest evenly."""
    if len(standings) <= MOST_LINES:
        return list(standings)
    head = MOST_LINES // 2
    rest = standings[head:]
    return [*standings[:head], *(rest[i * len(rest) // head] for i in range(head))]


def shares(findings: Findings) -> list[Share]:
    """The importances as bars, what is not sure with a word."""
    return [Share(words.title(w.name), w.share, _how_sure(w)) for w in findings.importances]


def _how_sure(weight: Weight) -> str:
    if weight.share is None:
        return "not known"
    return "" if weight.clear else "may be chance"


def advice_lines(found: Outcome) -> list[Text]:
    """What the doctor says about the study: warnings first, then the rest; calm where there is nothing."""
    findings = found.findings
    lines = [Text(f"! {text}", style=COLOURS["warning"]) for text in findings.warnings]
    lines += [Text(f"· {text}", style=COLOURS["text"]) for text in findings.advice]
    if not lines:
        lines = [Text("Nothing to remark on.", style=COLOURS["muted"])]
    if findings.steps:
        key = Text("  t", style=f"bold {COLOURS['primary']}")
        lines.append(key.append("  searches on so: a new draft in Configure", COLOURS["text"]))
    return lines


def step_title(step: NextStep) -> str:
    """What a proposal changes: `lr 1e-4 .. 3e-3 log`, `confirm 2`."""
    told = [f"{words.title(name)} {_entry(entry)}" for name, entry in step.space.items()]
    return ", ".join(told + [f"{name} {words.setting(v)}" for name, v in step.search.items()])


def _entry(entry: object) -> str:
    """An entry of the space as a profile's file has it: a list, or a range as a mapping."""
    if isinstance(entry, Mapping):
        scale = " log" if entry.get("scale") == "log" else ""
        return f"{words.setting(entry.get('low'))} .. {words.setting(entry.get('high'))}{scale}"
    values = entry if isinstance(entry, list | tuple) else [entry]
    return ", ".join(words.setting(value) for value in values)
