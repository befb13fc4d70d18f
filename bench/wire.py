"""How many bytes a program sends to its terminal: runs it on a real pseudo-terminal.

A client on a bad link is judged by what goes over the wire, so the bytes are counted where the
kernel hands them over, not where Textual thinks that it writes them.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import pyte

_READ = 65536
_SYNC_QUERY, _SYNC_YES = b"\x1b[?2026$p", b"\x1b[?2026;2$y"
_SYNC_MARKS = (b"\x1b[?2026h", b"\x1b[?2026l")
_QUIET_S = 0.3
_PATIENCE_S = 120.0


class NotQuietError(Exception):
    """The program went on writing for longer than it was given."""


class Wire:
    """A program on a pseudo-terminal of `columns` × `rows`, and everything that it has written.

    `answers_sync`: answer the synchronized-output query as a modern terminal does; tmux before
    3.7 does not. Use as a context manager: leaving it ends the program.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        answers_sync: bool = False,
    ) -> None:
        self.columns, self.rows = columns, rows
        self.output = bytearray()
        self._answers_sync = answers_sync
        self._tail = b""
        self._master, slave = pty.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            self.process = subprocess.Popen(
                list(argv),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd,
                env={**_plain_environment(), **(env or {})},
                start_new_session=True,
                # The terminal must control the session, or neither a resize nor a hang-up
                # reaches the program.
                preexec_fn=_take_terminal,
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program, with everything it started, and close the terminal."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Drop the terminal as a lost connection does; the program gets SIGHUP and end of input."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def send(self, keys: bytes | str) -> None:
        """Type `keys`."""
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; the kernel tells the program."""
        self.columns, self.rows = columns, rows
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def count(self, seconds: float) -> int:
        """Read for so long; the number of bytes that came."""
        before, end = len(self.output), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self._read(left):
                break
        return len(self.output) - before

    def settle(self, *, quiet: float = _QUIET_S, timeout: float = _PATIENCE_S) -> int:
        """Read until nothing has come for `quiet` seconds; the number of bytes that came.

        Raises NotQuietError if that has not happened after `timeout` seconds.
        """
        before, end = len(self.output), time.monotonic() + timeout
        while time.monotonic() < end:
            if not self._read(quiet):
                return len(self.output) - before
        raise NotQuietError(
            f"still writing after {timeout:g} s ({len(self.output) - before} bytes)"
        )

    def wait_for(self, text: str, *, timeout: float = _PATIENCE_S) -> None:
        """Read until `text` stands on the screen. Raises NotQuietError with the screen if not."""
        end = time.monotonic() + timeout
        while text not in (screen := "\n".join(self.screen())):
            # Asked before reading: what it wrote last may have come in between.
            ended = self.process.poll() is not None
            if time.monotonic() > end or (not self._read(0.1) and ended):
                raise NotQuietError(f"{text!r} never appeared; the screen shows:\n{screen}")

    def ask(self, keys: bytes | str, *, quiet: float = _QUIET_S) -> int:
        """Type `keys` and read until it is quiet again; the number of bytes that came."""
        self.send(keys)
        return self.settle(quiet=quiet)

    def screen(self) -> list[str]:
        """The lines that a terminal shows after everything that was written so far."""
        return list(self.terminal().display)

    def terminal(self) -> pyte.Screen:
        """A terminal emulator that has read everything that was written so far."""
        screen = pyte.Screen(self.columns, self.rows)
        stream = pyte.ByteStream(screen)
        stream.feed(_without_what_pyte_prints(bytes(self.output)))
        return screen

    def _read(self, timeout: float) -> bool:
        """Read what is there within `timeout` seconds; False if nothing was, or it has ended."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout))
        if not ready:
            return False
        try:
            data = os.read(self._master, _READ)
        except OSError:  # EIO: the last program on the terminal has closed it
            return False
        self.output += data
        if self._answers_sync and _SYNC_QUERY in self._tail + data:
            self.send(_SYNC_YES)
            self._answers_sync = False
        self._tail = data[-len(_SYNC_QUERY) + 1 :]
        return bool(data)


def _take_terminal() -> None:
    """Make standard input the controlling terminal; runs in the child before the program."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _plain_environment() -> dict[str, str]:
    """The environment without what would make a run depend on who started it."""
    changes_output = ("TMUX", "STY", "NO_COLOR", "COLORTERM", "TERM_PROGRAM", "COLUMNS", "LINES")
    env = {k: v for k, v in os.environ.items() if k not in changes_output}
    env = {k: v for k, v in env.items() if not k.startswith("TEXTUAL")}
    return {**env, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def _without_what_pyte_prints(output: bytes) -> bytes:
    """`output` without the private sequences that pyte does not know and would print."""
    kept = bytearray()
    rest = output
    while (start := rest.find(b"\x1b[")) >= 0:
        end = start + 2
        while end < len(rest) and not 0x40 <= rest[end] <= 0x7E:
            end += 1
        body = rest[start + 2 : end + 1]
        kept += rest[:start]
        if not (
            body[:1] in (b">", b"<", b"=") or b"$" in body or rest[start : end + 1] in _SYNC_MARKS
        ):
            kept += rest[start : end + 1]
        rest = rest[end + 1 :]
    return bytes(kept + rest)
