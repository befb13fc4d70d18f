"""What is done with a trained model, seen from a client: processes are started, asked and ended. No torch here.

A process ends by itself when its input is closed; one that does not is killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import msgspec

from core.engine.client import EngineError
from core.engine.launch import PROGRAM
from core.study.after import (
    UNFINISHED,
    ChatReply,
    EvaluateReply,
    EvaluateRequest,
    ExportReply,
    ExportRequest,
    Failure,
    Heard,
    Hush,
    Open,
    Progress,
    Ready,
    Reply,
    Say,
    decode_reply,
    encode,
    partial_of,
)

Role = Literal["_export", "_chat", "_evaluate"]
OnProgress = Callable[[Progress], None]
GRACE_SECONDS = 20.0
"""What a process may take to clean up after it was told to end: it may be in the middle of loading a model."""


class AfterError(EngineError):
    """The model cannot be exported, asked or measured; the message says why."""

    def __init__(self, message: str, *, usage: bool = False, kept: str | None = None) -> None:
        super().__init__(message)
        self.usage = usage
        """Whether the input is wrong, so that trying again changes nothing."""
        self.kept = kept
        """What was written all the same."""


def ignore(progress: Progress) -> None:
    """For callers that show no progress."""


def export(
    request: ExportRequest,
    on_progress: OnProgress = ignore,
    environment: Mapping[str, str] | None = None,
) -> ExportReply:
    """Have a run made into one model; waits until it is there. Interrupted, it leaves nothing half.

    `environment` is that of `core.engine.borrowing`.

    Raises:
        AfterError: it cannot be done.
    """
    try:
        with Process("_export", environment) as process:
            reply = process.ask(request, on_progress)
    finally:
        _remove_unfinished(Path(request.output))
    if not isinstance(reply, ExportReply):
        raise AfterError("the export answered another question")
    return reply


def evaluate(
    request: EvaluateRequest,
    on_progress: OnProgress = ignore,
    environment: Mapping[str, str] | None = None,
) -> EvaluateReply:
    """Have a model measured; waits for the result. `environment` as for `export`.

    Raises:
        AfterError: it cannot be done.
    """
    with Process("_evaluate", environment) as process:
        reply = process.ask(request, on_progress)
    if not isinstance(reply, EvaluateReply):
        raise AfterError("the evaluation answered another question")
    return reply


class Process:
    """One process of a role. A context manager: it is ended on the way out, whatever it is doing."""

    def __init__(self, role: Role, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is added to this process's own."""
        self._role = role
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **(environment or {})},
            # Ctrl-C is this process's to hear: it says what is to become of the other.
            start_new_session=True,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child.poll() is None

    def send(self, request: msgspec.Struct) -> None:
        """Send a request.

        Raises:
            AfterError: the process has died.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(encode(request))
            self._child.stdin.flush()
        except OSError:
            raise AfterError(self._last_words()) from None

    def read(self) -> Reply:
        """The next reply; waits for it.

        Raises:
            AfterError: the process has died, or the reply is a failure.
        """
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise AfterError(self._last_words())
        try:
            reply = decode_reply(line)
        except msgspec.DecodeError as error:
            raise AfterError(f"{self._role} answered what is no answer: {error}") from None
        if isinstance(reply, Failure):
            raise AfterError(reply.reason, usage=reply.usage, kept=reply.kept)
        return reply

    def ask(self, request: msgspec.Struct, on_progress: OnProgress) -> Reply:
        """Send a request and wait for what is no progress.

        Raises:
            AfterError: it cannot be met.
        """
        self.send(request)
        while True:
            reply = self.read()
            if not isinstance(reply, Progress):
                return reply
            on_progress(reply)

    def close(self) -> None:
        """End the process."""
        child = self._child
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        try:
            child.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        except BaseException:
            # A second Ctrl-C: no patience is left.
            child.kill()
            child.wait()
            raise
        finally:
            if child.stdout is not None:
                child.stdout.close()
            self._said.close()

    def _last_words(self) -> str:
        """What is known of how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)
        self._said.seek(0)
        return last_words(self._role, self._child.poll(), self._said.read())


def last_words(role: Role, code: int | None, said: bytes) -> str:
    """How a process of a role ended that gave no answer: its exit code (None: it lives), and what it wrote last."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    name = role.removeprefix("_")
    if code is None:
        return f"the process of {name} closed its output"
    if code == -signal.SIGKILL:
        return f"the process of {name} was killed: most likely the machine's memory ran out"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the process of {name} ended ({how})" + (f": {lines[-1]}" if lines else "")


class Chat:
    """A model to talk to. A context manager."""

    def __init__(
        self,
        request: Open,
        on_progress: OnProgress = ignore,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Load the model; waits until it is ready.

        Raises:
            AfterError: it cannot be loaded.
        """
        self._process = Process("_chat", environment)
        try:
            reply = self._process.ask(request, on_progress)
            if not isinstance(reply, Ready):
                raise AfterError("the chat answered another question")
        except BaseException:
            self._process.close()
            raise
        self.ready: Ready = reply
        self._sending = threading.Lock()

    def __enter__(self) -> "Chat":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.close()

    @property
    def alive(self) -> bool:
        """Whether there is somebody to ask."""
        return self._process.alive

    def say(self, request: Say) -> Iterator[ChatReply]:
        """Ask; yields pieces of the answers as they come, each answer whole at its end, and progress before them.

        An iteration that is given up ends the answers: what is left of them is read away.

        Raises:
            AfterError: the question cannot be answered, or the process has died.
        """
        with self._sending:
            self._process.send(request)
        done = False
        try:
            while True:
                reply = self._process.read()
                if isinstance(reply, Heard):
                    done = True
                    return
                if not isinstance(reply, ExportReply | EvaluateReply):
                    yield reply
        except AfterError:
            done = True
            raise
        finally:
            if not done:
                self.hush()
                while not isinstance(self._process.read(), Heard):
                    pass

    def hush(self) -> None:
        """End the answers that are under way; they are still completed by their `Said`."""
        with self._sending:
            self._process.send(Hush())


def _remove_unfinished(output: Path) -> None:
    """What a killed export has left. One that is to be looked at was given its reason to stay by the process itself:
    it has no mark any more."""
    partial = partial_of(output)
    if (partial / UNFINISHED).exists():
        shutil.rmtree(partial, ignore_errors=True)
