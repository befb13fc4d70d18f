"""A GPU for a command: one that nobody computes on, held as a trial holds one, so that no trial starts on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from core.devices.gpu import GpuReader, GpuSnapshot, NvmlReader, visible
from core.devices.lease import busy_reason, lease_environment, lease_path
from core.devices.lock import LockError, try_lock
from core.engine.client import EngineError
from core.study.after import Device

Asked = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Borrowed:
    """Where a command computes."""

    device: Device
    environment: dict[str, str] = field(default_factory=dict)
    """What its process gets besides."""
    note: str = ""
    """Why it is not where a person may expect it, as a sentence; empty where it is."""


@contextmanager
def borrowed(asked: Asked, reader: GpuReader | None = None) -> Iterator[Borrowed]:
    """The CPU, or a free GPU for as long as the context lasts; `auto` takes a GPU where one is free.

    Raises:
        EngineError: a GPU is asked for, and none is free; the message says why.
    """
    if asked == "cpu":
        yield Borrowed("cpu")
        return
    gpus = visible((reader or NvmlReader()).read().gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    gpu, held, why = _take(gpus)
    if gpu is None:
        if asked == "cuda":
            raise EngineError(why)
        yield Borrowed("cpu", note=f"{why}: it runs on the CPU" if gpus else "")
        return
    try:
        yield Borrowed("cuda", lease_environment([gpu.uuid]))
    finally:
        if held is not None:
            os.close(held)


def _take(gpus: tuple[GpuSnapshot, ...]) -> tuple[GpuSnapshot | None, int | None, str]:
    """The free GPU with the most memory and what holds it, or why there is none."""
    if not gpus:
        return None, None, "no GPU is to be seen here"
    reasons = []
    for gpu in sorted(gpus, key=lambda g: -(g.memory_total or 0)):
        reason = busy_reason(gpu)
        if reason is None:
            try:
                held = try_lock(lease_path(gpu.uuid))
            except LockError as error:
                return None, None, str(error)
            if held is not None:
                return gpu, held, ""
            reason = "a trial has it"
        reasons.append(f"GPU {gpu.index}: {reason}")
    return None, None, f"no GPU is free ({'; '.join(reasons)})"
