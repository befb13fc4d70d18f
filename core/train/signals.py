"""What a worker is asked to do while it runs: pause (SIGUSR1) or stop (SIGTERM)."""

import os
import signal
from types import FrameType
from typing import Literal


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """A pause or a stop was asked for before training began."""

    def __init__(self, outcome: Literal["paused", "stopped"]) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Requests:
    """Remembers what was asked; the training loop looks after every update. A stop outranks a pause."""

    def __init__(self) -> None:
        self._pause = False
        self._stop = False

    def listen(self) -> None:
        """Take over the process's signals. A second SIGTERM ends it at once; a terminal's signals are ignored."""
        signal.signal(signal.SIGUSR1, self._on_pause)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @property
    def outcome(self) -> Literal["paused", "stopped"] | None:
        """How the trial is asked to end; None: it is to go on."""
        if self._stop:
            return "stopped"
        return "paused" if self._pause else None

    def agree(self) -> None:
        """Settle with the other processes of the trial what was asked; alone there is nobody to settle it with."""

    def check(self) -> None:
        """Raise Interrupted where an end was asked for."""
        if self.outcome is not None:
            raise Interrupted(self.outcome)

    def _on_pause(self, number: int, frame: FrameType | None) -> None:
        self._pause = True

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            os._exit(1)
        self._stop = True
