"""What the GPUs screen shows: frozen views of devices, computed from readings and from the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.devices.gpu import GpuSnapshot
from tui import words
from tui.snapshot import StudyView

if TYPE_CHECKING:
    from core.devices.host import HostSnapshot

Measure = tuple[float | None, str]
"""A percentage (None: not told) and how it is written."""


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """A process on a GPU. `trial` is ours, None where it is somebody else's or not known."""

    text: str
    memory: str
    trial: int | None


@dataclass(frozen=True, slots=True)
class Expected:
    """The memory of a GPU against a forecast, as shares of the GPU, 0 … 1, and in words."""

    used: float
    forecast: float
    text: str


@dataclass(frozen=True, slots=True)
class GpuView:
    """A GPU: four measures, who was given it, and its processes."""

    uuid: str
    title: str
    memory: Measure
    load: Measure
    power: Measure
    temperature: Measure
    leased: tuple[int, ...]
    """The open study's live trials that were given it."""
    expected: Expected | None
    """What those trials were forecast to need of it; None where one of them has no forecast."""
    processes: tuple[ProcessLine, ...]


@dataclass(frozen=True, slots=True)
class HostView:
    """The machine's processor and memory."""

    cpu: Measure
    ram: Measure
    swap: Measure | None


def gpu_view(
    gpu: GpuSnapshot, study: StudyView | None, ancestors: Mapping[int, Sequence[int]]
) -> GpuView:
    """A GPU as it is shown; `ancestors` names the processes above each process, where known."""
    leased = tuple(_holders(gpu.uuid, study))
    shims = _shims(study)
    lines = []
    for process in gpu.processes:
        above = (process.pid, *ancestors.get(process.pid, ()))
        trial = next((shims[pid] for pid in above if pid in shims), None)
        name = process.name or "a process"
        text = f"trial {trial}" if trial is not None else f"{name}  pid {process.pid}"
        if not process.compute:
            text += "  (draws only)"
        lines.append(ProcessLine(text, words.size(process.used_bytes) or "n/a", trial))
    name = gpu.name + ("  in MIG slices: not used by trials" if gpu.mig else "")
    return GpuView(
        uuid=gpu.uuid,
        title=f"GPU {gpu.index}  {name}",
        memory=_of(gpu.memory_used, gpu.memory_total, words.GIB, "GiB", 1),
        load=(
            _float(gpu.utilization),
            "n/a" if gpu.utilization is None else f"{gpu.utilization} %",
        ),
        power=_of(gpu.power_watts, gpu.power_limit_watts, 1, "W", 0),
        temperature=(
            _float(gpu.temperature_c),
            "n/a" if gpu.temperature_c is None else f"{gpu.temperature_c} C",
        ),
        leased=leased,
        expected=_expected(gpu, leased, study),
        processes=tuple(lines),
    )


def host_view(host: "HostSnapshot") -> HostView:
    """Processor and memory as they are shown; a container's memory limit counts as its memory."""
    cores = words.plural(host.cores, "core")
    used, total = host.ram_used, host.ram_total
    if host.ram_limit is not None and host.ram_limit_used is not None:
        used, total = host.ram_limit_used, host.ram_limit
    swap = None
    if host.swap_used > host.swap_total / 100 > 0:
        swap = _of(host.swap_used, host.swap_total, words.GIB, "GiB", 1)
    return HostView(
        cpu=(host.cpu_percent, f"{host.cpu_percent:.0f} % of {cores}"),
        ram=_of(used, total, words.GIB, "GiB", 1),
        swap=swap,
    )


def _expected(gpu: GpuSnapshot, leased: Sequence[int], study: StudyView | None) -> Expected | None:
    """What the trials on a GPU were forecast to hold of it, their processes included."""
    if study is None or not leased or not gpu.memory_total:
        return None
    curves = [study.by_number[number].curve for number in leased]
    records = [curve.forecast for curve in curves if curve is not None and curve.forecast]
    if len(records) < len(leased):
        return None
    needed = sum(record.needed + record.context for record in records)
    proven = all(record.tier == "proof" for record in records)
    return Expected(
        used=(gpu.memory_used or 0) / gpu.memory_total,
        forecast=needed / gpu.memory_total,
        text=words.forecast(needed, None, proven=proven),
    )


def _of(used: float | None, total: float | None, unit: float, name: str, digits: int) -> Measure:
    if used is None:
        return None, "n/a"
    text = f"{used / unit:.{digits}f}"
    if not total:
        return None, f"{text} {name}"
    return 100 * used / total, f"{text} of {total / unit:.{digits}f} {name}"


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)


def _holders(uuid: str, study: StudyView | None) -> list[int]:
    if study is None:
        return []
    attempts = ((row.number, row.trial.attempt) for row in study.rows if row.trial.live)
    return [number for number, attempt in attempts if attempt and uuid in attempt.gpus]


def _shims(study: StudyView | None) -> dict[int, int]:
    """The live trials' shims by pid."""
    if study is None:
        return {}
    attempts = ((row.number, row.trial.attempt) for row in study.rows if row.trial.live)
    return {a.shim.pid: number for number, a in attempts if a is not None and a.shim is not None}
