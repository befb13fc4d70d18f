from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.devices import process
from core.devices.process import (
    ProcessIdentity,
    boot_id,
    descendants,
    identify,
    is_alive,
    marked,
    signal_process,
)

WAIT_FOR_INPUT = "import sys; print('up', flush=True); sys.stdin.read()"
PARENT_OF_ONE = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {WAIT_FOR_INPUT!r}], stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    running = start(WAIT_FOR_INPUT)
    assert first_line(running) == "up"
    with running:
        yield running
        running.kill()


def identity_of(child: subprocess.Popen[str]) -> ProcessIdentity:
    identity = identify(child.pid)
    assert identity is not None
    return identity


def test_a_process_has_the_same_identity_each_time(child: subprocess.Popen[str]) -> None:
    identity = identity_of(child)
    assert identity == identify(child.pid)
    assert identity.boot_id == boot_id() != ""
    assert identity.started > 0
    assert is_alive(identity)


def test_nobody_has_a_pid_that_is_not_in_use() -> None:
    assert identify(0) is None
    assert identify(-1) is None
    assert identify(2**22 + 1) is None


def test_a_zombie_is_dead(child: subprocess.Popen[str]) -> None:
    identity = identity_of(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(identity)
    assert identify(child.pid) is None
    assert not signal_process(identity, signal.SIGTERM)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot_id": "another"}])
def test_another_process_under_the_same_pid_is_neither_alive_nor_signalled(
    child: subprocess.Popen[str], change: dict[str, object]
) -> None:
    other = replace(identity_of(child), **change)  # type: ignore[arg-type]
    assert not is_alive(other)
    assert not signal_process(other, signal.SIGKILL)
    assert is_alive(identity_of(child))


def test_a_signal_reaches_its_process(child: subprocess.Popen[str]) -> None:
    assert signal_process(identity_of(child), signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


def test_a_signal_reaches_its_process_on_a_kernel_without_pidfd(
    child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    identity = identity_of(child)
    assert not signal_process(replace(identity, started=1), signal.SIGKILL)
    assert signal_process(identity, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    assert not signal_process(identity, signal.SIGTERM)


def test_a_command_name_with_brackets_and_spaces_does_not_confuse(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    folder.mkdir()
    fields = ["S", "5"] + ["0"] * 17 + ["4711"] + ["0"] * 10
    (folder / "stat").write_text(f"77 (a) Z (b) {' '.join(fields)}\n")
    found = identify(77, proc=str(tmp_path))
    assert found is not None and found.started == 4711


def test_where_there_is_no_boot_id_the_time_of_the_boot_stands_in(tmp_path: Path) -> None:
    assert boot_id(str(tmp_path)) == "unknown"
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1700000000\n")
    assert boot_id(str(tmp_path)) == "btime-1700000000"


def test_descendants_are_found_in_every_generation_parents_first() -> None:
    with start(PARENT_OF_ONE) as parent:
        grandchild = int(first_line(parent))
        found = [entry.pid for entry in descendants(os.getpid())]
        assert found.index(parent.pid) < found.index(grandchild)
        assert os.getpid() not in found
        assert [entry.pid for entry in descendants(parent.pid)] == [grandchild]
        for entry in descendants(parent.pid):
            signal_process(entry, signal.SIGKILL)
        parent.kill()


def test_a_marked_process_is_found_wherever_it_hangs_in_the_tree() -> None:
    mark = uuid.uuid4().hex
    with start(PARENT_OF_ONE, TUNEDECK_TEST_MARK=mark) as parent:
        grandchild = int(first_line(parent))
        found = marked("TUNEDECK_TEST_MARK", mark)
        assert {entry.pid for entry in found} == {parent.pid, grandchild}
        assert all(is_alive(entry) for entry in found)
        assert marked("TUNEDECK_TEST_MARK", mark[:-1]) == []
        for entry in found:
            signal_process(entry, signal.SIGKILL)


def test_the_caller_is_never_among_the_marked(tmp_path: Path) -> None:
    for pid in (os.getpid(), os.getpid() + 1):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (x) S 1 " + "0 " * 17 + "9 0\n")
        (folder / "environ").write_bytes(b"A=1\0MARK=t\0")
    assert [entry.pid for entry in marked("MARK", "t", str(tmp_path))] == [os.getpid() + 1]


def test_the_module_stays_small_for_the_shim() -> None:
    code = (
        "import sys\nimport core.devices.process, core.devices.lock, core.devices.cgroup\n"
        "print(sorted({'psutil', 'pynvml', 'msgspec', 'pydantic', 'asyncio'} & set(sys.modules)))"
    )
    root = Path(process.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
