"""The widest batch that the data can make, run once and forgotten, so that memory that is not enough shows at once.

Rows differ in length and come in a random order: without this, the batch that does not fit may come after hours.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from core.train.data.examples import AnyExample
from core.train.data.stored import sizes_of


def longest_rows(rows: Sequence[AnyExample], count: int) -> list[AnyExample]:
    """The `count` longest rows: no batch of as many is wider, whatever the order."""
    longest = np.argsort(-sizes_of(rows), kind="stable")[:count]
    return [rows[int(i)] for i in longest]


def widest_batch(rows: Sequence[AnyExample], size: int) -> list[AnyExample]:
    """The widest of the batches that `rows` make in their order; of those that are as wide, the one of most rows."""
    sizes = sizes_of(rows)
    batches = [sizes[start : start + size] for start in range(0, len(sizes), size)]
    start = size * int(np.argmax([batch.max() * len(batch) for batch in batches]))
    return list(rows[start : start + size])


@contextmanager
def without_trace(model: Any) -> Iterator[None]:
    """Whatever of `model` runs within, what comes after computes as if it had not: random states, and what positions
    remember of the longest row (buffers, which modules replace, and the length that they are for), are put back.

    Gradients are not: who makes some drops them.
    """
    python, numpy = random.getstate(), np.random.get_state()
    buffers = [(m, name, b) for m in model.modules() for name, b in m.named_buffers(recurse=False)]
    lengths = [(m, _lengths(m)) for m in model.modules()]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
        for module, before in lengths:
            for name in _lengths(module).keys() - before.keys():
                delattr(module, name)
            vars(module).update(before)


def _lengths(module: Any) -> dict[str, Any]:
    """The lengths that a module's positions are for, of which kinds of layers may have their own."""
    return {name: n for name, n in vars(module).items() if name.endswith("max_seq_len_cached")}
