"""How busy the device of a training process is."""

import os
import time
from typing import Literal

from core.devices.gpu import GpuReader, NvmlReader, visible

_PERIOD = 1.0
"""Seconds over which NVML takes its utilisation at most (nvmlDeviceGetUtilizationRates): asking more often tells
nothing new."""


class Utilisation:
    """How busy the process's device was since this was last asked, 0 to 1."""

    def __init__(self, device: Literal["cuda", "cpu"], reader: GpuReader | None = None) -> None:
        """`reader` reads the GPUs; without one it is NVML."""
        self._reader = None if device == "cpu" else reader or NvmlReader()
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._seen: float | None = None

    def now(self) -> float | None:
        """As the driver says of the GPU's last second, or of the CPU the process's time over the time and the threads
        that PyTorch computes with. None where it cannot be known."""
        return self._of_cpu() if self._reader is None else self._of_gpu(self._reader)

    def _of_cpu(self) -> float | None:
        import torch

        wall, cpu = time.monotonic(), time.process_time()
        elapsed, worked = wall - self._wall, cpu - self._cpu
        if elapsed <= 0:
            return None
        self._wall, self._cpu = wall, cpu
        return min(1.0, worked / (elapsed * int(torch.get_num_threads())))

    def _of_gpu(self, reader: GpuReader) -> float | None:
        now = time.monotonic()
        if self._seen is not None and now - self._wall < _PERIOD:
            return self._seen
        self._wall = now
        ours = visible(reader.read().gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        percent = ours[0].utilization if ours else None
        self._seen = None if percent is None else percent / 100
        return self._seen
