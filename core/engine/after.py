"""What is done with a trained model, seen from a client: processes are started, asked and ended. No torch here."""

import contextlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from core.engine.asking import Asked, AskingError, BabbleError
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
        """`environment` is added to this process's own.

        Raises:
            AfterError: it cannot be started.
        """
        self._name = name_of(role)
        command = [sys.executable, "-P", str(PROGRAM), role]
        with _told():
            self._asked = Asked(
                command, decode_reply, self._name, grace=GRACE_SECONDS, environment=environment
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._asked.close(given_up=error is not None)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._asked.poll() is None

    def send(self, request: msgspec.Struct) -> None:
        """Send a request.

        Raises:
            AfterError: the process has died.
        """
        with _told():
            self._asked.send(encode(request))

    def read(self) -> Reply:
        """The next reply; waits for it.

        Raises:
            AfterError: the process has died, or the reply is a failure.
        """
        try:
            reply = self._asked.hear()
        except BabbleError as error:
            raise AfterError(f"{self._name} answered what is no answer: {error}") from None
        if reply is None:
            raise AfterError(self._asked.last_words())
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


def name_of(role: Role) -> str:
    """What messages call the process of a role."""
    return f"the process of {role.removeprefix('_')}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except AskingError as error:
        raise AfterError(str(error)) from None


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
        with contextlib.ExitStack() as failing:
            self._process = failing.enter_context(Process("_chat", environment))
            reply = self._process.ask(request, on_progress)
            if not isinstance(reply, Ready):
                raise AfterError("the chat answered another question")
            failing.pop_all()
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
        self._process.__exit__(kind, error, trace)

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
