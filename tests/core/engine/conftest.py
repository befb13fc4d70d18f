"""A study with fake workers, and what tests of the engine do with it."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytest

from core.devices.process import descendants
from core.engine.client import create_study, daemon_alive, send
from core.engine.messages import Command, Reply, Request
from core.profile import Profile, from_document
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader

HERE = Path(__file__).resolve().parent
PATIENCE = 120.0


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """Poll until `condition` gives something true; fails after PATIENCE seconds."""
    # Looks are counted, not seconds: a machine that stood still is not impatient.
    for _ in range(round(PATIENCE / 0.02)):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {PATIENCE:g} s: {what}")


def make_profile(
    script: dict[str, Any], space: dict[str, Any], **tables: dict[str, Any]
) -> Profile:
    """A profile for the fake worker; `tables` are merged into it."""
    document: dict[str, dict[str, Any]] = {
        "profile": {"name": "fake", "notes": json.dumps(script)},
        "model": {"model_name_or_path": "demo"},
        "data": {"dataset": "demo"},
        "train": {
            "learning_rate": 1e-3, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "warmup_ratio": 0.0,
        },
        "resources": {"devices": "cpu"},
        "search": {"strategy": "grid", "portfolio": False, "space": space},
    }  # fmt: skip
    for name, table in tables.items():
        document.setdefault(name, {}).update(table)
    return from_document(document)


class Daemon:
    """A daemon that was forked, as `subprocess.Popen` shows a process."""

    def __init__(self, stdout: TextIO, told: int) -> None:
        self.stdout = stdout
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = int(self._told.readline())
        self._returncode: int | None = None

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code; a signal's number is negative."""
        if self._returncode is None:
            assert select.select([self._told], [], [], timeout)[0], "the daemon does not end"
            self._returncode = int(self._told.readline())
        return self._returncode

    def poll(self) -> int | None:
        ended = self._returncode is not None or select.select([self._told], [], [], 0)[0]
        return self.wait() if ended else None

    def kill(self, number: int = signal.SIGKILL) -> None:
        # It may be gone before its nursery has told so.
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.kill(signal.SIGTERM)

    def close(self) -> None:
        self.kill()
        self.wait()
        self.stdout.close()
        self._told.close()


class Nursery:
    """Where daemons come from (see `fake_daemon.py`)."""

    def __init__(self) -> None:
        self._asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            command = [sys.executable, "-P", str(HERE / "fake_daemon.py"), str(asked.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[asked.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )

    def daemon(self, folder: Path, options: dict[str, Any]) -> Daemon:
        request = {"folder": str(folder), "options": options, "environment": dict(os.environ)}
        (stdout, out), (told, tell) = os.pipe(), os.pipe()
        try:
            socket.send_fds(self._asking, [json.dumps(request).encode()], [out, tell])
        finally:
            os.close(out)
            os.close(tell)
        return Daemon(os.fdopen(stdout), told)

    def close(self) -> None:
        self._asking.close()
        self._process.wait(PATIENCE)


class Served:
    """A study and its daemons, which end with the test."""

    def __init__(self, folder: Path, options: dict[str, Any], nursery: Nursery) -> None:
        self.folder = folder
        self.options = options
        self.daemons: list[Daemon] = []
        self._nursery = nursery

    def start(self) -> Daemon:
        """Start a daemon and wait until it answers."""
        daemon = self.launch()
        word = daemon.stdout.readline().strip()
        assert word == "ready", word
        return daemon

    def launch(self) -> Daemon:
        daemon = self._nursery.daemon(self.folder, self.options)
        self.daemons.append(daemon)
        return daemon

    def ask(
        self,
        command: Command,
        trial: int | None = None,
        changes: Any = None,
        fix: int | None = None,
    ) -> Reply:
        request = Request(command, trial, changes, fix)
        return send(self.folder, request, start=False, timeout=PATIENCE)

    def go(self, number: int = 1) -> None:
        """Let the worker of a trial go on that does nothing since the step `hang_at`."""
        (self.folder / "trials" / f"{number:04d}" / "go").touch()

    @property
    def state(self) -> StudyState:
        try:
            return StudyReader(self.folder).state
        except StudyError:
            return StudyState()

    def trial(self, number: int = 1) -> Trial:
        return self.state.trials[number]

    def wait_status(self, status: str, number: int | None = None) -> Any:
        """Wait until the study, or a trial, has this status; returns it."""

        def reached() -> Any:
            state = self.state
            thing = state if number is None else state.trials.get(number)
            return thing if thing is not None and thing.status == status else None

        return wait_for(reached, f"{self.folder} {number or ''} {status}; {self.log()}")

    def wait_step(self, number: int, step: int) -> None:
        """Wait until a trial's metrics reach `step`."""
        file = self.folder / "trials" / f"{number:04d}" / "metrics.jsonl"
        wait_for(
            lambda: file.exists() and f'"step": {step}' in file.read_text(),
            f"step {step}; {self.log()}",
        )

    def wait_gone(self) -> None:
        wait_for(lambda: not daemon_alive(self.folder), "the daemon ends")

    def log(self) -> str:
        file = self.folder / "daemon.log"
        return file.read_text() if file.exists() else ""

    def close(self) -> None:
        for trial in self.state.live():
            if trial.attempt and trial.attempt.shim:
                pids = [
                    trial.attempt.shim.pid,
                    *(d.pid for d in descendants(trial.attempt.shim.pid)),
                ]
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
        for daemon in self.daemons:
            daemon.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the leases or the list of studies of whoever runs it."""
    monkeypatch.setenv("TUNEDECK_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def profile_of() -> Callable[..., Profile]:
    return make_profile


@pytest.fixture
def waits() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def study(tmp_path: Path, nursery: Nursery) -> Iterator[Callable[..., Served]]:
    """Makes a study: `study(script, space, options=…, **tables)`; its processes end with the test."""
    made: list[Served] = []

    def make(
        script: dict[str, Any],
        space: dict[str, Any],
        options: dict[str, Any] | None = None,
        **tables: dict[str, Any],
    ) -> Served:
        folder = create_study(make_profile(script, space, **tables), tmp_path / f"study{len(made)}")
        made.append(Served(folder, options or {}, nursery))
        return made[-1]

    yield make
    for served in made:
        served.close()
