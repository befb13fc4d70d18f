"""What a training asks and says, where several ranks have to ask and say it together."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from transformers import TrainerCallback

from core.study.metrics import Point
from core.train.distributed.ranks import Ranks
from core.train.moments import Memory
from core.train.precision import Device
from core.train.signals import Requests

_CODES: tuple[Literal["paused", "stopped"] | None, ...] = (None, "paused", "stopped")


class AgreedRequests(Requests):
    """Requests that all ranks see at the same update, whichever of them was asked. Between two agreements they stay."""

    def __init__(self, own: Requests, ranks: Ranks) -> None:
        super().__init__()
        self._own = own
        self._ranks = ranks
        self._agreed: Literal["paused", "stopped"] | None = None

    @property
    def outcome(self) -> Literal["paused", "stopped"] | None:
        return self._agreed

    def agree(self) -> None:
        (code,) = self._ranks.most([_CODES.index(self._own.outcome)])
        self._agreed = _CODES[int(code)]

    def check(self) -> None:
        """Raise Interrupted where this rank was asked to end, before they train together."""
        self._own.check()


class SharedMemory(Memory):
    """What the fullest GPU holds now, and this rank's own peaks."""

    def __init__(self, device: Device, ranks: Ranks) -> None:
        super().__init__(device)
        self._ranks = ranks

    def now(self) -> tuple[int, int | None, int]:
        """As `Memory.now`, each the most of any rank. A collective."""
        allocated, reserved, peak = super().now()
        most = [int(n) for n in self._ranks.most([allocated, reserved or 0, peak])]
        return most[0], None if reserved is None else most[1], most[2]


class Follower(TrainerCallback):  # type: ignore[misc]
    """Stands on the other ranks where rank 0 has its reporter: takes part in what that asks all ranks, says nothing."""

    loss: float | None = None
    eval_loss: float | None = None

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def take_over(self, points: Sequence[Point]) -> None:
        """As of a reporter; rank 0 reports."""

    def leave_out(self, seconds: float) -> None:
        """As of a reporter; nothing is timed here."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **unused: Any
    ) -> None:
        if "loss" in logs:
            self._memory.now()
