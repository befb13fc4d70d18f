from __future__ import annotations

from pathlib import Path

import pytest

from core.devices.cgroup import MemoryEvents, MemoryLimit, read_memory_events, read_memory_limit


class Machine:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, base: Path, membership: str) -> None:
        self.proc = base / "proc"
        self.root = base / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.root.mkdir()
        (self.proc / "self" / "cgroup").write_text(membership)

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def events(self) -> MemoryEvents | None:
        return read_memory_events(root=str(self.root), proc=str(self.proc))

    def limit(self) -> MemoryLimit | None:
        return read_memory_limit(root=str(self.root), proc=str(self.proc))


V2_EVENTS = "low 0\nhigh 3\nmax 9\noom {oom}\noom_kill {kill}\noom_group_kill 0\n"


def test_version_2_counts_of_the_process_own_group_are_read(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/user.slice/job\n")
    machine.put("user.slice/memory.events", V2_EVENTS.format(oom=90, kill=80))
    machine.put("user.slice/job/memory.events", V2_EVENTS.format(oom=2, kill=1))
    assert machine.events() == MemoryEvents(oom=2, oom_kill=1)


def test_version_1_counts_kills_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "9:cpu:/\n4:memory:/box\n0::/\n")
    machine.put("memory/box/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert machine.events() == MemoryEvents(oom=4, oom_kill=4)


def test_in_a_container_that_shows_only_its_own_group_the_mounts_top_is_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/docker/abc\n")
    machine.put("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert machine.events() == MemoryEvents(oom=5, oom_kill=5)


@pytest.mark.parametrize("membership", ["0::/\n", "0::/../../other\n", "", "nonsense\n"])
def test_where_nothing_is_counted_there_is_no_answer(tmp_path: Path, membership: str) -> None:
    machine = Machine(tmp_path, membership)
    assert machine.events() is None
    assert machine.limit() is None


def test_an_old_kernel_without_the_count_gives_no_answer(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/box\n")
    machine.put("memory/box/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")
    assert machine.events() is None


def test_the_tightest_limit_above_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/slice/job\n")
    machine.put("slice/job/memory.max", "max\n")
    machine.put("slice/memory.max", "4096\n")
    machine.put("slice/memory.current", "1024\n")
    assert machine.limit() == MemoryLimit(limit=4096, used=1024)


def test_version_1_says_no_limit_with_a_huge_number(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/box\n")
    machine.put("memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert machine.limit() is None
    machine.put("memory/box/memory.limit_in_bytes", "2048\n")
    assert machine.limit() == MemoryLimit(limit=2048, used=None)
