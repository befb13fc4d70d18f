"""What a stage measures besides its loss, between one log and the next."""

from collections.abc import Mapping
from typing import Any

from core.train.distributed.ranks import ALONE, Ranks


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

    def means(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The mean of each over the rows of all ranks; those of no rows are left out. A collective."""
        return {name: total / count for name, (total, count) in self._read(ranks) if count}

    def add_up(self, ranks: Ranks) -> None:
        """Take in what the other ranks have added. A collective."""
        self._sums = self.kept(ranks)

    def clear(self) -> None:
        """Begin anew."""
        self._sums = {}

    def kept(self, ranks: Ranks = ALONE) -> dict[str, list[float]]:
        """What a checkpoint holds of it: the sums over all ranks. A collective."""
        return {name: [total, count] for name, (total, count) in self._read(ranks)}

    def take_up(self, kept: Mapping[str, list[Any]], ranks: Ranks = ALONE) -> None:
        """Go on with what a checkpoint holds: rank 0 does, as the sums over all ranks are made again."""
        own = kept if ranks.first else dict.fromkeys(kept, (0.0, 0))
        self._sums = {name: [float(total), int(count)] for name, (total, count) in own.items()}

    def _read(self, ranks: Ranks = ALONE) -> list[tuple[str, tuple[float, int]]]:
        """The sum and the number of rows of each name. All ranks have the same names, in one order."""
        own = [float(number) for sums in self._sums.values() for number in sums]
        numbers = iter(ranks.total(own) if own and ranks.several else own)
        return [(name, (next(numbers), int(next(numbers)))) for name in self._sums]
