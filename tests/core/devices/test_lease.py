from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from core.devices.gpu import GpuProcess, GpuReading, GpuSnapshot
from core.devices.lease import (
    FreeWatch,
    busy_reason,
    choose,
    is_free,
    lease_environment,
    lease_path,
)
from core.devices.lock import LockError, is_locked, try_lock

MIB, GIB = 1 << 20, 1 << 30
IDLE = GpuSnapshot(0, "GPU-a", "T", 80 * GIB, 4 * MIB, 0, 60.0, 700.0, 30, (), mig=False)
FULL = replace(IDLE, memory_used=40 * GIB)


def other(snapshot: GpuSnapshot, uuid: str) -> GpuSnapshot:
    return replace(snapshot, uuid=uuid)


def test_a_gpu_is_free_only_after_three_idle_samples_in_a_row() -> None:
    assert not is_free([IDLE, IDLE])
    assert is_free([IDLE, IDLE, IDLE])
    assert not is_free([IDLE, FULL, IDLE, IDLE])
    assert is_free([FULL, IDLE, IDLE, IDLE])
    assert not is_free([])


def test_the_floor_can_be_set() -> None:
    assert is_free([FULL] * 3, used_floor_bytes=50 * GIB)
    assert not is_free([IDLE] * 3, used_floor_bytes=MIB)


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (IDLE, None),
        (replace(IDLE, memory_used=GIB - 1), None),
        (replace(IDLE, memory_used=GIB), "1.0 GiB of its memory are in use"),
        (replace(IDLE, mig=True), "it is cut into MIG slices"),
        (
            replace(IDLE, processes=(GpuProcess(12, None, "python train.py"),)),
            "python train.py (pid 12) computes on it",
        ),
        (
            replace(IDLE, processes=(GpuProcess(12, None, None),)),
            "another program (pid 12) computes on it",
        ),
        (replace(IDLE, processes=(GpuProcess(9, 300 * MIB, "Xorg", compute=False),)), None),
        (replace(IDLE, memory_used=None), None),
        (replace(IDLE, memory_used=None, utilization=80), "it is 80 % busy"),
        (
            replace(IDLE, memory_used=None, utilization=None),
            "the driver tells neither its memory nor its load",
        ),
    ],
)
def test_a_busy_gpu_says_what_it_is_busy_with(snapshot: GpuSnapshot, reason: str | None) -> None:
    assert busy_reason(snapshot) == reason


def test_the_watch_follows_every_gpu_by_itself() -> None:
    watch = FreeWatch()
    second = other(FULL, "GPU-b")
    assert watch.push(GpuReading((IDLE, second))) == frozenset()
    assert watch.push(GpuReading((IDLE, second))) == frozenset()
    assert watch.push(GpuReading((IDLE, second))) == {"GPU-a"}
    for _ in range(2):
        assert watch.push(GpuReading((IDLE, other(IDLE, "GPU-b")))) == {"GPU-a"}
    assert watch.push(GpuReading((IDLE, other(IDLE, "GPU-b")))) == {"GPU-a", "GPU-b"}
    assert watch.push(GpuReading((FULL, other(IDLE, "GPU-b")))) == {"GPU-b"}


def test_a_gpu_that_was_away_or_is_forgotten_begins_anew() -> None:
    watch = FreeWatch()
    for _ in range(3):
        free = watch.push(GpuReading((IDLE,)))
    assert free == {"GPU-a"}
    watch.push(GpuReading((), "the driver does not answer"))
    assert watch.push(GpuReading((IDLE,))) == frozenset()
    watch.push(GpuReading((IDLE,)))
    assert watch.push(GpuReading((IDLE,))) == {"GPU-a"}
    watch.forget("GPU-a")
    assert watch.push(GpuReading((IDLE,))) == frozenset()


def test_gpus_are_chosen_in_the_allowed_order_among_the_free() -> None:
    free, allowed = {"a", "b", "c"}, ("c", "d", "b", "a")
    assert choose(free, set(), 1, allowed) == ("c",)
    assert choose(free, {"c"}, 2, allowed) == ("b", "a")
    assert choose(free, {"c"}, 3, allowed) is None
    assert choose(free, set(), 2, ("a", "a")) is None
    assert choose(free, set(), 0, allowed) == ()


def test_the_lease_folder_is_everybodys_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        path = lease_path("GPU-a", tmp_path / "leases")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o1777


def test_two_studies_never_hold_the_same_gpu(tmp_path: Path) -> None:
    first = try_lock(lease_path("GPU-a", tmp_path))
    assert first is not None
    assert try_lock(lease_path("GPU-a", tmp_path)) is None
    second = try_lock(lease_path("GPU-b", tmp_path))
    assert second is not None
    os.close(first)
    assert not is_locked(lease_path("GPU-a", tmp_path))
    os.close(second)


def test_the_folder_can_be_moved_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEDECK_LEASE_DIR", str(tmp_path / "elsewhere"))
    assert lease_path("GPU-a") == tmp_path / "elsewhere" / "GPU-a.lock"


def test_a_uuid_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    assert lease_path("../../etc/x", tmp_path).parent == tmp_path


def test_a_folder_that_cannot_be_made_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LockError, match="Set TUNEDECK_LEASE_DIR"):
            lease_path("GPU-a", root)


def test_a_lease_names_gpus_by_uuid_in_bus_order() -> None:
    assert lease_environment(["GPU-b", "GPU-a"]) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_lease_of_nothing_hides_every_gpu() -> None:
    assert lease_environment([]) == {"CUDA_VISIBLE_DEVICES": ""}
