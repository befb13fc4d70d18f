"""Warns before a trial's memory reaches what it may take, when it grows while the trial runs."""

from core.memory.oom import human_bytes

NEAR = 0.92
"""From this share of the capacity on there is something to warn of."""
GROWN = 0.01
"""Less than this share of the capacity is no growth: workspaces come and go."""
FIRST_POINTS = 3
"""So many points show what the trial holds from its start; the optimizer's states come with the first update."""


class Creep:
    """One attempt's memory against its capacity, fed one point at a time. It speaks once."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: bytes that the attempt may take; 0 or less where nobody knows, and then nothing is said."""
        self._capacity = capacity
        self._points = 0
        self._first = 0
        self._first_step = 0
        self.told = False
        """Whether the limit came near, so that nothing more is said."""

    def observe(self, step: int, held: int, tensors: int | None = None) -> str | None:
        """What to say at an update: `held` and, of it, the most that tensors took so far, in bytes; mostly None."""
        self._points += 1
        if self._points <= FIRST_POINTS:
            if held > self._first:
                self._first, self._first_step = held, step
            return None
        if self.told or not _creeps(self._first, held, self._capacity):
            return None
        self.told = True
        reserve = tensors is not None and tensors < held
        of_it = f" (tensors took up to {human_bytes(tensors)} of it)" if tensors and reserve else ""
        return (
            f"its memory grows towards its limit: {human_bytes(held)} at step {step}{of_it}, after "
            f"{human_bytes(self._first)} at step {self._first_step}, of {human_bytes(self._capacity)} "
            f"that it may take ({held / self._capacity:.0%}); a longer batch may not fit"
        )


def _creeps(first: int, held: int, capacity: int) -> bool:
    near = capacity > 0 and held >= NEAR * capacity
    return near and held - first >= GROWN * capacity
