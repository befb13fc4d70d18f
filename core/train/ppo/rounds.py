"""Which prompts PPO answers when, and which of the answers each update learns from.

An epoch's prompts come in the order that every stage has them in (`epoch_order`), so that all trials answer the same
prompts in the same order. A *round* takes the next `buffer` × effective batch of them, draws an answer to each, and
goes over the answers `passes` times. What an epoch goes over is so `passes` × the prompts, and a round is
`buffer` × `passes` updates but for an epoch's last one, which may be smaller. No round reaches over an epoch's end.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.data_size import steps_per_epoch
from core.train.data.order import Lengths, epoch_order


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds of a run over `rows` prompts, `batch` of them an update."""

    rows: int
    batch: int
    buffer: int
    passes: int
    seed: int
    lengths: Lengths | None = None
    """What the order of prompts is grouped by, where it is."""

    @property
    def updates_per_epoch(self) -> int:
        """Updates that go over all prompts, each `passes` times."""
        return steps_per_epoch(self.rows * self.passes, self.batch)

    def number(self, update: int) -> int:
        """The round (from 0) that the update (from 0) learns from."""
        epoch, within = divmod(update, self.updates_per_epoch)
        return epoch * self._per_epoch + within // (self.buffer * self.passes)

    def prompts(self, number: int) -> list[int]:
        """The rows that are answered in a round."""
        epoch, place = divmod(number, self._per_epoch)
        return self._parts(epoch)[place]

    def order(self, epoch: int) -> Iterator[int]:
        """The rows whose answers an epoch's updates learn from, one after the other: each round's in the order in which
        they were drawn, then, pass by pass, in others."""
        for place, part in enumerate(self._parts(epoch)):
            yield from part
            for further in range(1, self.passes):
                seeds = [self.seed, epoch, place, further]
                mixed = np.random.Generator(np.random.PCG64(seeds)).permutation(len(part))
                yield from (part[i] for i in mixed.tolist())

    @property
    def _size(self) -> int:
        return self.buffer * self.batch

    @property
    def _per_epoch(self) -> int:
        return -(-self.rows // self._size)

    def _parts(self, epoch: int) -> list[list[int]]:
        order = epoch_order(self.rows, self.seed, epoch, self.lengths)
        return [order[at : at + self._size] for at in range(0, self.rows, self._size)]
