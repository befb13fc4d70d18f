"""Which rows each rank computes: its part of every batch, so that an update is made of the same rows however many
ranks share it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.train.data.examples import IGNORED, AnyExample
from core.train.data.order import epoch_order
from core.train.data.stored import sizes_of
from core.train.distributed.ranks import Ranks


class RankBatches(torch.utils.data.Sampler[list[int]]):  # type: ignore[misc]
    """One rank's batches of an epoch: of each `size` × ranks rows in the epoch's order, every n-th one.

    All ranks have as many batches. The last ones of an epoch may be smaller, and empty on some ranks.
    """

    def __init__(
        self,
        rows: int,
        size: int,
        seed: int,
        ranks: Ranks,
        epoch: Callable[[int], int],
        sizes: NDArray[np.int64] | None = None,
    ) -> None:
        """`size` is the batch per device. `epoch` says, given the number of batches in an epoch, which one begins;
        `sizes` what the order is grouped by, where it is."""
        self._rows = rows
        self._size = size
        self._seed = seed
        self._ranks = ranks
        self._epoch = epoch
        self._sizes = sizes

    def __iter__(self) -> Iterator[list[int]]:
        together = self._size * self._ranks.count
        order = epoch_order(self._rows, self._seed, self._epoch(len(self)), self._sizes)
        for start in range(0, self._rows, together):
            yield order[start : start + together][self._ranks.index :: self._ranks.count]

    def __len__(self) -> int:
        return -(-self._rows // (self._size * self._ranks.count))


class RankCollator:
    """Makes a rank's rows a batch. No rows become one from which nothing is learnt: the rank computes along, as the
    others wait for it, and adds nothing."""

    def __init__(self, collator: Any, rows: Sequence[AnyExample]) -> None:
        self._collator = collator
        self._spare = rows[int(np.argmin(sizes_of(rows)))]

    def __call__(self, batch: Sequence[AnyExample]) -> Any:
        """As the collator's."""
        if batch:
            return self._collator(batch)
        made = self._collator([self._spare])
        made["labels"].fill_(IGNORED)
        return made


def learnt_tokens(batch: dict[str, Any]) -> int:
    """The tokens of a batch that the loss is about."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def seen_tokens(batch: dict[str, Any]) -> int:
    """The tokens of a batch without padding; none of one that stands for no rows."""
    return int(unpadded(batch)) if learnt_tokens(batch) else 0


def unpadded(batch: Mapping[str, Any]) -> Any:
    """The tokens of a batch without padding: a tensor of one number, on the batch's device.

    Where rows are packed there is no mask but positions. Padding has position 0; each row begins with one and goes on
    with at least another token.
    """
    if "attention_mask" in batch:
        return batch["attention_mask"].sum()
    positions = batch["position_ids"]
    return (positions > 0).sum() + (positions == 1).sum()
