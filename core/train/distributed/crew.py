"""The other ranks of a trial: processes that rank 0 starts beside itself, watches, and takes along when it ends.

They are workers as rank 0 is one, started before the slow imports so that all import at once. What they have to say
about their end comes through a pipe; nothing else of them is read. They end with rank 0, however that ends. One that
fails ends the whole trial at once, with its reason: the others would wait for it for ever.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.profile import ROOT
from core.study.files import Moment, WorkerReport
from core.train.distributed.ranks import LOCALHOST, Place

PATIENCE = 10.0
"""Seconds that a rank which lost another one waits for that one's own word on the cause."""
FAREWELL = 60.0
"""Seconds to wait for the reports of ranks that have nothing left to do."""
_SIGNS = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe")
"""What an error says, in small letters, when another rank does not answer any more."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class _Member:
    """Another rank."""

    index: int
    process: subprocess.Popen[bytes]
    pipe: int
    """Where its report is read from."""


class Crew:
    """The other ranks, as rank 0 sees them."""

    def __init__(self, folder: Path, count: int, fail: Callable[[int, WorkerReport], None]) -> None:
        """Start `count` - 1 ranks of the trial in `folder`. `fail` is called in a thread where one fails, with its
        number and its report; it does not return."""
        self._fail = fail
        listener = socket.create_server((LOCALHOST, 0), backlog=count)
        port = listener.getsockname()[1]
        self.place = Place(0, count, port, listener=listener.detach())
        """Rank 0's own place."""
        self._ended: list[WorkerReport] = []
        self._closing = threading.Event()
        self._members = [_start(folder, Place(n, count, port)) for n in range(1, count)]
        self._threads = [
            threading.Thread(target=self._watch, args=(member,), daemon=True)
            for member in self._members
        ]
        for thread in self._threads:
            thread.start()

    def await_cause(self) -> None:
        """Give a rank that failed the time to say why; does not return where one did."""
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def end(self, report: WorkerReport) -> WorkerReport:
        """End the other ranks, and put the most that any rank held into rank 0's report."""
        # What becomes of them now is not the trial's end any more.
        self._closing.set()
        if report.outcome != "failed" and report.phase not in ("start", "data", "load"):
            # They come to the same end by themselves.
            until = time.monotonic() + FAREWELL
            for thread in self._threads:
                thread.join(max(0.0, until - time.monotonic()))
        for member in self._members:
            member.process.kill()
        for thread in self._threads:
            thread.join(PATIENCE)
        return _fullest([report, *self._ended])

    def _watch(self, member: _Member) -> None:
        """Read one rank's report and wait for its end."""
        with os.fdopen(member.pipe, "rb") as pipe:
            said = pipe.read()
        code = member.process.wait()
        ended = _parsed(said)
        if ended is not None and ended.outcome != "failed":
            self._ended.append(ended)
            return
        if ended is not None and is_lost(ended):
            # The one that it lost tells more.
            self._closing.wait(PATIENCE)
        if self._closing.is_set():
            return
        if ended is not None:
            self._fail(member.index, ended)
        elif code < 0 and signal.getsignal(-code) is signal.SIG_DFL:
            _die_alike(member.index, -code)
        else:
            error = f"the process of GPU {member.index + 1} ended with exit code {code} and said nothing"
            self._fail(member.index, WorkerReport(0, "failed", "train", error=error))


def _start(folder: Path, place: Place) -> _Member:
    reader, writer = os.pipe()
    place = msgspec.structs.replace(place, report=writer, parent=os.getpid())
    command = [sys.executable, "-P", str(ROOT / "tunedeck.py"), "_worker", str(folder)]
    process = subprocess.Popen(
        [*command, msgspec.json.encode(place).decode()],
        stdin=subprocess.DEVNULL,
        # What they would say, rank 0 says; what goes wrong stands in the same log.
        stdout=subprocess.DEVNULL,
        pass_fds=(writer,),
    )
    os.close(writer)
    return _Member(place.index, process, reader)


def become_member(place: Place) -> None:
    """End with rank 0, and leave it to hear what the trial is asked."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != place.parent:
        os._exit(1)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def send(place: Place, report: WorkerReport) -> None:
    """Tell rank 0 how this rank ended."""
    if place.report is not None:
        with os.fdopen(place.report, "wb") as pipe:
            pipe.write(msgspec.json.encode(report))


def is_lost(report: WorkerReport) -> bool:
    """Whether a rank failed because another one did not answer any more, so that the cause lies there."""
    named = (report.error_type or "").startswith("torch.distributed.Dist")
    text = (report.error or "").lower()
    return report.outcome == "failed" and (named or any(sign in text for sign in _SIGNS))


def _die_alike(index: int, number: int) -> None:
    """End as another rank was ended, so that whoever watches reads it as this trial's end: a kill for want of memory,
    a crash of a driver."""
    print(f"the process of GPU {index + 1} was ended by signal {number}", flush=True)
    os.kill(os.getpid(), number)


def _parsed(said: bytes) -> WorkerReport | None:
    try:
        return msgspec.json.decode(said, type=WorkerReport)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _fullest(reports: list[WorkerReport]) -> WorkerReport:
    """The first report, with the most that any of them held in place of its own."""
    moments: dict[Moment, int] = {}
    for report in reports:
        for moment, held in (report.moments or {}).items():
            moments[moment] = max(held, moments.get(moment, 0))
    return msgspec.structs.replace(
        reports[0],
        peak_memory=_most([r.peak_memory for r in reports]),
        peak_reserved=_most([r.peak_reserved for r in reports]),
        context_bytes=_most([r.context_bytes for r in reports]),
        moments=moments or reports[0].moments,
    )


def _most(sizes: list[int | None]) -> int | None:
    return max((size for size in sizes if size is not None), default=None)
