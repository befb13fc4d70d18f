from __future__ import annotations

import os

import pytest

from core.devices import host
from core.devices.cgroup import MemoryLimit
from core.devices.host import HostReader


def test_a_reading_of_this_machine_makes_sense() -> None:
    snapshot = HostReader().read()
    assert 0 <= snapshot.cpu_percent <= 100
    assert snapshot.cores == len(os.sched_getaffinity(0))
    assert 0 < snapshot.ram_used < snapshot.ram_total
    assert 0 <= snapshot.swap_used <= snapshot.swap_total
    assert snapshot.load1 >= 0


def test_a_limit_below_the_machines_memory_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "read_memory_limit", lambda: MemoryLimit(1 << 20, 1 << 10))
    snapshot = HostReader().read()
    assert (snapshot.ram_limit, snapshot.ram_limit_used) == (1 << 20, 1 << 10)


def test_a_limit_above_the_machines_memory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "read_memory_limit", lambda: MemoryLimit(1 << 59, 1))
    snapshot = HostReader().read()
    assert (snapshot.ram_limit, snapshot.ram_limit_used) == (None, None)
