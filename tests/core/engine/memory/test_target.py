"""Which device a run is forecast for, and what it may take of it."""

from typing import Any

import pytest

from core.devices.gpu import GpuSnapshot
from core.devices.host import HostSnapshot
from core.engine.memory.target import best_gpu, expandable_segments, imagined, target_from
from core.memory.forecast import GIB
from core.profile import Profile, from_document


def profile(**tables: dict[str, Any]) -> Profile:
    return from_document(
        {"model": {"model_name_or_path": "demo"}, "data": {"dataset": "demo"}, **tables}
    )


def gpu(index: int = 0, used: int = 0, **more: Any) -> GpuSnapshot:
    return GpuSnapshot(
        **{
            "index": index, "uuid": f"GPU-{index}", "name": "Fake", "memory_total": 24 * GIB, "memory_used": used,
            "utilization": 0, "power_watts": None, "power_limit_watts": None, "temperature_c": None, "processes": (),
            "mig": False, **more,
        }
    )  # fmt: skip


def host(**more: Any) -> HostSnapshot:
    return HostSnapshot(
        **{
            "cpu_percent": 0.0, "cores": 4, "ram_total": 64 * GIB, "ram_used": 14 * GIB, "ram_limit": None,
            "ram_limit_used": None, "swap_total": 0, "swap_used": 0, "load1": 0.0, **more,
        }
    )  # fmt: skip


def test_what_others_and_the_driver_hold_of_a_gpu_is_not_free() -> None:
    snapshot = gpu(used=3 * GIB, memory_reserved=GIB, capability=(8, 6))
    made = target_from(snapshot, profile(), environment={})
    assert made is not None
    assert (made.kind, made.name, made.capability) == ("cuda", "Fake", (8, 6))
    assert (made.total, made.free) == (23 * GIB, 20 * GIB)
    assert made.limit is None
    assert made.context is None
    assert not made.expandable


def test_a_cap_on_a_gpu_is_the_allocators() -> None:
    made = target_from(gpu(), profile(memory={"limit_gib": 4.5}), environment={}, context=GIB)
    assert made is not None
    assert made.limit == int(4.5 * GIB)
    assert made.free == 24 * GIB
    assert made.context == GIB


def test_a_gpu_that_tells_no_memory_is_no_target() -> None:
    assert target_from(gpu(memory_total=None), profile()) is None


def test_the_cpu_gives_what_is_available_and_no_more_than_its_group() -> None:
    made = target_from(None, profile(), host())
    assert made is not None
    assert (made.kind, made.total, made.free) == ("cpu", 64 * GIB, 50 * GIB)
    grouped = target_from(None, profile(), host(ram_limit=16 * GIB, ram_limit_used=15 * GIB))
    assert grouped is not None
    assert (grouped.total, grouped.free) == (16 * GIB, 16 * GIB)


def test_a_cap_on_the_cpu_counts_the_whole_process() -> None:
    made = target_from(None, profile(memory={"limit_gib": 2.0}), host())
    assert made is not None
    assert made.free == 2 * GIB
    assert made.limit is None


def test_this_machine_can_be_read() -> None:
    made = target_from(None, profile())
    assert made is not None
    assert 0 < made.free <= made.total


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,expandable_segments:true"}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}, False),
        (
            {
                "PYTORCH_ALLOC_CONF": "expandable_segments:False",
                "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            },
            False,
        ),
        ({"PYTORCH_ALLOC_CONF": "", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, True),
    ],
)
def test_the_allocators_settings_are_read_from_the_environment(
    environment: dict[str, str], expected: bool
) -> None:
    assert expandable_segments(environment) is expected
    made = target_from(gpu(), profile(), environment=environment)
    assert made is not None and made.expandable is expected


def test_a_gpu_that_is_not_here_has_a_little_less_than_its_name_says() -> None:
    made = imagined(24, profile(memory={"limit_gib": 8.0}), environment={})
    assert 23 * GIB < made.free == made.total < 24 * GIB
    assert made.limit == 8 * GIB
    assert "24 GiB" in made.name


def test_the_best_gpu_is_the_emptiest_that_the_study_may_use() -> None:
    gpus = [gpu(0, 8 * GIB), gpu(1, GIB), gpu(2, 0), gpu(3, 0, mig=True)]
    chosen = best_gpu(gpus, profile(), None)
    assert chosen is not None and chosen.index == 2
    chosen = best_gpu(gpus, profile(), "0,1")
    assert chosen is not None and chosen.index == 1
    chosen = best_gpu(gpus, profile(resources={"devices": [0]}), None)
    assert chosen is not None and chosen.index == 0
    assert best_gpu(gpus, profile(resources={"devices": "cpu"}), None) is None
    assert best_gpu(gpus, profile(), "") is None
    assert best_gpu([gpu(3, mig=True)], profile(), None) is None
