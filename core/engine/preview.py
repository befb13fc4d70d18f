"""A profile's data as its training sees it, read in a process of its own: this side knows nothing of tokenizers."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from core.profile import Profile
from core.study.preview import (
    FIRST_ROWS,
    Counted,
    Failed,
    PreviewRequest,
    Told,
    decode_told,
    encode,
)

_PROGRAM = Path(__file__).resolve().parents[2] / "tunedeck.py"


class PreviewError(Exception):
    """The data cannot be looked at, for a reason that is not the data's; the message says which."""


def request(
    profile: Profile,
    *,
    examples: int = 3,
    row: int | None = None,
    most: int | None = FIRST_ROWS,
    examine: bool = True,
) -> PreviewRequest:
    """The question about a profile; the keys are those of `PreviewRequest`."""
    document = profile.as_training().to_document()
    return PreviewRequest(document, examples, row, most, examine)


class Preview:
    """One look at a profile's data: iterate over what the process tells. A context manager; `close` may be called from
    another thread and ends the iteration."""

    def __init__(self, asked: PreviewRequest) -> None:
        """Start the process.

        Raises:
            PreviewError: it cannot be started.
        """
        self._closed = False
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), "_data"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
            )
        except OSError as error:
            self._said.close()
            raise PreviewError(f"the data's process cannot be started: {error}") from error
        assert self._child.stdin is not None
        # One that died at once is found when it is read from.
        with contextlib.suppress(OSError):
            self._child.stdin.write(encode(asked))
            self._child.stdin.flush()

    def __enter__(self) -> "Preview":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._said.close()

    def __iter__(self) -> Iterator[Told]:
        """What the process tells, as it comes; ends early where it is closed.

        Raises:
            PreviewError: the process died, or says what is no message.
        """
        assert self._child.stdout is not None
        ended = False
        for line in self._child.stdout:
            try:
                told = decode_told(line)
            except msgspec.DecodeError as error:
                raise PreviewError(f"the data's process says what is no message: {error}") from None
            ended = ended or isinstance(told, Counted | Failed)
            yield told
        code = self._child.wait()
        if not self._closed and code != 0 and not ended:
            raise PreviewError(self._last_words(code))

    def close(self) -> None:
        """End the process, also in the middle of its work."""
        self._closed = True
        if self._child.poll() is None:
            with contextlib.suppress(OSError):
                self._child.kill()

    def _last_words(self, code: int) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = ", which is what the kernel does when memory runs out" if code == -9 else ""
        return f"the data's process ended ({how}{hint})" + (f": {last}" if last else "")
