"""Proofs of memory, made in processes of their own: this side knows nothing of torch.

A process is started with the first question, answers one after the other, and ends when this one does.
"""

import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

import msgspec

from core.memory.forecast import Forecast, Lengths, Target
from core.memory.proof import (
    Measured,
    MeasureLengths,
    Prove,
    Proven,
    Refused,
    Reply,
    Request,
    decode_reply,
    encode,
)
from core.profile import Profile

_PROGRAM = Path(__file__).resolve().parents[2] / "tunedeck.py"
TIME_LIMIT = 180.0
"""Seconds that one answer may take; a model of 70 billion parameters takes about 15 on an idle core."""
_CHUNK = 1 << 16
_LONGEST = 1 << 20
"""Bytes of an answer; one has a few thousand."""


SHARED = "it is shared by several GPUs, which is not simulated"
"""Why a run of several GPUs cannot be proven."""


class ProofError(Exception):
    """A run cannot be proven; the message is a sentence that says why."""


def is_simulated(profile: Profile) -> bool:
    """Whether a dry run can say anything of a profile: it knows one GPU, and not what passes between several."""
    return profile.resources.gpus_per_trial == 1


class Prover:
    """Asks for proofs. A context manager; safe to use from several threads."""

    def __init__(self, processes: int = 1, time_limit: float = TIME_LIMIT) -> None:
        """`processes` work side by side on what `prove_all` asks; each takes about half a GiB of memory."""
        if processes < 1:
            raise ValueError(f"a prover needs at least one process, not {processes}")
        self._workers = [_Process(time_limit) for _ in range(processes)]
        self._turns = threading.Lock()
        self._last = 0

    def __enter__(self) -> "Prover":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, also in the middle of a proof."""
        for worker in self._workers:
            worker.close()

    def start(self) -> None:
        """Start the processes, so that the first question need not wait for it."""
        for worker in self._workers:
            worker.start()

    def lengths(self, profile: Profile) -> Lengths:
        """The longest rows of the profile's data in tokens, padded to a multiple of 8 as on CUDA.

        Raises:
            ProofError: the data, the tokenizer or the template cannot be read.
        """
        reply = self._next().ask(MeasureLengths(_document(profile)))
        if not isinstance(reply, Measured):
            raise ProofError(_reason(reply))
        return reply.lengths

    def prove(self, profile: Profile, target: Target, lengths: Lengths) -> Forecast:
        """What the profile's run needs on `target`, with rows as long as `lengths`, and at most data.cutoff_len.

        Raises:
            ProofError: it cannot be simulated.
        """
        if not is_simulated(profile):
            raise ProofError(SHARED)
        return _forecast(self._next().ask(Prove(_document(profile), target, lengths)))

    def prove_all(
        self, profiles: Sequence[Profile], target: Target, lengths: Lengths
    ) -> list[Forecast | ProofError]:
        """The same for several profiles, in their order; one that cannot be simulated does not stop the others."""
        left: SimpleQueue[int] = SimpleQueue()
        for index in range(len(profiles)):
            left.put(index)
        answers: dict[int, Forecast | ProofError] = {}

        def work(worker: _Process) -> None:
            with suppress(Empty):
                while True:
                    index = left.get_nowait()
                    try:
                        if not is_simulated(profiles[index]):
                            raise ProofError(SHARED)
                        request = Prove(_document(profiles[index]), target, lengths)
                        answers[index] = _forecast(worker.ask(request))
                    except ProofError as error:
                        answers[index] = error

        threads = [
            threading.Thread(target=work, args=(worker,), daemon=True)
            for worker in self._workers[: len(profiles)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[index] for index in range(len(profiles))]

    def _next(self) -> "_Process":
        with self._turns:
            self._last = (self._last + 1) % len(self._workers)
            return self._workers[self._last]


class _Process:
    """One process of the dry run. It is started when it is asked, and anew after it died."""

    def __init__(self, time_limit: float) -> None:
        self._limit = time_limit
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._said: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._closed = False

    def start(self) -> None:
        with self._lock:
            self._running()

    def ask(self, request: Request) -> Reply:
        with self._lock:
            child = self._running()
            assert child.stdin is not None
            try:
                child.stdin.write(encode(request))
                child.stdin.flush()
                line = self._read_line(child)
            except OSError:
                line = b""
            if not line:
                raise ProofError(self._last_words(child))
            try:
                return decode_reply(line)
            except msgspec.DecodeError as error:
                self._end()
                raise ProofError(f"the dry run answered what is no answer: {error}") from None

    def close(self) -> None:
        self._closed = True
        # Without the lock: a proof that is under way would be waited for.
        child = self._child
        if child is not None and child.poll() is None:
            with suppress(OSError):
                child.kill()
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise ProofError("the dry run has been closed")
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        self._said = tempfile.TemporaryFile()  # type: ignore[assignment]  # noqa: SIM115 - closed by _end
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), "_dryrun"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        if self._closed:
            # close() came between, and saw no process to end.
            self._end()
            raise ProofError("the dry run has been closed")
        return self._child

    def _read_line(self, child: subprocess.Popen[bytes]) -> bytes:
        """The next line; empty where there is none: the process died.

        Raises:
            ProofError: it takes too long.
        """
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        deadline = time.monotonic() + self._limit
        parts = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not parts.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._end()
                    raise ProofError(
                        f"the dry run took longer than {self._limit:.0f} seconds and was ended"
                    )
                chunk = os.read(descriptor, _CHUNK)
                if not chunk:
                    return b""
                parts += chunk
                if len(parts) > _LONGEST:
                    self._end()
                    raise ProofError("the dry run answered without an end and was ended")
        return bytes(parts)

    def _last_words(self, child: subprocess.Popen[bytes]) -> str:
        """What is known of how a process ended; it is gone afterwards."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        said = b""
        if self._said is not None:
            self._said.seek(0)
            said = self._said.read()
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        code = child.poll()
        self._end()
        if self._closed:
            return "the dry run has been closed"
        if code is None:
            return "the dry run's process closed its output and was ended"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last = f": {lines[-1].strip()}" if lines else ""
        return f"the dry run's process ended ({how}){last}"

    def _end(self) -> None:
        child, said = self._child, self._said
        self._child = self._said = None
        if child is not None:
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        if said is not None:
            said.close()


def _document(profile: Profile) -> dict[str, dict[str, object]]:
    return profile.as_training().to_document()


def _forecast(reply: Reply) -> Forecast:
    if not isinstance(reply, Proven):
        raise ProofError(_reason(reply))
    return reply.forecast


def _reason(reply: Reply) -> str:
    return reply.reason if isinstance(reply, Refused) else "the dry run answered another question"
