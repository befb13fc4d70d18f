"""Which devices a study's trials may run on now: reads the GPUs, and says why one is not free."""

import os
from collections.abc import Collection
from dataclasses import replace

from core.devices.gpu import ON_CPU, GpuReader, GpuReading, GpuSnapshot, visible
from core.devices.lease import FreeWatch, busy_reason, lease_path
from core.devices.lock import LockError, is_locked
from core.engine.scheduler import Supply
from core.params import ResourcesTable


class Pool:
    """The devices of one study."""

    def __init__(
        self,
        resources: ResourcesTable,
        reader: GpuReader,
        cuda_visible: str | None,
        used_gpus: bool,
    ) -> None:
        """Read the GPUs once to decide between them and the CPU.

        `cuda_visible` is the CUDA_VISIBLE_DEVICES that the user gave. A study that has `used_gpus` before waits for
        them when they cannot be read, rather than going on at the CPU's pace.
        """
        self._resources = resources
        self._reader = reader
        self._cuda_visible = cuda_visible
        self._watch = FreeWatch()
        self._seen: dict[str, GpuSnapshot] = {}
        self._idle_use: dict[str, int] = {}
        wanted = resources.devices
        self.on_gpu = wanted != "cpu" and (used_gpus or isinstance(wanted, list))
        self.notice: str | None = None
        """Why trials run on the CPU though there are GPUs, where a person may not have meant it."""
        if wanted == "auto" and not used_gpus:
            reading = reader.read()
            self._note(self._allowed(reading))
            self.on_gpu = bool(self._allowed(reading))
            if reading.gpus and not self.on_gpu:
                self.notice = _unused(cuda_visible or "")
        self._cores = len(os.sched_getaffinity(0))

    @property
    def parallel(self) -> int:
        """The most trials at once on the CPU."""
        return self._resources.parallel or 1

    @property
    def threads(self) -> int | None:
        """CPU threads of a trial: the cores shared out, None where GPUs compute."""
        return None if self.on_gpu else max(1, self._cores // self.parallel)

    def look(self, ours: Collection[str]) -> Supply:
        """What is free now; `ours` are the GPUs that this study's own trials hold."""
        each = self._resources.gpus_per_trial
        if not self.on_gpu:
            return Supply("cpu", self.parallel, each=each)
        reading = self._reader.read()
        allowed = self._allowed(reading)
        self._note(allowed)
        quiet = self._watch.push(reading)
        others = [gpu for gpu in allowed if gpu.uuid not in ours]
        leased = {gpu.uuid for gpu in others if _leased(gpu.uuid)}
        free = tuple(g.uuid for g in others if g.uuid in quiet and g.uuid not in leased)
        return Supply(
            "cuda",
            self._resources.parallel or max(1, len(allowed) // each),
            free,
            self._waiting(reading, allowed, others, leased),
            each,
            # One that is missing from a reading may be back in the next.
            len(self._seen) or None,
        )

    @property
    def most(self) -> int:
        """The most trials at once."""
        if not self.on_gpu:
            return self.parallel
        return self._resources.parallel or max(1, len(self._seen) // self._resources.gpus_per_trial)

    def idle_gpus(self) -> tuple[GpuSnapshot, ...]:
        """The GPUs that the study may use, each as it is when nobody computes on it.

        A GPU is leased only when it is free: what a neighbour or a trial of ours holds of it now will be gone then.
        What it holds when idle (the driver, a display) stays.
        """
        if not self._seen:
            self._note(self._allowed(self._reader.read()))
        return tuple(
            replace(gpu, memory_used=self._idle_use.get(gpu.uuid, 0)) for gpu in self._seen.values()
        )

    def rest(self) -> None:
        """Nothing is to start for now: readings from before do not count when something is."""
        self._watch.forget_all()

    def released(self, uuid: str) -> None:
        """A trial gave this GPU back: its memory must be seen to have fallen before it is used again."""
        self._watch.forget(uuid)

    def _note(self, allowed: list[GpuSnapshot]) -> None:
        # One that is missing from a reading may be back in the next: it is no reason to give a trial up.
        self._seen |= {gpu.uuid: gpu for gpu in allowed if not gpu.mig}
        for gpu in allowed:
            if busy_reason(gpu) is None and gpu.memory_used is not None:
                self._idle_use[gpu.uuid] = gpu.memory_used

    def _waiting(
        self,
        reading: GpuReading,
        allowed: list[GpuSnapshot],
        others: list[GpuSnapshot],
        leased: Collection[str],
    ) -> str:
        if not allowed:
            missing = _none_allowed(self._resources, self._cuda_visible)
            # A study that waits does not run on the CPU.
            fact = (reading.problem or "").partition(ON_CPU)[0].rstrip(" .:;")
            return missing if reading.gpus or not fact else f"{missing} ({fact})"
        reasons = []
        for gpu in others:
            if gpu.uuid in leased:
                reasons.append(f"GPU {gpu.index}: another study uses it")
            elif busy := busy_reason(gpu):
                reasons.append(f"GPU {gpu.index}: {busy}")
        return "waiting for a free GPU; " + "; ".join(reasons) if reasons else ""

    def _allowed(self, reading: GpuReading) -> list[GpuSnapshot]:
        given = visible(reading.gpus, self._cuda_visible)
        wanted = self._resources.devices
        if not isinstance(wanted, list):
            return list(given)
        return [gpu for gpu in given if gpu.index in wanted or gpu.uuid in wanted]


def _none_allowed(resources: ResourcesTable, cuda_visible: str | None) -> str:
    named = ", ".join(map(str, resources.devices)) if isinstance(resources.devices, list) else ""
    what = f"none of the GPUs {named} of resources.devices" if named else "no GPU"
    where = f" (CUDA_VISIBLE_DEVICES={cuda_visible})" if cuda_visible is not None else ""
    return f"waiting for a free GPU; {what} can be seen here{where}"


def _unused(cuda_visible: str) -> str | None:
    if cuda_visible.strip() in ("", "-1"):
        return None
    return (
        f"trials run on the CPU: CUDA_VISIBLE_DEVICES={cuda_visible} names no whole GPU of this machine "
        "(slices, MIG-..., cannot be leased)"
    )


def _leased(uuid: str) -> bool:
    try:
        return is_locked(lease_path(uuid))
    except LockError:
        # Whoever cannot ask must not take; the attempt to lease it says what is wrong with the lock's folder.
        return False
