"""A trial's memory over its steps beside what was forecast, as lines of a chart in GiB. Pure."""

from core.study.files import TrialForecast
from tui.curve import Curve, Points
from tui.detail import expected, foreseen
from tui.snapshot import TrialRow
from tui.widgets.chart_series import ChartSeries
from tui.words import CPU, GIB, size

_FAR = 3.0
"""A limit above so many times the rest would press the other lines flat: it stands in the title instead."""
_ROOMY = 90
"""The width from which on the title has room for a sentence."""


def memory_series(curve: Curve, end: float | None) -> list[ChartSeries]:
    """Lines of what was held and, up to the step `end`, of the forecast and of what there is to hold."""
    if not curve.peaks:
        return []
    listed = [ChartSeries("peak", _gib(curve.peaks))]
    if curve.reserved:
        listed.append(ChartSeries("reserved", _gib(curve.reserved)))
    record = curve.forecast
    if record is None:
        return listed
    first, last = curve.peaks[0][0], max(curve.peaks[-1][0], end or 0.0)
    name = "forecast" if record.tier == "proof" else "estimate"
    listed.append(ChartSeries(name, _level(first, last, expected(record))))
    if not _is_far(curve, record):
        listed.append(ChartSeries("limit", _level(first, last, limit(record))))
    return listed


def memory_title(row: TrialRow, width: int) -> str:
    """What stands above the lines: the forecast against the measure where there is room, and a limit out of sight."""
    record = row.curve.forecast if row.curve else None
    if row.curve is None or record is None or not row.curve.peaks:
        return "GiB"
    told = foreseen(row) if width >= _ROOMY else "GiB"
    return f"{told}, of {size(limit(record))}" if _is_far(row.curve, record) else told


def limit(record: TrialForecast) -> int:
    """The most that a trial can measure: the allocator's capacity, with the process itself on the CPU. Bytes."""
    return record.capacity + (record.context if record.device == CPU else 0)


def _is_far(curve: Curve, record: TrialForecast) -> bool:
    measured = [held for _, held in (*(curve.peaks or ()), *(curve.reserved or ()))]
    return limit(record) > _FAR * max(expected(record), *measured)


def _gib(points: Points) -> Points:
    return tuple((step, held / GIB) for step, held in points)


def _level(first: float, last: float, held: int) -> Points:
    return ((first, held / GIB), (max(last, first + 1), held / GIB))
