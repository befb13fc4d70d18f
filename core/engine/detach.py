"""How a daemon leaves its terminal behind, and where its words go."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

MOST_LOG_BYTES = 512 * 1024
READY = "ready"


def run_detached(serve: Callable[[Callable[[str], None]], int], log: Path) -> int:
    """Run `serve` in a process of its own session that nobody waits for; returns once it is ready or has failed.

    `serve` gets a function to call with READY, or with the reason why it cannot start. A reason is printed, and the
    exit code is then 1.
    """
    reader, writer = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(reader)
        os.setsid()
        # The second fork: a session's leader could get a terminal again by opening one.
        if os.fork() != 0:
            os._exit(0)
        os._exit(_serve_alone(serve, log, writer))
    os.close(writer)
    os.waitpid(first, 0)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as pipe:
        word = pipe.read()
    if word == READY:
        return 0
    sys.stderr.write((word or f"the daemon ended before it was ready; {log} may say why") + "\n")
    return 1


def _serve_alone(serve: Callable[[Callable[[str], None]], int], log: Path, writer: int) -> int:
    told = False

    def tell(word: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writer, word.encode()[:4096])
            os.close(writer)
            redirect_output(log)

    devnull = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(devnull, standard)
    os.close(devnull)
    try:
        return serve(tell)
    except BaseException:
        import traceback

        trouble = traceback.format_exc()
        tell(f"the daemon failed: {trouble.strip().splitlines()[-1]}")
        sys.stderr.write(trouble)
        sys.stderr.flush()
        return 1


def redirect_output(log: Path) -> None:
    """Standard output and error into the log, for what no handler catches."""
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError:
        return
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


class DaemonLog:
    """The daemon's log: lines with a time, in two files that are never larger than MOST_LOG_BYTES each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.holds_output = False
        """Whether standard output and error go into the log too."""

    def say(self, text: str) -> None:
        """Add a line. A full disk silences the log and nothing else."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n"
        try:
            with self._path.open("a", encoding="utf-8") as log:
                size = log.tell()
                log.write(line)
            if size > MOST_LOG_BYTES:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                if self.holds_output:
                    redirect_output(self._path)
        except OSError:
            return
