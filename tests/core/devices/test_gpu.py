from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.devices.gpu import (
    FakeReader,
    GpuProcess,
    GpuReading,
    GpuSnapshot,
    NvmlReader,
    process_name,
    visible,
)

GIB = 1 << 30
UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 1, 3, 4, 9
LIBRARY_NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED, MISMATCH, UNKNOWN = 12, 15, 16, 18, 999
FUNCTION_NOT_FOUND = 13


class FakeError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class FakeNvml:
    """Stands in for pynvml: two GPUs, and an error code for any function that shall fail.

    A failure is keyed by the function's name, or by its name and the GPU's index.
    """

    failures: dict[str | tuple[str, int], int] = field(default_factory=dict)
    count: int = 2
    compute: list[Any] = field(default_factory=list)
    graphics: list[Any] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    NVMLError: type[Exception] = FakeError
    nvmlMemory_v2: int = 2  # noqa: N815 - NVML's own name

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            keys: list[str | tuple[str, int]] = [name]
            if arguments:
                keys.append((name, arguments[0]))
            for key in keys:
                if key in self.failures:
                    raise FakeError(self.failures[key])
            return self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        return {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetCount": self.count,
            "nvmlDeviceGetHandleByIndex": arguments[0] if arguments else None,
            "nvmlDeviceGetUUID": f"GPU-{arguments[0]}a" if arguments else None,
            "nvmlDeviceGetName": b"NVIDIA Test",
            "nvmlDeviceGetMemoryInfo": _memory(second_version=len(arguments) > 1),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37, memory=12),
            "nvmlDeviceGetPowerUsage": 61500,
            "nvmlDeviceGetEnforcedPowerLimit": 300000,
            "nvmlDeviceGetTemperature": 44,
            "nvmlDeviceGetComputeRunningProcesses": self.compute,
            "nvmlDeviceGetGraphicsRunningProcesses": self.graphics,
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlDeviceGetCudaComputeCapability": [8, 6],
        }[name]


def _memory(*, second_version: bool) -> SimpleNamespace:
    """Only the second version of the answer tells the driver's own share from what programs use."""
    if second_version:
        return SimpleNamespace(total=8 * GIB, used=GIB, reserved=GIB)
    return SimpleNamespace(total=8 * GIB, used=2 * GIB)


def reader(nvml: FakeNvml) -> NvmlReader:
    return NvmlReader(nvml, name_of=lambda pid: f"program {pid}")


def gpu(index: int, uuid: str | None = None) -> GpuSnapshot:
    return GpuSnapshot(
        index, uuid or f"GPU-{index}", "T", GIB, 0, 0, None, None, None, (), mig=False
    )


def test_everything_a_driver_tells_is_read_in_our_units() -> None:
    nvml = FakeNvml(compute=[SimpleNamespace(pid=7, usedGpuMemory=5)])
    reading = reader(nvml).read()
    assert reading.problem is None
    assert reading.gpus[1] == GpuSnapshot(
        index=1,
        uuid="GPU-1a",
        name="NVIDIA Test",
        memory_total=8 * GIB,
        memory_used=GIB,
        utilization=37,
        power_watts=61.5,
        power_limit_watts=300.0,
        temperature_c=44,
        processes=(GpuProcess(7, 5, "program 7"),),
        mig=False,
        capability=(8, 6),
        memory_reserved=GIB,
    )


OPTIONAL = {
    "nvmlDeviceGetUtilizationRates": "utilization",
    "nvmlDeviceGetPowerUsage": "power_watts",
    "nvmlDeviceGetEnforcedPowerLimit": "power_limit_watts",
    "nvmlDeviceGetTemperature": "temperature_c",
    "nvmlDeviceGetMemoryInfo": "memory_used",
    "nvmlDeviceGetCudaComputeCapability": "capability",
}


@given(st.dictionaries(st.sampled_from(sorted(OPTIONAL)), st.sampled_from([3, 4, 6, 13, 25, 999])))
def test_any_number_may_be_missing_without_harm_to_the_others(failures: dict[Any, int]) -> None:
    reading = reader(FakeNvml(failures)).read()
    assert len(reading.gpus) == 2 and reading.problem is None
    for query, name in OPTIONAL.items():
        assert (getattr(reading.gpus[0], name) is None) == (query in failures)


def test_name_processes_and_mig_may_be_missing_too() -> None:
    names = ("Name", "ComputeRunningProcesses", "GraphicsRunningProcesses", "MigMode")
    nvml = FakeNvml({f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in names})
    first = reader(nvml).read().gpus[0]
    assert (first.name, first.processes, first.mig) == ("NVIDIA GPU", (), False)


def test_an_old_driver_tells_its_memory_in_the_old_way() -> None:
    class OldNvml(FakeNvml):
        def _answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
            if name == "nvmlDeviceGetMemoryInfo" and len(arguments) > 1:
                raise FakeError(FUNCTION_NOT_FOUND)
            return super()._answer(name, arguments)

    old = reader(OldNvml()).read().gpus[0]
    assert (old.memory_used, old.memory_reserved) == (2 * GIB, None)


def test_a_process_that_computes_and_draws_is_listed_once_as_computing() -> None:
    row = SimpleNamespace(pid=9, usedGpuMemory=None)
    drawing = SimpleNamespace(pid=3, usedGpuMemory=100)
    nvml = FakeNvml(compute=[row], graphics=[row, drawing])
    assert reader(nvml).read().gpus[0].processes == (
        GpuProcess(3, 100, "program 3", compute=False),
        GpuProcess(9, None, "program 9", compute=True),
    )


def test_a_gpu_in_mig_mode_is_listed_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml({"nvmlDeviceGetMemoryInfo": NO_PERMISSION})
    monkeypatch.setattr(
        nvml,
        "nvmlDeviceGetMigMode",
        lambda handle: [1, 1] if handle == 0 else [0, 1],
        raising=False,
    )
    assert [entry.mig for entry in reader(nvml).read().gpus] == [True, False]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (LIBRARY_NOT_FOUND, "No NVIDIA driver found on this machine"),
        (DRIVER_NOT_LOADED, "not running"),
        (NO_PERMISSION, "may not use"),
        (MISMATCH, "was updated"),
        (UNKNOWN, "does not answer"),
    ],
)
def test_without_a_working_driver_there_is_a_sentence_and_no_gpu(code: int, words: str) -> None:
    reading = reader(FakeNvml({"nvmlInit": code})).read()
    assert reading.gpus == ()
    assert reading.problem is not None and words in reading.problem


def test_a_machine_whose_driver_shows_no_gpu_is_said() -> None:
    reading = reader(FakeNvml(count=0)).read()
    assert reading.gpus == () and "shows no GPU" in (reading.problem or "")


@pytest.mark.parametrize(
    ("code", "words"),
    [(GPU_IS_LOST, "fallen off"), (RESET_REQUIRED, "reset"), (NO_PERMISSION, "may not be read")],
)
def test_one_failed_gpu_is_left_out_and_explained(code: int, words: str) -> None:
    reading = reader(FakeNvml({("nvmlDeviceGetUUID", 0): code})).read()
    assert [entry.index for entry in reading.gpus] == [1]
    assert reading.problem is not None
    assert "GPU 0" in reading.problem and words in reading.problem


def test_a_gpu_lost_in_the_middle_of_a_reading_is_left_out() -> None:
    reading = reader(FakeNvml({("nvmlDeviceGetTemperature", 1): GPU_IS_LOST})).read()
    assert [entry.index for entry in reading.gpus] == [0]


def test_the_session_is_kept_between_readings() -> None:
    nvml = FakeNvml()
    ours = reader(nvml)
    ours.read()
    ours.read()
    assert nvml.calls.count("nvmlInit") == 1
    ours.close()
    assert nvml.calls.count("nvmlShutdown") == 1


def test_a_driver_that_was_reloaded_is_read_in_a_new_session() -> None:
    nvml = FakeNvml()
    ours = reader(nvml)
    ours.read()
    nvml.failures = {"nvmlDeviceGetCount": UNINITIALIZED, "nvmlShutdown": UNINITIALIZED}
    assert ours.read().gpus == ()
    nvml.failures = {}
    assert len(ours.read().gpus) == 2
    assert nvml.calls.count("nvmlInit") == 3


def test_gpus_that_are_all_lost_are_looked_for_in_a_new_session() -> None:
    nvml = FakeNvml({"nvmlDeviceGetUUID": GPU_IS_LOST})
    ours = reader(nvml)
    assert ours.read().gpus == ()
    nvml.failures = {}
    assert len(ours.read().gpus) == 2
    assert nvml.calls.count("nvmlInit") == 2


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pynvml":
            raise ImportError(name)
        return real_import(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "nvidia-ml-py" in (NvmlReader().read().problem or "")


def test_the_real_library_answers_or_says_why_not() -> None:
    reading = NvmlReader().read()
    assert reading.gpus or reading.problem


def test_a_fake_reader_plays_its_readings_and_holds_or_repeats() -> None:
    one, two = GpuReading((gpu(0),)), GpuReading((), "gone")
    holding = FakeReader([one, two])
    assert [holding.read() for _ in range(3)] == [one, two, two]
    looping = FakeReader([one, two], loop=True)
    assert [looping.read() for _ in range(3)] == [one, two, one]
    with pytest.raises(ValueError, match="at least one"):
        FakeReader([])


ALL = (gpu(0, "GPU-aa01"), gpu(1, "GPU-aa02"), gpu(2, "GPU-bb03"))


@pytest.mark.parametrize(
    ("value", "indexes"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,2,-1,1", [0, 2]),
        ("0,7,1", [0]),
        ("0,,1", [0]),
        ("1,1,0", [1, 0]),
        ("GPU-bb03,GPU-aa01", [2, 0]),
        ("GPU-bb", [2]),
        ("gpu-BB", [2]),
        ("GPU-aa,2", []),
        ("GPU-", []),
        ("0,MIG-1234,1", [0]),
        ("1.5", []),
    ],
)
def test_the_users_visible_devices_are_read_as_cuda_reads_them(
    value: str | None, indexes: list[int]
) -> None:
    assert [entry.index for entry in visible(ALL, value)] == indexes


@given(st.text())
def test_no_value_of_the_variable_breaks_or_invents_a_gpu(value: str) -> None:
    chosen = visible(ALL, value)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(ALL)


def fake_proc(tmp_path: Path, namespace: str, command: bytes) -> str:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to(namespace)
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "cmdline").write_bytes(command)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (b"/usr/bin/python3\0-u\0/home/me/train.py\0--lr\0", "python3 train.py"),
        (b"python\0-m\0torch.distributed.run\0x.py\0", "python -m torch.distributed.run"),
        (b"python\0-c\0import torch\0", "python"),
        (b"/usr/lib/xorg/Xorg\0:0\0", "Xorg"),
        (b"", None),
    ],
)
def test_a_process_is_named_by_what_it_runs(
    tmp_path: Path, command: bytes, name: str | None
) -> None:
    assert process_name(5, fake_proc(tmp_path, "pid:[4026531836]", command)) == name


def test_in_a_container_no_name_is_guessed(tmp_path: Path) -> None:
    assert process_name(5, fake_proc(tmp_path, "pid:[4026532999]", b"innocent\0")) is None


def test_a_process_that_is_gone_has_no_name() -> None:
    assert process_name(2**22 + 1) is None
