"""How busy a device is."""

import time
from typing import Any

import pytest
import torch

from core.devices.gpu import FakeReader, GpuReading, GpuSnapshot
from core.train.utilisation import Utilisation


class Clock:
    """A wall clock and a CPU clock that stand until they are moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.cpu = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.wall)
        monkeypatch.setattr(time, "process_time", lambda: self.cpu)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_cpu_is_as_busy_as_the_threads_that_may_compute(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    used = Utilisation("cpu")
    clock.wall, clock.cpu = clock.wall + 10, clock.cpu + 10
    assert used.now() == 0.25
    clock.wall, clock.cpu = clock.wall + 2, clock.cpu + 6
    assert used.now() == 0.75, "since it was last asked"
    clock.wall, clock.cpu = clock.wall + 1, clock.cpu + 9
    assert used.now() == 1.0
    assert used.now() is None, "no time has passed"


def gpu(name: str, busy: int | None) -> GpuSnapshot:
    known: dict[str, Any] = dict.fromkeys(GpuSnapshot.__dataclass_fields__)
    return GpuSnapshot(
        **known | {"index": 0, "uuid": name, "utilization": busy, "processes": (), "mig": False}
    )


def test_the_gpu_is_as_busy_as_the_driver_says(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    frames = [GpuReading((gpu("GPU-a", 5), gpu("GPU-b", busy))) for busy in (80, 30, None)]
    used = Utilisation("cuda", FakeReader(frames))
    assert used.now() == 0.8
    clock.wall += 0.2
    assert used.now() == 0.8, "the driver's own period is not over"
    clock.wall += 1
    assert used.now() == 0.3
    clock.wall += 1
    assert used.now() is None


def test_a_gpu_that_cannot_be_asked_is_no_failure(clock: Clock) -> None:
    assert Utilisation("cuda", FakeReader([GpuReading((), "no driver")])).now() is None
