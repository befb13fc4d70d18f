"""What the machine's processor and main memory are doing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from core.devices.cgroup import (
    MemoryEvents,
    MemoryLimit,
    read_memory_events,
    read_memory_limit,
)

__all__ = [
    "HostReader",
    "HostSnapshot",
    "MemoryEvents",
    "MemoryLimit",
    "read_memory_events",
    "read_memory_limit",
]


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """One reading of the host; memory in bytes.

    `cpu_percent` is of all cores together (0-100), since the reading before. `cores` counts those
    that this process may use. `ram_used` is what programs cannot get (total less available).
    `ram_limit` is the control group's limit where it is below the machine's memory, and
    `ram_limit_used` what the group holds of it, file cache included.
    """

    cpu_percent: float
    cores: int
    ram_total: int
    ram_used: int
    ram_limit: int | None
    ram_limit_used: int | None
    swap_total: int
    swap_used: int
    load1: float


class HostReader:
    """Reads the host; one reader per place that reads, as processor use is a difference."""

    def __init__(self) -> None:
        # Imported here: a client that never looks at the host should not pay for it.
        import psutil

        self._psutil = psutil
        # The first call has nothing to compare with and always says 0.
        psutil.cpu_percent(interval=None)

    def read(self) -> HostSnapshot:
        """One snapshot, without waiting."""
        memory = self._psutil.virtual_memory()
        swap = self._psutil.swap_memory()
        limit = read_memory_limit()
        if limit is not None and limit.limit >= memory.total:
            limit = None
        return HostSnapshot(
            cpu_percent=self._psutil.cpu_percent(interval=None),
            cores=len(os.sched_getaffinity(0)),
            ram_total=memory.total,
            ram_used=memory.total - memory.available,
            ram_limit=limit.limit if limit else None,
            ram_limit_used=limit.used if limit else None,
            swap_total=swap.total,
            swap_used=swap.used,
            load1=os.getloadavg()[0],
        )
