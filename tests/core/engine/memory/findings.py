"""Forecasts, targets and results for tests; sizes are in GiB."""

from typing import Any

from core.engine.memory.jobs import Found, Result
from core.memory.forecast import GIB, Forecast, Target, Tier
from core.study.events import FixOption


def forecast(gib: float, tier: Tier = "proof", **more: Any) -> Forecast:
    need = int(gib * GIB)
    return Forecast(
        **{
            "tier": tier, "allocated": need, "reserved": need, "needed": need, "context": GIB // 2,
            "parts": {"activations": need}, "moments": {"backward": need}, "peak": "backward", **more,
        }
    )  # fmt: skip


def target(free: float = 24, limit: float | None = None, **more: Any) -> Target:
    """A GPU whose allocator may take half a GiB less than is free."""
    return Target(
        **{
            "kind": "cuda", "name": "Fake", "total": 24 * GIB, "free": int(free * GIB), "context": GIB // 2,
            "limit": None if limit is None else int(limit * GIB), **more,
        }
    )  # fmt: skip


def option(gib: float = 10, **more: Any) -> FixOption:
    return FixOption(
        **{
            "changes": {"per_device_train_batch_size": 2}, "text": "batch 4 → 2", "needed": int(gib * GIB),
            "headroom": GIB, "slowdown": (1.0, 1.1), "proven": True, **more,
        }
    )  # fmt: skip


def result(**more: Any) -> Result:
    return Result(**{"about": "start", "shape": "s", **more})


def found(gib: float = 10, **more: Any) -> Found:
    return Found(option(gib, **more), forecast(gib))
