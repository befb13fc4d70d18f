"""What the GPUs are doing, by NVML, with every number possibly missing.

NVML is reached through the module `pynvml` that the package nvidia-ml-py ships; it is imported at
the first reading, so importing this file costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

# The NVML error codes that mean something other than "this number is not to be had" (nvml.h).
_UNINITIALIZED = 1
_NO_PERMISSION = 4
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_GPU_IS_LOST = 15
_RESET_REQUIRED = 16
_LIBRARY_DRIVER_MISMATCH = 18
_STALE = (_UNINITIALIZED, _DRIVER_NOT_LOADED, _LIBRARY_DRIVER_MISMATCH)
_GONE = (_UNINITIALIZED, _DRIVER_NOT_LOADED, _GPU_IS_LOST, _RESET_REQUIRED)

_TEMPERATURE_OF_GPU = 0
_MIG_ENABLED = 1

ON_CPU = "trials run on the CPU"
"""What follows from a missing GPU, in a reading's `problem`, for a study that may choose its devices."""

# The inode of the machine's first pid namespace is fixed (PROC_PID_INIT_INO in proc_ns.h).
_FIRST_PID_NAMESPACE = "pid:[4026531836]"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU.

    In a container `pid` is usually the host's number, which means nothing there: `name` is then
    None. `compute` is False for one that only draws (a display server).
    """

    pid: int
    used_bytes: int | None
    name: str | None
    compute: bool = True


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """One GPU at one moment; None where the driver does not tell.

    `index` is NVML's, which follows the PCI bus. `utilization` is the percentage of the last
    sampling period in which a kernel ran. A GPU in MIG mode is cut into slices and cannot be
    leased as a whole. `capability` is CUDA's compute capability. `memory_reserved` is what the driver
    keeps for itself: part of `memory_total`, not of `memory_used`, and nobody's to take; drivers
    that know only the first form of NVML's answer count it as used.
    """

    index: int
    uuid: str
    name: str
    memory_total: int | None
    memory_used: int | None
    utilization: int | None
    power_watts: float | None
    power_limit_watts: float | None
    temperature_c: int | None
    processes: tuple[GpuProcess, ...]
    mig: bool
    capability: tuple[int, int] | None = None
    memory_reserved: int | None = None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """All GPUs at one moment, and a sentence for the user if some or all could not be read."""

    gpus: tuple[GpuSnapshot, ...]
    problem: str | None = None


class GpuReader(Protocol):
    """Whatever can be asked for the state of the GPUs."""

    def read(self) -> GpuReading:
        """One reading; never raises, a failure is the reading's `problem`."""
        ...


class FakeReader:
    """Plays given readings in order, then repeats the last one, or all of them with `loop`."""

    def __init__(self, frames: Sequence[GpuReading], *, loop: bool = False) -> None:
        if not frames:
            raise ValueError("FakeReader needs at least one reading to play")
        self._frames = tuple(frames)
        self._loop = loop
        self._next = 0

    def read(self) -> GpuReading:
        frame = self._frames[self._next]
        self._next += 1
        if self._next == len(self._frames):
            self._next = 0 if self._loop else self._next - 1
        return frame


class NvmlReader:
    """Reads NVIDIA GPUs through NVML, which stays initialised between readings.

    `nvml` is the module to use instead of `pynvml`; `name_of` tells a process's name from its pid.
    """

    def __init__(
        self, nvml: Any = None, name_of: Callable[[int], str | None] | None = None
    ) -> None:
        # The module is untyped, and a test passes its own.
        self._nvml: Any = nvml
        self._name_of = name_of or process_name
        self._ready = False

    def read(self) -> GpuReading:
        if self._nvml is None:
            try:
                import pynvml
            except ImportError:
                return _none(
                    "GPUs cannot be read: the Python package nvidia-ml-py is not installed."
                )
            self._nvml = pynvml
        try:
            return self._read_all()
        except self._nvml.NVMLError as error:
            self.close()
            if _code(error) not in _STALE:
                return _none(_explain(error))
        # A driver that was reloaded leaves the old session dead: one fresh start is due.
        try:
            return self._read_all()
        except self._nvml.NVMLError as error:
            self.close()
            return _none(_explain(error))

    def close(self) -> None:
        """End the NVML session; the next reading starts a new one."""
        if self._ready:
            self._ready = False
            # A session that a driver reload has already ended cannot be ended again.
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def _read_all(self) -> GpuReading:
        if not self._ready:
            self._nvml.nvmlInit()
            self._ready = True
        gpus: list[GpuSnapshot] = []
        problems: list[str] = []
        count = self._nvml.nvmlDeviceGetCount()
        for index in range(count):
            try:
                gpus.append(self._read_one(index))
            except self._nvml.NVMLError as error:
                if _code(error) in _STALE:
                    raise
                problems.append(_explain_one(index, error))
        if count == 0:
            problems.append(
                "The NVIDIA driver is loaded but shows no GPU here (in a container: was it "
                f"started with access to the GPUs?); {ON_CPU}."
            )
        elif not gpus:
            # Lost GPUs come back only in a session that was begun after their reset.
            self.close()
        return GpuReading(tuple(gpus), " ".join(problems) or None)

    def _read_one(self, index: int) -> GpuSnapshot:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        total, used, reserved = self._memory(handle)
        return GpuSnapshot(
            index=index,
            uuid=uuid,
            name=_text(_attempt(nvml, nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU"),
            memory_total=total,
            memory_used=used,
            utilization=_integer(
                getattr(_attempt(nvml, nvml.nvmlDeviceGetUtilizationRates, handle), "gpu", None)
            ),
            power_watts=_watts(_attempt(nvml, nvml.nvmlDeviceGetPowerUsage, handle)),
            power_limit_watts=_watts(_attempt(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
            temperature_c=_integer(
                _attempt(nvml, nvml.nvmlDeviceGetTemperature, handle, _TEMPERATURE_OF_GPU)
            ),
            processes=self._processes(handle),
            mig=(_attempt(nvml, nvml.nvmlDeviceGetMigMode, handle) or [0])[0] == _MIG_ENABLED,
            capability=_capability(_attempt(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)),
            memory_reserved=reserved,
        )

    def _memory(self, handle: Any) -> tuple[int | None, int | None, int | None]:
        """Total, used and what the driver keeps for itself."""
        # Version 2 leaves out what the driver keeps for itself (hundreds of MiB on a large card),
        # so that an idle GPU reads as empty. Older drivers only know version 1.
        nvml = self._nvml
        version = getattr(nvml, "nvmlMemory_v2", None)
        info = None
        if version is not None:
            info = _attempt(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, version)
        if info is None:
            info = _attempt(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        total, used, reserved = (
            getattr(info, name, None) for name in ("total", "used", "reserved")
        )
        return _integer(total), _integer(used), _integer(reserved)

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...]:
        nvml = self._nvml
        computing = _attempt(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
        drawing = _attempt(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or []
        found: dict[int, GpuProcess] = {}
        for rows, compute in ((computing, True), (drawing, False)):
            for row in rows:
                pid = int(row.pid)
                used = _integer(getattr(row, "usedGpuMemory", None))
                # One that computes and draws is listed twice, with the same memory.
                found.setdefault(pid, GpuProcess(pid, used, self._name_of(pid), compute))
        return tuple(found[pid] for pid in sorted(found))


def visible(gpus: Sequence[GpuSnapshot], env_value: str | None) -> tuple[GpuSnapshot, ...]:
    """The GPUs that a `CUDA_VISIBLE_DEVICES` inherited from the user leaves, in its order.

    None (not set) leaves all, an empty value none. Entries are indexes, UUIDs or unambiguous
    beginnings of UUIDs; as in CUDA the list ends before its first invalid entry (-1 included;
    CUDA Programming Guide, "CUDA Environment Variables"). Slices of a GPU (MIG-...) are no whole
    GPU and end it too. Indexes are read in PCI bus order, which is nvidia-smi's and what trials
    are started with; a GPU named twice counts once.
    """
    if env_value is None:
        return tuple(gpus)
    chosen: list[GpuSnapshot] = []
    for entry in env_value.split(","):
        gpu = _find(gpus, entry.strip())
        if gpu is None:
            break
        if gpu not in chosen:
            chosen.append(gpu)
    return tuple(chosen)


def process_name(pid: int, proc: str = "/proc") -> str | None:
    """What runs under a pid, in a word or two ("python train.py"); None if that is not known.

    In a container NVML gives the host's pids, and the same number may be an innocent process of
    the container: no name is given there.
    """
    try:
        if os.readlink(f"{proc}/self/ns/pid") != _FIRST_PID_NAMESPACE:
            return None
        with open(f"{proc}/{pid}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
    except OSError:
        return None
    program = os.path.basename(words[0])
    if not program:
        return None
    if program.startswith("python"):
        for position, word in enumerate(words[1:], start=1):
            if word == "-m" and position + 1 < len(words):
                return f"{program} -m {words[position + 1]}"
            if word and not word.startswith("-"):
                return f"{program} {os.path.basename(word)}"
            if word == "-c":
                break
    return program


def _find(gpus: Sequence[GpuSnapshot], entry: str) -> GpuSnapshot | None:
    if entry.isdecimal():
        matches = [gpu for gpu in gpus if gpu.index == int(entry)]
    elif entry.upper().startswith("GPU-") and len(entry) > len("GPU-"):
        matches = [gpu for gpu in gpus if gpu.uuid.lower().startswith(entry.lower())]
    else:
        matches = []
    return matches[0] if len(matches) == 1 else None


def _attempt(nvml: Any, query: Callable[..., Any], *arguments: Any) -> Any:
    """The query's answer, or None where this GPU or driver has none; a lost GPU raises."""
    try:
        return query(*arguments)
    except nvml.NVMLError as error:
        if _code(error) in _GONE:
            raise
        return None


def _code(error: Exception) -> int:
    return int(getattr(error, "value", -1))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _capability(answer: Any) -> tuple[int, int] | None:
    return None if answer is None else (int(answer[0]), int(answer[1]))


def _watts(milliwatts: Any) -> float | None:
    return None if milliwatts is None else float(milliwatts) / 1000


def _none(problem: str) -> GpuReading:
    return GpuReading((), problem)


def _explain(error: Exception) -> str:
    sentences = {
        _LIBRARY_NOT_FOUND: f"No NVIDIA driver found on this machine: {ON_CPU}.",
        _DRIVER_NOT_LOADED: (
            f"The NVIDIA driver is installed but not running (nvidia-smi should say why): {ON_CPU}."
        ),
        _NO_PERMISSION: (
            "You may not use the NVIDIA driver here (are /dev/nvidia* readable for you?): "
            f"{ON_CPU}."
        ),
        _LIBRARY_DRIVER_MISMATCH: (
            "The NVIDIA driver was updated while the old one still runs: GPUs can be used again "
            "after a restart of the machine or a reload of the driver."
        ),
    }
    return sentences.get(_code(error), f"The NVIDIA driver does not answer: {error}.")


def _explain_one(index: int, error: Exception) -> str:
    if _code(error) == _GPU_IS_LOST:
        return f"GPU {index} has fallen off the bus: the machine needs a restart to use it again."
    if _code(error) == _RESET_REQUIRED:
        return f"GPU {index} has failed and needs a reset (nvidia-smi --gpu-reset) to work again."
    if _code(error) == _NO_PERMISSION:
        return f"GPU {index} may not be read by you."
    return f"GPU {index} does not answer: {error}."
