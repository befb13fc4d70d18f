"""Who may use which GPU: what counts as free, which ones to take, and a lock for each.

Two things must hold before a trial gets a GPU. Nobody else computes on it, which only watching
tells; and no other study takes it at the same moment, which a machine-wide lock file prevents.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from core.devices.gpu import GpuReading, GpuSnapshot
from core.devices.lock import LockError

SAMPLES = 3
"""Readings in a row that must find a GPU free: a job between two steps, or one that is starting,
looks idle for one of them."""

USED_FLOOR_BYTES = 1 << 30
"""Memory in use below which a GPU may be free: 1 GiB, whatever the card's size.

In a container the processes of others cannot be seen, and their memory is the only sign of them.
A CUDA context with any model beside it is above 1 GiB within seconds, whereas a display server or
what old drivers count as their own reserve stays below. A share of the card instead (5 % of
80 GB are 4 GB) would let a small model of somebody else's pass as nothing."""

IDLE_UTILIZATION = 5
"""Percent; only asked where the driver does not tell the memory in use (unified memory)."""

DEFAULT_LEASE_DIR = "/tmp/tunedeck-leases"
_SHARED_FOLDER = 0o1777


def busy_reason(gpu: GpuSnapshot, used_floor_bytes: int = USED_FLOOR_BYTES) -> str | None:
    """Why this GPU is not to be leased, in words for the user; None when nothing speaks against it.

    Meant for a GPU that none of our own trials holds: every computing process on it is foreign.
    """
    if gpu.mig:
        return "it is cut into MIG slices"
    for process in gpu.processes:
        if process.compute:
            return f"{process.name or 'another program'} (pid {process.pid}) computes on it"
    if gpu.memory_used is not None:
        if gpu.memory_used < used_floor_bytes:
            return None
        return f"{gpu.memory_used / 2**30:.1f} GiB of its memory are in use"
    if gpu.utilization is None:
        return "the driver tells neither its memory nor its load"
    if gpu.utilization > IDLE_UTILIZATION:
        return f"it is {gpu.utilization} % busy"
    return None


def is_free(samples: Sequence[GpuSnapshot], used_floor_bytes: int = USED_FLOOR_BYTES) -> bool:
    """Whether the last three of a GPU's samples (oldest first) all find it free."""
    latest = samples[-SAMPLES:]
    return len(latest) == SAMPLES and all(
        busy_reason(sample, used_floor_bytes) is None for sample in latest
    )


class FreeWatch:
    """Remembers the last readings of every GPU and says which GPUs are free."""

    def __init__(self, used_floor_bytes: int = USED_FLOOR_BYTES) -> None:
        self._floor = used_floor_bytes
        self._samples: dict[str, deque[GpuSnapshot]] = {}

    def push(self, reading: GpuReading) -> frozenset[str]:
        """Add a reading; returns the UUIDs that are free now.

        A GPU that is missing from a reading begins anew, and so does one whose trial has just
        ended: it is free three readings after its memory has fallen.
        """
        present = {gpu.uuid for gpu in reading.gpus}
        for uuid in self._samples.keys() - present:
            del self._samples[uuid]
        for gpu in reading.gpus:
            self._samples.setdefault(gpu.uuid, deque(maxlen=SAMPLES)).append(gpu)
        return frozenset(
            uuid for uuid, samples in self._samples.items() if is_free(tuple(samples), self._floor)
        )

    def forget(self, uuid: str) -> None:
        """Begin anew with one GPU, for instance when its lease ends."""
        self._samples.pop(uuid, None)

    def forget_all(self) -> None:
        """Begin anew with every GPU, when no readings came for a while."""
        self._samples.clear()


def choose(
    free: Collection[str], leased: Collection[str], wanted: int, allowed: Iterable[str]
) -> tuple[str, ...] | None:
    """The first `wanted` UUIDs of `allowed` that are free and not leased; None if too few are."""
    if wanted <= 0:
        return ()
    usable = [uuid for uuid in dict.fromkeys(allowed) if uuid in free and uuid not in leased]
    return tuple(usable[:wanted]) if len(usable) >= wanted else None


def lease_path(uuid: str, root: Path | str | None = None) -> Path:
    """The lock file of one GPU, for `core.devices.lock`; its folder is made if it is missing.

    The folder is `root`, else `$TUNEDECK_LEASE_DIR`, else one in /tmp that all users of the
    machine share (mode 1777, whatever the umask of whoever comes first).

    Raises LockError if the folder can be neither found nor made.
    """
    folder = Path(root or os.environ.get("TUNEDECK_LEASE_DIR") or DEFAULT_LEASE_DIR)
    try:
        folder.mkdir(parents=True)
        # Only what was just made is ours to change; mkdir's own mode is cut by the umask.
        with suppress(PermissionError):
            folder.chmod(_SHARED_FOLDER)
    except FileExistsError as error:
        if not folder.is_dir():
            raise _no_folder(folder, "it is a file, not a folder") from error
    except OSError as error:
        raise _no_folder(folder, error.strerror or str(error)) from error
    return folder / (re.sub(r"[^A-Za-z0-9-]", "_", uuid) + ".lock")


def lease_environment(uuids: Sequence[str]) -> dict[str, str]:
    """The environment that gives a trial exactly these GPUs, in this order; none hides all."""
    if not uuids:
        return {"CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": ",".join(uuids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _no_folder(folder: Path, reason: str) -> LockError:
    return LockError(
        f"Cannot use the folder {folder} for GPU leases: {reason}. "
        "Set TUNEDECK_LEASE_DIR to a folder that all users of this machine can write."
    )
