"""How an attempt of a trial is started and reached. The daemon knows no other way to a process.

`LocalLauncher` starts a shim on this machine. Another launcher may start attempts from a preloaded process or on a
cluster: what is behind `Launcher` is all that the daemon asks for.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from core.devices import lock as locks
from core.devices.lease import lease_environment, lease_path
from core.devices.process import (
    ProcessIdentity,
    descendants,
    identify,
    marked,
    signal_process,
)
from core.engine.shim import MARKER, STOP_GRACE, WATCHED
from core.study.files import ProcessRecord
from core.study.store import TrialFolder

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tunedeck.py"


class LaunchError(Exception):
    """An attempt could not be started; the message says why."""


class LeaseTakenError(LaunchError):
    """A GPU was leased to somebody else in the meantime."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"GPU {uuid} has just been taken by another study")
        self.uuid = uuid


@dataclass(frozen=True, slots=True)
class Mark:
    """Which attempt a process belongs to; it stands in the environment of each of them."""

    study: str
    trial: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.study}/{self.trial}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One attempt that is to be started."""

    folder: TrialFolder
    mark: Mark
    device: Literal["cuda", "cpu"]
    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs to lease; empty on the CPU."""


class Launcher(Protocol):
    """Whatever can start an attempt and reach it later, also after a restart of the daemon."""

    def start(self, spec: LaunchSpec) -> ProcessRecord:
        """Start the attempt; returns the process that answers for it.

        Raises:
            LaunchError: it could not be started.
        """
        ...

    def alive(self, folder: TrialFolder) -> bool:
        """Whether anything of the trial may still run."""
        ...

    def find(self, mark: Mark) -> ProcessRecord | None:
        """The process that answers for an attempt of which only the mark is known."""
        ...

    def ask(self, process: ProcessRecord, what: Literal["stop", "pause"]) -> bool:
        """Ask the attempt to end; False when it is gone already."""
        ...

    def kill_leftovers(self, mark: Mark) -> int:
        """End every process of an attempt that has lost its shim; returns how many there were."""
        ...


def worker_command(folder: Path) -> list[str]:
    """The command of the real worker of the trial in `folder`."""
    return [sys.executable, "-P", str(PROGRAM), "_worker", str(folder)]


class LocalLauncher:
    """Starts attempts on this machine, each under a shim in a session of its own."""

    def __init__(
        self,
        worker: Callable[[Path], Sequence[str]] = worker_command,
        stop_grace: float = STOP_GRACE,
    ) -> None:
        """`worker` makes the worker's command from its folder; `stop_grace` is in seconds."""
        self._worker = worker
        self._stop_grace = stop_grace
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, spec: LaunchSpec) -> ProcessRecord:
        # The locks are taken here and inherited by the shim: there is no moment in which the attempt lives and
        # its lock does not say so, and a GPU that is gone is noticed before anything is started.
        with ExitStack() as held:
            try:
                fds = [_take(spec.folder.lock, held)]
                fds += [_take(lease_path(uuid), held, uuid) for uuid in spec.gpus]
            except locks.LockError as error:
                raise LaunchError(str(error)) from None
            return self._start(spec, fds)

    def _start(self, spec: LaunchSpec, fds: list[int]) -> ProcessRecord:
        where = f"GPU {', '.join(spec.gpus)}" if spec.gpus else "CPU"
        order = {
            "attempt": spec.mark.attempt,
            "marker": str(spec.mark),
            "command": list(self._worker(spec.folder.path)),
            "environment": lease_environment(spec.gpus),
            "locks": fds,
            "header": f"--- attempt {spec.mark.attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')}, {where}",
            "stop_grace": self._stop_grace,
        }
        # -I and -S: the shim needs the standard library alone, whatever the user's environment says.
        command = [sys.executable, "-I", "-S", str(PROGRAM), "_shim", str(spec.folder.path)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*WATCHED, signal.SIGHUP))
        try:
            with spec.folder.log.open("ab") as log:
                child = subprocess.Popen(
                    [*command, json.dumps(order)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env={**os.environ, MARKER: str(spec.mark)},
                    start_new_session=True,
                    pass_fds=fds,
                )
        except OSError as error:
            raise LaunchError(f"the trial cannot be started: {error.strerror}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._children[spec.folder.path] = child
        identity = identify(child.pid)
        # One that has ended this fast is known by its pid alone; nothing is ever sent to it.
        return _record(identity or ProcessIdentity(child.pid, 0, ""))

    def alive(self, folder: TrialFolder) -> bool:
        child = self._children.get(folder.path)
        if child is not None and child.poll() is not None:
            del self._children[folder.path]
        try:
            return locks.is_locked(folder.lock)
        except locks.LockError:
            return folder.path in self._children

    def find(self, mark: Mark) -> ProcessRecord | None:
        processes = marked(MARKER, str(mark))
        # The shim is the one above all others.
        below = {d.pid for p in processes for d in descendants(p.pid)}
        top = [p for p in processes if p.pid not in below]
        return _record(top[0]) if top else None

    def ask(self, process: ProcessRecord, what: Literal["stop", "pause"]) -> bool:
        number = signal.SIGTERM if what == "stop" else signal.SIGUSR1
        return signal_process(_identity(process), number)

    def kill_leftovers(self, mark: Mark) -> int:
        left = marked(MARKER, str(mark))
        for process in left:
            signal_process(process, signal.SIGKILL)
        return len(left)


def own_record() -> ProcessRecord:
    """The identity of the calling process."""
    identity = identify(os.getpid())
    return _record(identity or ProcessIdentity(os.getpid(), 0, ""))


def _take(path: Path, held: ExitStack, uuid: str | None = None) -> int:
    fd = locks.try_lock(path)
    if fd is None:
        if uuid is not None:
            raise LeaseTakenError(uuid)
        raise LaunchError("an earlier attempt of this trial is still running")
    held.callback(os.close, fd)
    return fd


def _record(identity: ProcessIdentity) -> ProcessRecord:
    return ProcessRecord(identity.pid, identity.started, identity.boot_id)


def _identity(record: ProcessRecord) -> ProcessIdentity:
    return ProcessIdentity(record.pid, record.started, record.boot_id)
