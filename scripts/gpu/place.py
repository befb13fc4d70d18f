"""Where a check works: a temporary folder, one device, a deadline, and real studies on it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from core.devices.gpu import GpuReader, GpuSnapshot
from core.devices.lease import busy_reason
from core.engine.client import EngineError, create_study, daemon_alive, send, start_daemon
from core.engine.messages import Request
from core.profile import from_document
from core.study.files import RunInfo, WorkerReport, read_record
from core.study.metrics import Point, read_points
from core.study.state import StudyState, Trial
from core.study.store import StudyFolder, StudyReader

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GIB = 2**30
POLL = 0.1
START_PATIENCE = 60.0
"""Seconds for a daemon to start: the first process on a fresh machine reads all from disk."""
LOG_LINES = 12
"""Of a log's end, in the evidence of a failure."""


class CheckFailedError(Exception):
    """What is claimed does not hold; the message says what was found instead."""


class SkippedError(Exception):
    """The check cannot be made here; the message says why."""


def require(condition: bool, otherwise: str) -> None:
    """Go on if `condition` holds.

    Raises:
        CheckFailedError: it does not; the message is `otherwise`.
    """
    if not condition:
        raise CheckFailedError(otherwise)


@dataclass(frozen=True)
class Place:
    """What a check is given. `deadline` is of time.monotonic()."""

    folder: Path
    """For this check alone."""
    device: Literal["cuda", "cpu"]
    uuid: str
    """Of the GPU that is checked; empty on the CPU."""
    reader: GpuReader
    material: Path
    """Where `material.py` has put a model and rows."""
    facts: Mapping[str, Any]
    """What `facts.py` has printed."""
    deadline: float

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def pick(self, gpu: int, cpu: int) -> int:
        """`gpu` on a GPU, `cpu` on the CPU, which is a hundred times slower."""
        return gpu if self.on_gpu else cpu

    @property
    def resources(self) -> dict[str, Any]:
        """The table [resources] that keeps a study to this device."""
        return {"devices": [self.uuid] if self.on_gpu else "cpu", "parallel": 1}

    def gpu(self) -> GpuSnapshot:
        """The GPU now.

        Raises:
            CheckFailedError: it cannot be read any more.
        """
        reading = self.reader.read()
        for gpu in reading.gpus:
            if gpu.uuid == self.uuid:
                return gpu
        raise CheckFailedError(f"the GPU cannot be read any more: {reading.problem}")

    def used(self) -> int:
        """Bytes of the GPU in use by anybody, as NVML tells; 0 on the CPU."""
        return (self.gpu().memory_used or 0) if self.on_gpu else 0

    def wait(self, condition: Callable[[], bool], what: str, most: float = 1e9) -> None:
        """Wait for `condition`, for `most` seconds and no longer than the deadline.

        Raises:
            CheckFailedError: it did not come.
        """
        until = min(self.deadline, time.monotonic() + most)
        while not condition():
            require(time.monotonic() < until, f"waited in vain until {what}")
            time.sleep(POLL)

    def wait_until_free(self, most: float = 30.0) -> float:
        """Wait until nobody computes on the GPU and its memory has fallen; returns the seconds that it took."""
        began = time.monotonic()
        if self.on_gpu:
            self.wait(lambda: busy_reason(self.gpu()) is None, "the GPU was free again", most)
        return time.monotonic() - began

    def study(self, name: str, document: Mapping[str, Mapping[str, Any]]) -> "Study":
        """Start a study of this profile, on this device alone."""
        tables = {"resources": self.resources, "profile": {"name": name}, **document}
        folder = create_study(from_document(tables, source=name), self.folder / name)
        start_daemon(folder, START_PATIENCE)
        return Study(self, folder, StudyReader(folder))

    @contextmanager
    def foreign(self, size: int) -> Iterator[None]:
        """Somebody else's process, which holds `size` bytes of the GPU meanwhile."""
        said = self.folder / "foreign.txt"
        with said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", str(HERE / "foreign.py"), str(size)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=visible_environment(self.uuid),
            )

        def holds() -> bool:
            text = said.read_text(errors="replace")
            require(process.poll() is None, f"the foreign process failed: {text[-500:]}")
            return "holding" in text

        try:
            self.wait(holds, "the foreign process had its memory")
            yield
        finally:
            process.kill()
            process.communicate()


@dataclass
class Study:
    """A real study, followed as a client follows it, with the GPU's memory looked at meanwhile."""

    place: Place
    folder: Path
    reader: StudyReader
    usage: list[tuple[float, int]] = field(default_factory=list)
    """(seconds since the epoch, bytes of the GPU in use), as often as the study was looked at."""

    @property
    def state(self) -> StudyState:
        return self.reader.state

    def look(self) -> StudyState:
        """The study now."""
        self.reader.poll()
        if self.place.on_gpu:
            self.usage.append((time.time(), self.place.used()))
        return self.state

    def wait(self, condition: Callable[[StudyState], bool], what: str) -> None:
        """Follow the study until `condition` holds.

        Raises:
            CheckFailedError: the deadline came first, or the study ended without it.
        """

        def come() -> bool:
            state = self.look()
            if condition(state):
                return True
            over = state.status != "running" and not state.live()
            require(not over, f"the study was {state.status} ({state.reason}) before {what}")
            return False

        self.place.wait(come, what)

    def finish(self) -> StudyState:
        """Follow the study to its end."""
        self.wait(lambda state: state.status == "finished", "it was finished")
        return self.state

    def ask(self, request: Request) -> int | None:
        """Ask the daemon; returns the trial that it names.

        Raises:
            CheckFailedError: it refuses.
        """
        reply = send(self.folder, request)
        require(reply.ok, f"{request.command} was refused: {reply.text}")
        return reply.trial

    def trial(self, number: int = 1) -> Trial:
        return self.state.trials[number]

    def points(self, number: int = 1) -> list[Point]:
        """The points with a training loss."""
        metrics = StudyFolder(self.folder).trial(number).metrics
        return [p for p in read_points(metrics) if p.loss is not None]

    def step(self, number: int = 1) -> int:
        """The last update that was logged."""
        points = self.points(number)
        return points[-1].step if points else 0

    def run(self, number: int = 1) -> RunInfo:
        """What the worker wrote before its first step."""
        run = read_record(StudyFolder(self.folder).trial(number).run, RunInfo)
        if run is None:
            raise CheckFailedError(f"trial {number} did not come to its first step")
        return run

    def report(self, number: int = 1) -> WorkerReport:
        """How the worker said that it ended."""
        report = read_record(StudyFolder(self.folder).trial(number).report, WorkerReport)
        if report is None:
            raise CheckFailedError(f"trial {number} left no report")
        return report

    def worker(self, number: int = 1) -> psutil.Process:
        """The process that trains."""
        trial = str(StudyFolder(self.folder).trial(number).path)
        found = processes(trial, ("_worker",))
        require(bool(found), f"trial {number} has no worker")
        return found[0]


def processes(
    folder: str, roles: tuple[str, ...] = ("_daemon", "_shim", "_worker")
) -> list[psutil.Process]:
    """tunedeck's processes of these roles for studies or trials at or below `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            ours = any(role in words for role in roles)
            if ours and any(w == folder or w.startswith(folder + "/") for w in words):
                found.append(process)
    return found


def clean_up(folder: Path, patience: float = 15.0) -> None:
    """Stop the studies below `folder`, and end what is left of their trials after `patience` seconds."""
    for journal in folder.glob("*/journal.jsonl"):
        if daemon_alive(journal.parent):
            with suppress(EngineError):
                send(journal.parent, Request("stop"), start=False, timeout=5.0)
    psutil.wait_procs(processes(str(folder), ("_shim", "_worker")), timeout=patience)
    # A daemon that has nothing left to do stays for some seconds, which nobody needs to wait for.
    left = processes(str(folder))
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, timeout=3.0)
    for process in processes(str(folder)):
        with suppress(psutil.Error):
            process.kill()


def evidence(folder: Path) -> tuple[str, ...]:
    """What the studies below `folder` say about themselves, and the ends of their logs."""
    said: list[str] = []
    for journal in sorted(folder.glob("*/journal.jsonl")):
        study = StudyFolder(journal.parent)
        try:
            state = StudyReader(study.path).state
        except Exception as error:
            said.append(f"{study.path.name}: {error}")
            continue
        said.append(f"{study.path.name}: {state.status} {state.reason}")
        for trial in state.trials.values():
            said.append(f"trial {trial.number}: {trial.status} {trial.reason}".rstrip())
            if trial.status not in ("completed", "queued"):
                said += _tail(study.trial(trial.number).log)
        said += _tail(study.daemon_log)
    return tuple(said)


def _tail(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def visible_environment(uuid: str) -> dict[str, str]:
    """This process's environment (PYTHONPATH with it), with one GPU in sight."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def program(name: str, *arguments: str, uuid: str, timeout: float) -> str:
    """Run one of the programs beside this file; returns what it printed.

    Raises:
        CheckFailedError: it failed.
    """
    try:
        ran = subprocess.run(
            [sys.executable, "-P", str(HERE / name), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=visible_environment(uuid),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailedError(f"{name} did not end within {timeout:.0f} s") from None
    require(ran.returncode == 0, f"{name} failed: {ran.stderr.strip()[-800:]}")
    return ran.stdout


def gather_facts(uuid: str) -> dict[str, Any]:
    """What `facts.py` says about the GPU `uuid`."""
    said = program("facts.py", uuid=uuid, timeout=120).splitlines()
    facts: dict[str, Any] = json.loads(said[-1])
    return facts
