import os
from pathlib import Path
from typing import Any

import pytest

from core.devices.gpu import FakeReader, GpuProcess, GpuReading, GpuSnapshot
from core.devices.lease import lease_path
from core.devices.lock import try_lock
from core.engine.supply import Pool
from core.params import ResourcesTable

SAMPLES = 3


def gpu(index: int, used: int = 0, **more: Any) -> GpuSnapshot:
    return GpuSnapshot(
        **{
            "index": index, "uuid": f"GPU-{index}", "name": "Fake", "memory_total": 8 << 30, "memory_used": used,
            "utilization": 0, "power_watts": None, "power_limit_watts": None, "temperature_c": None, "processes": (),
            "mig": False, **more,
        }
    )  # fmt: skip


def reading(*gpus: GpuSnapshot, problem: str | None = None) -> GpuReading:
    return GpuReading(gpus, problem)


def pool(
    *readings: GpuReading, cuda: str | None = None, used: bool = False, **resources: Any
) -> Pool:
    return Pool(ResourcesTable(**resources), FakeReader(readings), cuda, used)


def look(made: Pool, times: int = SAMPLES, ours: tuple[str, ...] = ()) -> Any:
    for _ in range(times - 1):
        made.look(ours)
    return made.look(ours)


def test_without_a_gpu_the_cpu_is_used_and_its_cores_are_shared_out() -> None:
    made = pool(reading(problem="no driver"), parallel=2)
    assert (made.look(()).device, made.look(()).most) == ("cpu", 2)
    assert made.threads == max(1, len(os.sched_getaffinity(0)) // 2)


def test_on_the_cpu_one_trial_runs_at_a_time_unless_more_are_wanted() -> None:
    assert pool(reading(gpu(0)), devices="cpu").look(()).most == 1


def test_gpus_are_free_after_three_quiet_readings() -> None:
    made = pool(reading(gpu(0), gpu(1)))
    assert [made.look(()).free for _ in range(3)] == [(), (), ("GPU-0", "GPU-1")]
    assert made.look(()).most == 2
    assert made.threads is None


def test_a_busy_gpu_is_left_alone_and_named() -> None:
    process = GpuProcess(123, 1 << 30, "python train.py")
    made = pool(reading(gpu(0, used=40 << 30), gpu(1, processes=(process,)), gpu(2)))
    supply = look(made)
    assert supply.free == ("GPU-2",)
    assert supply.waiting == (
        "waiting for a free GPU; GPU 0: 40.0 GiB of its memory are in use; "
        "GPU 1: python train.py (pid 123) computes on it"
    )


def test_a_gpu_that_another_study_leases_is_not_free() -> None:
    held = try_lock(lease_path("GPU-0"))
    assert held is not None
    supply = look(pool(reading(gpu(0), gpu(1))))
    os.close(held)
    assert supply.free == ("GPU-1",)
    assert "GPU 0: another study uses it" in supply.waiting


def test_our_own_gpus_are_neither_free_nor_foreign() -> None:
    supply = look(pool(reading(gpu(0, used=40 << 30), gpu(1))), ours=("GPU-0",))
    assert (supply.free, supply.waiting) == (("GPU-1",), "")


def test_a_gpu_that_was_given_back_is_watched_anew() -> None:
    made = pool(reading(gpu(0)))
    assert look(made).free == ("GPU-0",)
    made.released("GPU-0")
    assert [made.look(()).free for _ in range(3)] == [(), (), ("GPU-0",)]


def test_only_the_gpus_that_the_user_was_given_are_used() -> None:
    assert look(pool(reading(gpu(0), gpu(1), gpu(2)), cuda="2,0")).free == ("GPU-2", "GPU-0")
    assert not pool(reading(gpu(0)), cuda="").on_gpu


@pytest.mark.parametrize("devices", [[1], ["GPU-1"]])
def test_the_profile_may_name_gpus_by_number_or_uuid(devices: list[int | str]) -> None:
    assert look(pool(reading(gpu(0), gpu(1)), devices=devices)).free == ("GPU-1",)


def test_the_profile_cannot_name_a_gpu_that_the_user_was_not_given() -> None:
    supply = look(pool(reading(gpu(0), gpu(1)), devices=[1], cuda="0"))
    assert supply.free == ()
    assert supply.waiting == (
        "waiting for a free GPU; none of the GPUs 1 of resources.devices can be seen here (CUDA_VISIBLE_DEVICES=0)"
    )


def test_a_study_that_used_gpus_waits_for_them_instead_of_going_on_slowly() -> None:
    problem = "No NVIDIA driver found on this machine: trials run on the CPU."
    supply = pool(reading(problem=problem), used=True).look(())
    assert (supply.device, supply.free, supply.waiting) == (
        "cuda",
        (),
        "waiting for a free GPU; no GPU can be seen here (No NVIDIA driver found on this machine)",
    )


def test_readings_from_before_a_rest_do_not_make_a_gpu_free() -> None:
    rested = pool(reading(gpu(0)))
    assert look(rested).free == ("GPU-0",)
    rested.rest()
    assert [rested.look(()).free for _ in range(3)] == [(), (), ("GPU-0",)]


def test_a_lease_folder_that_cannot_be_used_does_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEDECK_LEASE_DIR", str(tmp_path / "file"))
    assert look(pool(reading(gpu(0)))).free == ("GPU-0",)


@pytest.mark.parametrize("cuda", ["MIG-1234", "7", "GPU-unknown"])
def test_gpus_that_go_unused_by_what_looks_like_a_mistake_are_told_of(cuda: str) -> None:
    made = pool(reading(gpu(0)), cuda=cuda)
    assert not made.on_gpu
    assert made.notice is not None
    assert f"CUDA_VISIBLE_DEVICES={cuda}" in made.notice


@pytest.mark.parametrize(
    ("cuda", "more"), [("", {}), ("-1", {}), ("7", {"devices": "cpu"}), ("0", {}), (None, {})]
)
def test_gpus_that_are_used_or_hidden_on_purpose_are_no_news(cuda: str | None, more: Any) -> None:
    assert pool(reading(gpu(0)), cuda=cuda, **more).notice is None


def test_a_gpu_is_known_as_it_is_when_nobody_computes_on_it() -> None:
    idle, busy = gpu(0, used=300 << 20), gpu(0, used=40 << 30)
    made = pool(reading(idle), reading(busy))
    look(made)
    assert made.idle_gpus() == (idle,)


def test_of_a_gpu_that_was_never_seen_idle_nothing_is_taken_off() -> None:
    made = pool(reading(gpu(0, used=40 << 30), gpu(1, mig=True)))
    look(made)
    assert made.idle_gpus() == (gpu(0, used=0),)
    assert made.most == 1


def test_a_gpu_that_is_missing_from_a_reading_is_still_known() -> None:
    made = pool(reading(gpu(0), gpu(1)), reading(gpu(0)))
    look(made)
    assert [g.uuid for g in made.idle_gpus()] == ["GPU-0", "GPU-1"]


def test_the_gpus_are_read_when_nobody_has_looked_yet() -> None:
    assert [g.uuid for g in pool(reading(gpu(0)), devices=[0]).idle_gpus()] == ["GPU-0"]


def test_trials_of_several_gpus_share_them_out() -> None:
    four = reading(*(gpu(n) for n in range(4)))
    made = pool(four, gpus_per_trial=2)
    supply = look(made)
    assert (supply.most, made.most, supply.each, supply.total) == (2, 2, 2, 4)
    assert pool(reading(gpu(0)), gpus_per_trial=2).look(()).most == 1


def test_a_gpu_that_is_missing_for_a_moment_counts_among_those_there_are() -> None:
    made = pool(reading(gpu(0), gpu(1)), reading(gpu(0)), gpus_per_trial=2)
    assert [made.look(()).total for _ in range(2)] == [2, 2]
