"""The device that a run is forecast for, made of what the machine tells: a GPU's snapshot, or the host's memory.

Memory forecasting knows neither NVML nor the host; devices know nothing of forecasts. This is where they meet, for
the daemon, the dashboard and the command line alike.
"""

import os
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from core.devices.gpu import GpuSnapshot, visible
from core.devices.host import HostReader, HostSnapshot
from core.memory import calibration
from core.memory.forecast import GIB, GUARD_CPU, Target
from core.profile import Profile

USABLE_SHARE = 0.98
"""What CUDA gives to programs of the memory that nvidia-smi lists, for a GPU that cannot be asked: drivers keep 1 to
2 % for themselves (24,576 MiB listed and 24,259 usable on an RTX 3090; 81,559 and 81,008 on an H100)."""

ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""The environment variables that PyTorch reads its allocator's settings from, the newer name first."""


def target_from(
    gpu: GpuSnapshot | None,
    profile: Profile,
    host: HostSnapshot | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    context: int | None = None,
    gpus: int = 1,
) -> Target | None:
    """The target that `gpu` is, or the CPU where it is None; `gpus` is how many a trial may have, it among them.

    `host` is the host's reading (read now where it is not given), `environment` what trials are started with (this
    process's own by default), and `context` the bytes that a process was measured to hold outside of the allocator
    there. None for a GPU whose memory the driver does not tell.
    """
    if gpu is None:
        return _cpu(host or HostReader().read(), profile, context)
    if gpu.memory_total is None:
        return None
    total = gpu.memory_total - (gpu.memory_reserved or 0)
    return Target(
        kind="cuda",
        name=gpu.name,
        capability=gpu.capability,
        total=total,
        free=max(0, total - (gpu.memory_used or 0)),
        limit=_limit(profile),
        context=context,
        expandable=expandable_segments(os.environ if environment is None else environment),
        flash_attention=has_flash_attention(),
        gpus=gpus,
    )


def guard_of(target: Target, torch: str) -> float:
    """The share of a forecast that has to stay free on `target` under this version of PyTorch."""
    return GUARD_CPU if target.kind == "cpu" else calibration.guard(target.name, torch)


def imagined(
    gib: float, profile: Profile, *, environment: Mapping[str, str] | None = None
) -> Target:
    """An idle GPU of `gib` GiB (as nvidia-smi lists them) that is not here."""
    usable = int(gib * GIB * USABLE_SHARE)
    return Target(
        kind="cuda",
        name=f"a GPU of {gib:g} GiB",
        total=usable,
        free=usable,
        limit=_limit(profile),
        expandable=expandable_segments(os.environ if environment is None else environment),
        flash_attention=has_flash_attention(),
    )


def best_gpu(
    gpus: Iterable[GpuSnapshot], profile: Profile, cuda_visible: str | None
) -> GpuSnapshot | None:
    """The GPU with the most free memory among those that the profile's trials may use; None where there is none.

    `cuda_visible` is the CUDA_VISIBLE_DEVICES that the user gave.
    """
    return max(usable_gpus(gpus, profile, cuda_visible), key=_free, default=None)


def usable_gpus(
    gpus: Iterable[GpuSnapshot], profile: Profile, cuda_visible: str | None
) -> list[GpuSnapshot]:
    """The GPUs that the profile's trials may use, free or not."""
    wanted = profile.resources.devices
    if wanted == "cpu":
        return []
    return [
        gpu
        for gpu in visible(tuple(gpus), cuda_visible)
        if not gpu.mig and gpu.memory_total is not None
        if not isinstance(wanted, list) or gpu.index in wanted or gpu.uuid in wanted
    ]


def expandable_segments(environment: Mapping[str, str]) -> bool:
    """Whether PyTorch's CUDA allocator works with expandable segments under this environment."""
    settings = next((environment[name] for name in ALLOCATOR_SETTINGS if environment.get(name)), "")
    return bool(re.search(r"\bexpandable_segments\s*:\s*true\b", settings, re.IGNORECASE))


def has_flash_attention() -> bool:
    """Whether the flash-attn package is installed; it is not imported."""
    return find_spec("flash_attn") is not None


def _cpu(host: HostSnapshot, profile: Profile, context: int | None) -> Target:
    total = min(host.ram_total, host.ram_limit or host.ram_total)
    # What a control group holds counts the file cache in, which the kernel gives up when memory is needed: its limit
    # is what bounds a process, together with what the machine has available.
    free = min(total, host.ram_total - host.ram_used)
    # The cap of a CPU trial counts everything that the process holds, the interpreter included: it lowers what is
    # free, and is no cap on the allocator alone as on a GPU.
    limit = _limit(profile)
    return Target(
        kind="cpu",
        name="the CPU",
        total=total,
        free=free if limit is None else min(free, limit),
        context=context,
    )


def _limit(profile: Profile) -> int | None:
    return None if profile.memory.limit_gib is None else int(profile.memory.limit_gib * GIB)


def _free(gpu: GpuSnapshot) -> int:
    return (gpu.memory_total or 0) - (gpu.memory_reserved or 0) - (gpu.memory_used or 0)
