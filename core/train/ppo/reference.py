"""What PPO holds a policy to: the model as it was before training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from core.train.ppo.policy import causal_of


@contextmanager
def reference_of(model: Any, copy: Any) -> Iterator[Any]:
    """The causal language model that says, within, how likely an answer was before training: `copy`, or where that is
    None the policy `model` with its adapters off."""
    if copy is not None:
        yield copy
        return
    with model.disable_adapter():
        yield causal_of(model)


def share_weights(model: Any, other: Any) -> int:
    """Let `other` use the frozen weights of `model` in place of its own, where they have the same name and are equal;
    returns how many bytes that frees.

    A reward model that is an adapter of the policy's own base is so only as large as its adapter, and a reference that
    is named as what it has of its own. `other` may be on another device, where only a weight at a time is
    then beside the policy's.
    """
    frozen = {_plain(n): p for n, p in model.named_parameters() if not p.requires_grad}
    freed = 0
    for name, weight in other.named_parameters():
        own = frozen.get(_plain(name))
        if own is None or own.shape != weight.shape or own.dtype != weight.dtype:
            continue
        if torch.equal(own, weight.to(own.device)):
            weight.data = own.data
            freed += weight.numel() * weight.element_size()
    return freed


def _plain(name: str) -> str:
    """A weight's name without what adapters put around its module."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
