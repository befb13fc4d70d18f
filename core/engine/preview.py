"""A profile's data as its training sees it, read in a process of its own: this side knows nothing of tokenizers."""

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType

from core.engine.asking import Asked, AskingError, BabbleError
from core.engine.launch import PROGRAM as _PROGRAM
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
        command = [sys.executable, "-P", str(_PROGRAM), "_data"]
        try:
            self._child = Asked(command, decode_told, "the data's process", grace=0.0)
        except AskingError as error:
            raise PreviewError(str(error)) from None
        # One that died at once is found when it is read from.
        with contextlib.suppress(AskingError):
            self._child.send(encode(asked))

    def __enter__(self) -> "Preview":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.close(given_up=True)

    def __iter__(self) -> Iterator[Told]:
        """What the process tells, as it comes; ends early where it is closed.

        Raises:
            PreviewError: the process died, or says what is no message.
        """
        ended = False
        try:
            while (told := self._child.hear()) is not None:
                ended = ended or isinstance(told, Counted | Failed)
                yield told
        except BabbleError as error:
            raise PreviewError(f"the data's process says what is no message: {error}") from None
        if self._child.wait() != 0 and not self._closed and not ended:
            raise PreviewError(self._child.last_words())

    def close(self) -> None:
        """End the process, also in the middle of its work: it only reads, and leaves nothing half."""
        self._closed = True
        self._child.kill()
