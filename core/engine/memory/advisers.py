"""The processes that look into a trial's memory for the daemon: one at a time, at low priority, for a limited time.

An adviser runs in a session of its own, so that it can be ended together with the dry runs under it, and ends with the
daemon that started it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.engine.launch import PROGRAM
from core.engine.memory.jobs import JOB_FILE, LOG_FILE, RESULT_FILE, Job, Result, read_result
from core.study.events import Advice
from core.study.files import write_record

PATIENCE = 300.0
"""Seconds that one look into a trial's memory may take. A proof takes seconds and a search for fixes some twenty; the
lengths of the rows of a large data set, which are measured once, take the longest."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whom an adviser works for."""

    trial: int
    attempt: int
    about: Advice
    shape: str
    """What the settings were, so that the answer holds for all trials that need the same."""


def adviser_command(job: Path) -> list[str]:
    """The command of the real adviser."""
    return [sys.executable, "-P", str(PROGRAM), "_advise", str(job), str(os.getpid())]


class Advisers:
    """The adviser that runs now, if any."""

    def __init__(
        self, command: Callable[[Path], Sequence[str]] = adviser_command, patience: float = PATIENCE
    ) -> None:
        """`command` makes an adviser's command from the file of its job; `patience` is in seconds."""
        self._command = command
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._until = 0.0
        self.ticket: Ticket | None = None
        """Whom the running adviser works for."""

    @property
    def busy(self) -> bool:
        return self.ticket is not None

    def start(self, ticket: Ticket, job: Job, folder: Path) -> None:
        """Start an adviser for the trial in `folder`, which need not exist yet. None may be running.

        Raises:
            OSError: it cannot be started.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT_FILE).unlink(missing_ok=True)
        write_record(folder / JOB_FILE, job)
        # It never computes on a GPU, and must not hold any of its memory.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        with (folder / LOG_FILE).open("wb") as log:
            self._process = subprocess.Popen(
                list(self._command(folder / JOB_FILE)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        self._folder, self.ticket = folder, ticket
        self._until = time.monotonic() + self._patience

    def poll(self) -> tuple[Ticket, Result] | None:
        """The result of an adviser that has ended, or that took too long; None while there is none."""
        process, ticket = self._process, self.ticket
        if process is None or ticket is None:
            return None
        late = time.monotonic() > self._until
        if process.poll() is None and not late:
            return None
        folder = self._folder
        self.close()
        result = read_result(folder)
        if result is None:
            why = self._excuse(folder, process.returncode, late)
            result = Result(about=ticket.about, shape=ticket.shape, problem=why)
        else:
            (folder / LOG_FILE).unlink(missing_ok=True)
        (folder / JOB_FILE).unlink(missing_ok=True)
        return ticket, result

    def close(self) -> None:
        """End the adviser with everything under it."""
        if self._process is not None:
            # The group lives on when its leader has ended and left something behind.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self.ticket = None

    def _excuse(self, folder: Path, code: int | None, late: bool) -> str:
        if late:
            return f"the dry run took longer than {self._patience:.0f} s"
        try:
            lines = (folder / LOG_FILE).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"the dry run ended with code {code}" + (f": {last[:300]}" if last else "")
