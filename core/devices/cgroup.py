"""What the kernel's control group of a process says about memory: its limit and its kills.

Both cgroup versions are read, as the kernel documents them (admin-guide/cgroup-v2, section
"Memory Interface Files", and cgroup-v1/memory). The standard library alone is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 writes "no limit" as the largest page-aligned 63-bit number.
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """How often memory ran out in a control group since it was made.

    `oom`: times an allocation failed at the limit. `oom_kill`: processes of the group that the
    kernel killed for memory, its own limit or the whole machine's. Version 1 counts kills only;
    `oom` is then the same number, as every kill had such a cause.
    """

    oom: int
    oom_kill: int


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The tightest memory limit above a process and what is used of it, both in bytes."""

    limit: int
    used: int | None


def read_memory_events(
    pid: int | str = "self", root: str = "/sys/fs/cgroup", proc: str = "/proc"
) -> MemoryEvents | None:
    """The counters of the process's own control group; None where the kernel keeps none.

    Compare a reading from before a trial with one from after it: only a risen `oom_kill` makes
    "killed by signal 9" an out-of-memory kill. The group's other processes count in too.
    """
    for folder in _folders(pid, root, proc):
        counts = _counts(folder / "memory.events")
        if "oom_kill" in counts:
            return MemoryEvents(counts.get("oom", 0), counts["oom_kill"])
        counts = _counts(folder / "memory.oom_control")
        if "oom_kill" in counts:
            return MemoryEvents(counts["oom_kill"], counts["oom_kill"])
    return None


def read_memory_limit(
    pid: int | str = "self", root: str = "/sys/fs/cgroup", proc: str = "/proc"
) -> MemoryLimit | None:
    """The tightest limit among the process's control group and those above it; None if none."""
    tightest: MemoryLimit | None = None
    for folder in _folders(pid, root, proc):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(folder / limit_name)
            if limit is None or limit >= _UNLIMITED:
                continue
            if tightest is None or limit < tightest.limit:
                tightest = MemoryLimit(limit, _number(folder / used_name))
    return tightest


def _folders(pid: int | str, root: str, proc: str) -> Iterator[Path]:
    """The process's memory group, then the groups above it, as far as they can be seen.

    In a container the path may be the host's while only its end is mounted: what is not there is
    passed over, and the mount's top is then the process's own group.
    """
    for top, path in _memberships(pid, root, proc):
        parts = [part for part in path.split("/") if part]
        if ".." in parts:
            continue
        for length in range(len(parts), -1, -1):
            folder = top.joinpath(*parts[:length])
            if folder.is_dir():
                yield folder


def _memberships(pid: int | str, root: str, proc: str) -> Iterator[tuple[Path, str]]:
    # Version 1's memory controller first: on hybrid machines version 2 is there without it.
    lines = [line.split(":", 2) for line in _text(Path(proc) / str(pid) / "cgroup").splitlines()]
    entries = [line for line in lines if len(line) == 3]
    for _, controllers, path in entries:
        if "memory" in controllers.split(","):
            yield Path(root) / "memory", path
    for number, controllers, path in entries:
        if number == "0" and not controllers:
            yield Path(root), path


def _counts(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
