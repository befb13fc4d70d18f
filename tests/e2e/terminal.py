"""A real terminal for tests: a command in a pseudo-terminal, with its screen kept by pyte."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte


class Terminal:
    """Runs one command in a pseudo-terminal of the given size."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 120,
        lines: int = 40,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        full = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
        full.pop("TMUX", None)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=full,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def pump(self, seconds: float = 0.05) -> None:
        """Read what the command writes for so long."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(0.0, left))
            if not ready:
                return
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            self._stream.feed(data)

    def press(self, keys: str) -> None:
        """Type `keys`, as a terminal would send them."""
        os.write(self._master, keys.encode())

    def wait(self, condition: Callable[[str], bool], what: str, timeout: float = 60.0) -> str:
        """Read until the screen fulfils `condition`; fails with the screen's text where it does not in time."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.pump()
            if condition(self.text()):
                return self.text()
            if self.process.poll() is not None:
                self.pump(0.2)
                if condition(self.text()):
                    return self.text()
                break
        raise AssertionError(f"never came: {what}; the screen shows:\n{self.text()}")

    def wait_text(self, wanted: str, timeout: float = 60.0) -> str:
        """Read until `wanted` stands on the screen."""
        return self.wait(lambda text: wanted in text, repr(wanted), timeout)

    def hang_up(self) -> None:
        """Close the terminal as a dropped link does: the session gets SIGHUP and end of input."""
        os.close(self._master)

    def kill(self) -> None:
        """SIGKILL for the command."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        """End the command if it still runs, and the terminal."""
        if self.process.poll() is None:
            self.kill()
        try:
            os.close(self._master)
        except OSError:
            return


def _take_terminal() -> None:
    """Make standard input the controlling terminal of the new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
