"""Holds what a trial measured on a GPU against what was forecast for it, and keeps both for later forecasts."""

from typing import Any

from core.engine.endings import Facts, Outcome
from core.engine.versions import torch_version
from core.memory.calibration import Measurement, record


def learn(facts: Facts, outcome: Outcome) -> bool:
    """Keep an attempt's figures where it trained on a GPU; whether they were kept.

    One that ended in its first updates may not have come to its peak, and would make forecasts look too high; one that
    ran out of memory counts where that proves its forecast wrong.
    """
    measured = measurement(facts, outcome)
    return measured is not None and record(measured)


def measurement(facts: Facts, outcome: Outcome) -> Measurement | None:
    """An attempt's forecast beside what it needed; None where one of them is missing."""
    forecast, report, run, event = facts.forecast, facts.report, facts.run, outcome.event
    if forecast is None or report is None or event.forecast is None:
        return None
    # What ran out before its first step has not told of itself, and was to fit this device with our PyTorch.
    device, torch = forecast.device, torch_version()
    if run is not None:
        device, torch = run.device, run.versions.get("torch", "")
    elif not outcome.missed:
        return None
    whole = (
        event.ending in ("completed", "diverged", "paused", "rung", "stopped") and report.step >= 2
    )
    if not whole and not outcome.missed:
        return None
    if report.peak_memory is None or report.peak_reserved is None:
        return None
    moments: dict[Any, int] = dict(report.moments or {})
    return Measurement(
        t=event.t,
        gpu=device,
        torch=torch,
        tier=forecast.tier,
        forecast_allocated=forecast.allocated,
        forecast_needed=forecast.needed,
        allocated=report.peak_memory,
        reserved=report.peak_reserved,
        context=report.context_bytes,
        moments=moments,
        missed=outcome.missed,
    )
