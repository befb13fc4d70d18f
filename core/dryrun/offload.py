"""Saved activations that go to the host's memory, as core.train.memory.offload sends them: the device holds none of
them, and each use of one brings a copy of it back."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from core.train.memory.offload import LEAST, around_decoder


def offload_fake(model: Any) -> None:
    """Make `model` send what its decoder layers save to the host."""
    around_decoder(model, _hooks(model))


def _hooks(model: Any) -> Callable[[], AbstractContextManager[Any]]:
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}

    def pack(tensor: Any) -> Any:
        large = tensor.numel() * tensor.element_size() >= LEAST
        if not large or tensor.untyped_storage()._cdata in weights:
            return tensor
        return tensor.size(), tensor.stride(), tensor.dtype

    def unpack(saved: Any) -> Any:
        if not isinstance(saved, tuple):
            return saved
        size, stride, dtype = saved
        return torch.empty_strided(size, stride, dtype=dtype)

    return lambda: torch.autograd.graph.saved_tensors_hooks(pack, unpack)
