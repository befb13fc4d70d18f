"""What a training process holds: now, at most, and at most in each part of the run."""

import os
from typing import Literal

from core.devices.gpu import GpuSnapshot, NvmlReader, visible
from core.study.files import Moment
from core.train.limits import held_bytes, peak_resident_bytes, resident_bytes


class Memory:
    """What this process holds: of its GPU, or of the host's memory on the CPU. Bytes.

    On CUDA, the allocator's peaks are read and begun anew wherever a part of the run ends, so that each has its own;
    the largest of them is the run's. On the CPU there is one peak, the resident set's.
    """

    def __init__(self, device: Literal["cuda", "cpu"]) -> None:
        """Made before the model is loaded: on the CPU, what the process holds by then is its context."""
        self._cuda = device == "cuda"
        self._base = None if self._cuda else held_bytes()
        self._peaks: dict[Moment, int] = {}
        self._reserved = 0
        self.moment: Moment = "load"
        """The part of the run that it is in."""

    def enter(self, moment: Moment) -> None:
        """Begin a part of the run, or go on with it."""
        if self._cuda and moment != self.moment:
            import torch

            self._read_peaks()
            torch.cuda.reset_peak_memory_stats()
        self.moment = moment

    def now(self) -> tuple[int, int | None, int]:
        """Held now, reserved by the CUDA allocator (None on the CPU), and the most held so far."""
        if not self._cuda:
            return resident_bytes(), None, peak_resident_bytes()
        import torch

        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), self.peaks()[0]

    def peaks(self) -> tuple[int, int | None]:
        """The most held, and the most that the CUDA allocator reserved (None on the CPU)."""
        if not self._cuda:
            return peak_resident_bytes(), None
        self._read_peaks()
        return max(self._peaks.values(), default=0), self._reserved

    def moments(self) -> dict[Moment, int] | None:
        """The most that the CUDA allocator held in each part of the run so far; None on the CPU."""
        if not self._cuda:
            return None
        self._read_peaks()
        return dict(self._peaks)

    def context(self) -> int | None:
        """What the process holds besides its tensors; None where that cannot be known.

        On CUDA: CUDA's context, kernels and libraries, which is what NVML says that the process holds less what the
        allocator reserved. It grows while kernels are used for the first time, so it is right once the model has
        trained. On the CPU: what the process held before the model was loaded, counted as memory.limit_gib counts.
        """
        if not self._cuda:
            return self._base
        import torch

        if not torch.cuda.is_initialized():
            return None
        reader = NvmlReader()
        try:
            ours = visible(reader.read().gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        finally:
            reader.close()
        return context_of(ours[0], os.getpid(), torch.cuda.memory_reserved()) if ours else None

    def _read_peaks(self) -> None:
        import torch

        # The flat form of it, which max_memory_allocated reads, takes ten times as long; empty before CUDA is in use.
        stats = torch.cuda.memory_stats_as_nested_dict()
        if not stats:
            return
        peak = int(stats["allocated_bytes"]["all"]["peak"])
        self._peaks[self.moment] = max(peak, self._peaks.get(self.moment, 0))
        self._reserved = max(self._reserved, int(stats["reserved_bytes"]["all"]["peak"]))


def context_of(gpu: GpuSnapshot, pid: int, reserved: int) -> int | None:
    """What the process `pid` holds of a GPU outside of the allocator, which holds `reserved` bytes of it.

    In a container NVML shows the host's pids or no processes at all: a process that is alone on the GPU is then taken
    for ours, which a leased GPU was free for, and all that is in use for its memory. None where others are on the GPU
    and ours cannot be told from them.
    """
    computing = [process for process in gpu.processes if process.compute]
    named = [process for process in computing if process.pid == pid]
    ours = named or computing
    if len(ours) > 1:
        return None
    used = ours[0].used_bytes if ours else gpu.memory_used
    if used is None and len(computing) == 1:
        used = gpu.memory_used
    return None if used is None or used < reserved else used - reserved
