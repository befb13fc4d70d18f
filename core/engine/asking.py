"""A process that is asked something: started, heard message by message, and buried, with its client at the latest.

Every such process ends when its input does, which the kernel sees to where the client dies. One that is given up is
told to end (SIGTERM) and killed where it does not; nobody waits for ever.
"""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Generic, TypeVar

import msgspec

M = TypeVar("M")
LOOKS_EVERY = 0.5
"""Seconds between two looks at whether an answer is still wanted."""
LAST_WORDS_BYTES = 16_384
_CHUNK = 65_536


class AskingError(Exception):
    """The process cannot be started or has died; the message says how, with its last words."""


class BabbleError(Exception):
    """The process said what is no message; the text is the decoder's."""


class Asked(Generic[M]):
    """A process of a role. A context manager: it is over on the way out, whatever it is doing."""

    def __init__(
        self,
        command: Sequence[str],
        decode: Callable[[bytes], M],
        name: str,
        *,
        grace: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`. `decode` makes a message of a line; `name` is what messages call the process.

        `grace` is in seconds: what it may take to clean up. `environment` is added to this process's own.

        Raises:
            AskingError: it cannot be started.
        """
        self._name, self._decode, self._grace = name, decode, grace
        self._heard = bytearray()
        self._closed = self._ended = False
        try:
            self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _bury
        except OSError as error:
            raise AskingError(f"{name} cannot be started: {error.strerror}") from None
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **(environment or {})},
                # Ctrl-C is this process's to hear: it says what is to become of the other.
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise AskingError(f"{name} cannot be started: {error.strerror}") from None

    def __enter__(self) -> "Asked[M]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(given_up=error is not None)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._child.poll()

    def send(self, line: bytes) -> None:
        """Send a request.

        Raises:
            AskingError: the process has died.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except OSError:
            raise AskingError(self.last_words()) from None

    def hear(self, wanted: Callable[[], bool] = lambda: True) -> M | None:
        """The next message, however long it takes; None once the process says no more, or `wanted`, which is asked now
        and then, says no.

        Raises:
            BabbleError: it says what is no message.
        """
        line = self._line(wanted)
        if line is None:
            return None
        try:
            return self._decode(line)
        except msgspec.DecodeError as error:
            if self._ended:
                # It died in the middle of a message: how it died is what is to be told.
                return None
            raise BabbleError(str(error)) from None

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code once it is over; None where it takes longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(seconds)
        return None

    def last_words(self) -> str:
        """How it ended that gave no answer: its exit code, and what it wrote last."""
        code = self.wait(5)
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - LAST_WORDS_BYTES))
        said = self._said.read().decode(errors="replace")
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
        if code is None:
            return f"{self._name} closed its output"
        if code == -signal.SIGKILL:
            why = "(the kernel kills what takes most when memory runs out)"
            return f"{self._name} was killed: most likely the machine's memory ran out {why}"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{self._name} ended ({how})" + (f": {last}" if last else "")

    def kill(self) -> None:
        """End it at once; may be called from another thread, which then hears no more."""
        with contextlib.suppress(OSError):
            self._child.kill()

    def close(self, *, given_up: bool = False) -> None:
        """End it, by the end of its input, or by a signal where it is `given_up` in the middle of its work; kill it
        where that takes longer than its grace, or somebody has no patience left (a second Ctrl-C)."""
        if self._closed:
            return
        self._closed = True
        try:
            # One of both: the two are heard as two interruptions, and the second one would interrupt the cleaning up.
            if given_up:
                self._child.terminate()
            else:
                self._close_input()
            self.wait(self._grace)
        finally:
            self._bury()

    def _bury(self) -> None:
        self.kill()
        self._child.wait()
        self._close_input()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._said.close()

    def _close_input(self) -> None:
        if self._child.stdin is not None:
            # What was not flushed cannot be: it is dead.
            with contextlib.suppress(OSError):
                self._child.stdin.close()

    def _line(self, wanted: Callable[[], bool]) -> bytes | None:
        """The next line that it writes; the rest of its output where that ends without one, and None after it."""
        assert self._child.stdout is not None
        fd, looked = self._child.stdout.fileno(), 0
        # Not select: a dashboard that has been open for long may have more than its 1,024 files.
        output = select.poll()
        output.register(fd, select.POLLIN)
        while (end := self._heard.find(b"\n", looked)) < 0:
            looked = len(self._heard)
            if not wanted():
                return None
            if not output.poll(LOOKS_EVERY * 1000):
                continue
            data = os.read(fd, _CHUNK)
            if not data:
                self._ended = True
                rest = bytes(self._heard)
                self._heard.clear()
                return rest or None
            self._heard += data
        line = bytes(self._heard[:end])
        del self._heard[: end + 1]
        return line
