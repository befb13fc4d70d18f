"""What a stage measures besides its loss, between one log and the next."""

from collections.abc import Mapping
from typing import Any

from core.train.distributed.ranks import Ranks


class Measures:
    """Means by name, over rows and not over batches: they do not depend on how rows are put into batches.

    Sums stay on the device, as reading them would wait for it every batch.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[Any]] = {}

    def add(self, name: str, values: Any) -> None:
        """Take in `values`, a tensor with one number a row; rows may be none."""
        own = self._sums.setdefault(name, [0.0, 0])
        values = values.detach()
        own[0] = own[0] + values.double().sum()
        own[1] += values.numel()

    def means(self) -> dict[str, float]:
        """The mean of each; those of no rows are left out."""
        return {name: total / count for name, (total, count) in self._read() if count}

    def add_up(self, ranks: Ranks) -> None:
        """Take in what the other ranks have added, under the same names. A collective."""
        for name, (total, count) in self._read():
            sums = ranks.total([total, count])
            self._sums[name] = [sums[0], int(sums[1])]

    def clear(self) -> None:
        """Begin anew."""
        self._sums = {}

    def kept(self) -> dict[str, list[float]]:
        """What a checkpoint holds of it."""
        return {name: [total, count] for name, (total, count) in self._read()}

    def take_up(self, kept: Mapping[str, list[Any]]) -> None:
        """Go on with what a checkpoint holds."""
        self._sums = {name: [float(total), int(count)] for name, (total, count) in kept.items()}

    def _read(self) -> list[tuple[str, tuple[float, int]]]:
        return [(name, (float(total), count)) for name, (total, count) in self._sums.items()]
