"""The shim: the small process above each worker that outlives the daemon and records how the worker ended.

It holds the trial's lock (the lock says "alive") and the leases of its GPUs for as long as anything of the trial may
run, relays what the daemon asks (SIGTERM: stop, SIGUSR1: pause), ends every process that the worker leaves behind, and
writes `exit.json`. One shim sits beside every trial for hours, so it imports the standard library alone.
"""

import ctypes
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from core.devices.cgroup import read_memory_events
from core.devices.process import descendants, marked, signal_process

MARKER = "TUNEDECK_TRIAL"
"""The environment variable by which every process of a trial can be found again."""

STOP_GRACE = 30.0
"""Seconds between the request to stop and the kill. A worker looks for requests between two updates; one of a large
model with much accumulation takes several seconds, and closing its files another few."""

LISTEN_POLL = 0.5
"""Seconds between two looks whether a worker that is to pause can hear it yet: importing takes it a while."""

KILL_PATIENCE = 60.0
"""Seconds to wait for killed processes to go. One that is stuck in a driver's call cannot be waited for for ever."""

WRITE_PATIENCE = 900.0
"""Seconds to keep trying to write `exit.json` on a full disk, so that there is time to make room."""

WATCHED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGINT)
"""Signals that the shim waits for. Whoever starts one blocks them first, so that none comes too early."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Run one attempt: `argv` is the trial's folder and a JSON object.

    The object holds `attempt`, `marker`, `command` (the worker's), `environment` (what is added to it), `locks` (file
    descriptors that hold the trial's lock and its leases), `header` (a line for the log) and `stop_grace` (seconds).
    """
    folder, spec = Path(argv[0]), json.loads(argv[1])
    for lock in spec["locks"]:
        os.set_inheritable(lock, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A dropped terminal is no reason to end, neither for the shim nor for the worker, which inherits this.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    return Shim(folder, spec["attempt"], spec["marker"], spec["stop_grace"]).run(
        spec["command"], spec["environment"], spec["header"]
    )


class Shim:
    """One attempt of one trial."""

    def __init__(self, folder: Path, attempt: int, marker: str, stop_grace: float) -> None:
        self._folder = folder
        self._attempt = attempt
        self._marker = marker
        self._stop_grace = stop_grace
        self._worker = 0
        self._status: int | None = None
        self._max_rss: int | None = None
        self._requested: str | None = None
        self._kill_at: float | None = None
        self._ask_at: float | None = None

    def run(self, command: list[str], environment: dict[str, str], header: str) -> int:
        """Start the worker, wait for its end, clear up, record it."""
        started, kills = time.time(), _oom_kills()
        # Whatever a library writes to "here" belongs to the trial, and "here" moves along when the study is moved.
        os.chdir(self._folder)
        self._folder = Path()
        problem = self._start(command, environment, header)
        if problem is None:
            self._wait()
        leftover = self._clear_up()
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        record: dict[str, object] = {
            "attempt": self._attempt,
            "returncode": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "started": started,
            "ended": time.time(),
            "oom_kills_before": kills,
            "oom_kills_after": _oom_kills(),
            "requested": self._requested,
            "problem": problem,
            "max_rss": self._max_rss,
        }
        if leftover:
            _say(f"{leftover} processes of this trial could not be killed")
        return 0 if self._write(record) else 1

    def _start(self, command: list[str], environment: dict[str, str], header: str) -> str | None:
        """Fork the worker; returns why that was not possible, or None."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            log = os.open(self._folder / "log.txt", flags, 0o666)
            os.write(log, header.encode() + b"\n")
            reader, writer = os.pipe()
            parent = os.getpid()
            pid = os.fork()
        except OSError as error:
            return f"the worker cannot be started: {error.strerror}"
        if pid == 0:
            _become_worker(parent, command, {**os.environ, **environment}, log, writer)
        os.close(writer)
        os.close(log)
        self._worker = pid
        with os.fdopen(reader, "rb") as pipe:
            trouble = pipe.read()
        return f"the worker cannot be started: {trouble.decode()}" if trouble else None

    def _wait(self) -> None:
        """Relay requests until the worker has ended."""
        while self._reap() and self._status is None:
            now = time.monotonic()
            due = [t for t in (self._kill_at, self._ask_at) if t is not None]
            wait = max(0.0, min(due) - now) if due else 3600.0
            got = signal.sigtimedwait(WATCHED, wait)
            if got is not None and got.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif got is not None and got.si_signo == signal.SIGUSR1 and self._requested is None:
                self._pause()
            now = time.monotonic()
            if self._kill_at is not None and now >= self._kill_at:
                self._requested, self._kill_at = "kill", None
                self._kill_all()
            elif self._ask_at is not None and now >= self._ask_at:
                self._pause()

    def _stop(self) -> None:
        if self._requested in ("stop", "kill"):
            return
        self._requested, self._ask_at = "stop", None
        self._kill_at = time.monotonic() + self._stop_grace
        self._signal_worker(signal.SIGTERM)

    def _pause(self) -> None:
        # A pause never becomes a kill by itself: saving a checkpoint to a slow disk may take long, and the progress
        # would be lost. Whoever cannot wait asks to stop.
        if self._requested in ("stop", "kill"):
            return
        self._requested = "pause"
        # Sent once only: a signal amid a checkpoint's write may break it off in a library that does not expect it.
        if _catches(self._worker, signal.SIGUSR1):
            self._ask_at = None
            self._signal_worker(signal.SIGUSR1)
        else:
            self._ask_at = time.monotonic() + LISTEN_POLL

    def _signal_worker(self, number: int) -> None:
        # Nobody but this process can reap the worker, so that its pid cannot be another's.
        if self._status is None:
            os.kill(self._worker, number)

    def _reap(self) -> bool:
        """Collect the processes that have ended; False when there are no children at all."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._worker:
                # Linux gives ru_maxrss in KiB (getrusage(2)).
                self._status, self._max_rss = status, usage.ru_maxrss * 1024

    def _kill_all(self) -> int:
        """Send SIGKILL to everything of this trial but the shim; returns how many there were."""
        found = {p.pid: p for p in (*descendants(os.getpid()), *marked(MARKER, self._marker))}
        for process in found.values():
            signal_process(process, signal.SIGKILL)
        return len(found)

    def _clear_up(self) -> int:
        """End what the worker left behind; returns how many processes resist."""
        until = time.monotonic() + KILL_PATIENCE
        while left := self._kill_all():
            if time.monotonic() > until:
                return left
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
            self._reap()
        self._reap()
        return 0

    def _write(self, record: dict[str, object]) -> bool:
        """Write `exit.json` whole and durably; keeps trying while the disk is full."""
        until = time.monotonic() + WRITE_PATIENCE
        while True:
            try:
                _write_file(self._folder / "exit.json", json.dumps(record).encode())
                return True
            except OSError as error:
                if error.errno == errno.ENOENT or time.monotonic() > until:
                    _say(f"exit.json cannot be written: {error.strerror}")
                    return False
            time.sleep(1.0)


def _become_worker(
    parent: int, command: list[str], environment: dict[str, str], log: int, trouble: int
) -> NoReturn:
    """The child's side of the fork: become the worker, or say into `trouble` why not."""
    try:
        # The worker must not go on, unwatched and unlocked, when the shim is killed.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        # A request to pause that comes before the worker has its handlers must not kill it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(trouble, f"{command[0]}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _write_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal (SigCgt of proc(5))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def _oom_kills() -> int | None:
    events = read_memory_events()
    return events.oom_kill if events else None


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _say(text: str) -> None:
    # The daemon gives the trial's log as standard error; on a full disk there is nothing to be said.
    try:
        sys.stderr.write(f"tunedeck: {text}\n")
        sys.stderr.flush()
    except OSError:
        return
