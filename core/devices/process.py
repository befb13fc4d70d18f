"""Who a process is, beyond its pid: identity, liveness, descent and safe signals (Linux).

A pid is reused as soon as its process is reaped, so nothing here acts on a bare pid: an identity
is pid, start time and boot. The standard library alone is used, because the shim beside every
trial imports this file and has to stay small.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

_DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for all time.

    `started` is field 22 of `/proc/PID/stat` (proc(5)): clock ticks between boot and the start of
    the process. `boot_id` tells one boot of the machine from the next, for which both numbers
    begin again.
    """

    pid: int
    started: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    state: str
    parent: int
    started: int


def boot_id(proc: str = "/proc") -> str:
    """A name for this boot of the machine, the same for all processes until it restarts.

    Where the kernel offers no boot id (some sandboxes) the boot's time stands in for it.
    """
    text = _read(f"{proc}/sys/kernel/random/boot_id").strip()
    if text:
        return text.decode()
    for line in _read(f"{proc}/stat").splitlines():
        if line.startswith(b"btime "):
            return "btime-" + line.split()[1].decode()
    return "unknown"


def identify(pid: int, proc: str = "/proc") -> ProcessIdentity | None:
    """The identity of the process that has this pid now; None if none lives under it."""
    stat = _stat(pid, proc)
    if stat is None or stat.state in _DEAD_STATES:
        return None
    return ProcessIdentity(pid, stat.started, boot_id(proc))


def is_alive(identity: ProcessIdentity, proc: str = "/proc") -> bool:
    """Whether this very process still runs. A zombie is dead: it only waits to be reaped."""
    return identify(identity.pid, proc) == identity


def signal_process(identity: ProcessIdentity, sig: int) -> bool:
    """Send a signal to this process and to no other that may have inherited its pid.

    True when it was delivered; False when the process is gone or belongs to somebody else
    (`is_alive` tells which).
    """
    try:
        fd = os.pidfd_open(identity.pid)
    except (OSError, AttributeError) as error:
        # Kernels before 5.3 and some sandboxes have no pidfd; a bare kill right after the check
        # leaves a window of microseconds there, and pids are not reused that fast.
        if isinstance(error, AttributeError) or error.errno in (errno.ENOSYS, errno.EPERM):
            return _signal_by_pid(identity, sig)
        return False
    try:
        # The descriptor pins whatever holds the pid now; only then is it checked who that is.
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(fd, sig)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def descendants(pid: int, proc: str = "/proc") -> list[ProcessIdentity]:
    """Every living process below `pid`, parents before children, `pid` itself not among them.

    A process whose parent ended belongs to the nearest subreaper above it (prctl(2),
    PR_SET_CHILD_SUBREAPER); without one it escapes to init and only `marked` finds it.
    """
    boot = boot_id(proc)
    children: dict[int, list[_Stat]] = {}
    for stat in _all_stats(proc):
        if stat.state not in _DEAD_STATES:
            children.setdefault(stat.parent, []).append(stat)
    found: list[ProcessIdentity] = []
    seen = {pid}
    queue = [pid]
    while queue:
        for stat in children.get(queue.pop(0), []):
            # The table is not read in one instant: a pid reused meanwhile could close a circle.
            if stat.pid not in seen:
                seen.add(stat.pid)
                found.append(ProcessIdentity(stat.pid, stat.started, boot))
                queue.append(stat.pid)
    return found


def marked(marker_key: str, marker_value: str, proc: str = "/proc") -> list[ProcessIdentity]:
    """Every living process that was started with `marker_key=marker_value` in its environment.

    The calling process is left out, so that whoever clears up does not end itself. Processes of
    other users cannot be read and are left out too. A program that overwrites its own title may
    destroy the marker, hence `descendants` comes first and this is the net below it.
    """
    wanted = f"{marker_key}={marker_value}".encode()
    own = os.getpid()
    boot = boot_id(proc)
    found = []
    for stat in _all_stats(proc):
        if stat.pid == own or stat.state in _DEAD_STATES:
            continue
        if wanted in _read(f"{proc}/{stat.pid}/environ").split(b"\0"):
            found.append(ProcessIdentity(stat.pid, stat.started, boot))
    return found


def _signal_by_pid(identity: ProcessIdentity, sig: int) -> bool:
    if not is_alive(identity):
        return False
    try:
        os.kill(identity.pid, sig)
    except OSError:
        return False
    return True


def _all_stats(proc: str) -> Iterator[_Stat]:
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for name in names:
        if name.isdecimal() and (stat := _stat(int(name), proc)) is not None:
            yield stat


def _stat(pid: int, proc: str) -> _Stat | None:
    if pid <= 0:
        return None
    text = _read(f"{proc}/{pid}/stat")
    # The command's name stands in brackets and may hold spaces and brackets itself.
    fields = text[text.rfind(b")") + 1 :].split()
    if len(fields) < 20:
        return None
    return _Stat(pid, fields[0].decode(), int(fields[1]), int(fields[19]))


def _read(path: str) -> bytes:
    # A process may end between being listed and being read: nothing to read is an answer.
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
