"""A trial's memory as lines of a chart."""

from typing import Any

from tests.tui.fake import STEPS, points, run_info, trial_forecast
from tui.curve import Curve, CurveBuilder
from tui.memory_chart import limit, memory_series, memory_title
from tui.words import CPU

GIB = 2**30


def curve(forecast: Any = None, *, memory: bool = True) -> Curve:
    builder = CurveBuilder()
    builder.add(points(1.9, STEPS, until=80))
    return builder.digest(run_info(), whole=False, forecast=forecast, memory=memory)


def row(found: Curve) -> Any:
    """As much of a row as a title needs."""
    from types import SimpleNamespace

    trial = SimpleNamespace(live=True, forecast=None, status="running")
    return SimpleNamespace(trial=trial, curve=found, peak_memory=found.peak_memory)


def test_points_of_memory_are_kept_only_where_they_are_wanted() -> None:
    assert curve(memory=False).peaks is None
    found = curve().peaks
    assert found is not None and found[0] == (5.0, int(11.2 * GIB))


def test_what_was_held_stands_beside_forecast_and_limit() -> None:
    peak, reserved, forecast, most = memory_series(curve(trial_forecast()), 120.0)
    assert [s.label for s in (peak, reserved, forecast, most)] == [
        "peak", "reserved", "forecast", "limit",
    ]  # fmt: skip
    assert peak.points[-1] == (80.0, int(11.2 * GIB) / GIB)
    assert reserved.points[-1][1] == int(11.5 * GIB) / GIB
    assert forecast.points == ((5.0, 11.0), (120.0, 11.0))
    assert most.points[1] == (120.0, int(23.2 * GIB) / GIB)


def test_an_estimate_is_called_one() -> None:
    series = memory_series(curve(trial_forecast(tier="estimate")), None)
    assert series[2].label == "estimate" and series[2].points[1][0] == 80.0


def test_without_a_forecast_there_are_the_measures_alone_and_without_measures_nothing() -> None:
    assert [s.label for s in memory_series(curve(), 120.0)] == ["peak", "reserved"]
    assert memory_series(Curve(forecast=trial_forecast(), peaks=()), 120.0) == []


def test_a_limit_far_above_stands_in_the_title() -> None:
    far = curve(trial_forecast(capacity=79 * GIB))
    assert [s.label for s in memory_series(far, 120.0)] == ["peak", "reserved", "forecast"]
    assert memory_title(row(far), 50) == "GiB, of 79.0 GiB"
    assert memory_title(row(far), 150) == "forecast 11.0, measured 11.2 GiB, of 79.0 GiB"
    assert memory_title(row(curve(trial_forecast())), 150) == "forecast 11.0, measured 11.2 GiB"


def test_on_the_cpu_the_process_counts_in() -> None:
    record = trial_forecast(device=CPU, context=2 * GIB)
    assert limit(record) == record.capacity + 2 * GIB
    series = memory_series(curve(record), None)
    assert series[2].points[0][1] == 13.0
