"""Which rows each rank computes: its part of every batch, so that an update is made of the same rows however many
ranks share it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.train.data.examples import IGNORED, AnyExample, Tokens
from core.train.data.order import epoch_order
from core.train.data.stored import sizes_of
from core.train.distributed.ranks import Ranks

SPARE = "spare"
"""What a batch has besides its tensors where it stands for no rows and has no labels that could say so."""


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
        if "labels" not in made:
            return {**made, SPARE: True}
        made["labels"].fill_(IGNORED)
        return made


def before(parts: Sequence[Sequence[Tokens]], ranks: Ranks) -> tuple[list[list[Tokens]], int]:
    """For each row of this rank's batches of an update, what the row before it in the update holds, and the number of
    rows in the update. The row before the first one is the last. A collective.

    `parts` are what the rows of each batch hold. The update's rows are in the order in which one process has them: that
    of `RankBatches`, which gives each rank every n-th one of a batch.
    """
    own = {
        (number, row * ranks.count + ranks.index): tokens
        for number, part in enumerate(parts)
        for row, tokens in enumerate(part)
    }
    every = _everyone(own, ranks)
    places = sorted(every)
    previous = dict(zip(places, places[-1:] + places[:-1], strict=True))
    found = [
        [every[previous[number, row * ranks.count + ranks.index]] for row in range(len(part))]
        for number, part in enumerate(parts)
    ]
    return found, len(places)


def _everyone(own: dict[tuple[int, int], Tokens], ranks: Ranks) -> dict[tuple[int, int], Tokens]:
    """What all ranks hold, by its place in the update: batch, and row of that."""
    if not ranks.several:
        return own
    sent: list[float] = []
    for (batch, row), tokens in own.items():
        sent += [batch, row, len(tokens), *tokens.tolist()]
    every: dict[tuple[int, int], Tokens] = {}
    for numbers in ranks.exchange(sent):
        at = 0
        while at < len(numbers):
            batch, row, length = (int(number) for number in numbers[at : at + 3])
            at += 3 + length
            every[batch, row] = np.asarray(numbers[at - length : at], dtype=np.int32)
    return every


def computed(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a batch a model takes."""
    return {name: value for name, value in inputs.items() if name != SPARE}


def learnt_tokens(batch: dict[str, Any]) -> int:
    """The tokens of a batch that the loss is about."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def seen_tokens(batch: dict[str, Any]) -> int:
    """The tokens of a batch without padding; none of one that stands for no rows."""
    empty = SPARE in batch or ("labels" in batch and not learnt_tokens(batch))
    return 0 if empty else int(unpadded(batch))


def unpadded(batch: Mapping[str, Any]) -> Any:
    """The tokens of a batch without padding: a tensor of one number, on the batch's device.

    Where rows are packed there is no mask but positions. Padding has position 0; each row begins with one and goes on
    with at least another token.
    """
    if "attention_mask" in batch:
        return batch["attention_mask"].sum()
    positions = batch["position_ids"]
    return (positions > 0).sum() + (positions == 1).sum()
