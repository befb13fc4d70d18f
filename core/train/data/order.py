"""The order of the rows in an epoch: one that all trials of a study share, whatever their batch size."""

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]

_CHUNK = 4096
"""Rows that are drawn together and then sorted by length: so many that neighbours are of about one length."""
_BLOCK = 32
"""Neighbours that stay together: batches of up to so many rows, of a size that divides it, hold no others."""


def epoch_order(rows: int, seed: int, epoch: int, lengths: Lengths | None = None) -> list[int]:
    """A permutation of the rows that depends on the seed and the epoch alone.

    With `lengths` (tokens of each row), rows of about the same length come one after the other: chunks of the random
    order are sorted by length and cut into blocks, and the blocks come in random order. Chunks and blocks have fixed
    sizes, so that the order does not depend on the batch either.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(rows)
    if lengths is not None:
        order = _grouped(order, np.asarray(lengths), generator)
    return [int(i) for i in order]


def _grouped(order: Lengths, lengths: Lengths, generator: np.random.Generator) -> Lengths:
    """`order` in blocks of rows of about one length. What does not fill a block comes last, so that the others keep
    their places in batches."""
    chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
    ordered = np.concatenate(
        [chunk[np.argsort(-lengths[chunk], kind="stable")] for chunk in chunks] or [order]
    )
    whole = len(ordered) // _BLOCK * _BLOCK
    blocks = ordered[:whole].reshape(-1, _BLOCK)
    shuffled = blocks[generator.permutation(len(blocks))].reshape(-1)
    return np.concatenate([shuffled, ordered[whole:]])
