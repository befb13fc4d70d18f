"""What operations return that depends on data, which fake tensors have not: how many tokens are answers is assumed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_Run = Callable[[Any, Any, Any], Any]


class Assumed:
    """Carries out operations: those that look at data as if `answers` tokens of each row were learnt, and half of all
    rows were good answers; all others as `run` does. A number that is read is 1."""

    def __init__(self, answers: int, run: _Run) -> None:
        self.answers = answers
        """The most tokens of a row that are learnt."""
        self._run = run
        self._paused = False
        aten = torch.ops.aten
        self._own: dict[Any, Callable[..., Any]] = {
            aten._local_scalar_dense.default: _one,
            aten.nonzero.default: self._nonzero,
            aten.masked_select.default: self._select,
            aten.masked_scatter_backward.default: _scattered,
        }
        self._indexed: dict[Any, Callable[..., Any]] = {
            aten.index.Tensor: self._index,
            aten.index_put_.default: _first,
            aten._index_put_impl_.default: _first,
        }

    def run(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """What `operation` returns."""
        if self._paused:
            return self._run(operation, args, kwargs)
        own = self._own.get(operation)
        if own is None and operation in self._indexed and mask_of(args[1]) is not None:
            own = self._indexed[operation]
        return self._run(operation, args, kwargs) if own is None else own(*args, **kwargs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is assumed: a model that looks at its data cannot be simulated."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def count(self, mask: Any) -> int:
        """How many numbers of `mask` are true: of rows × tokens the answers', of rows half."""
        if mask.dim() < 2:
            return -(-int(mask.numel()) // 2)
        rows, width = mask.numel() // max(1, mask.shape[-1]), mask.shape[-1]
        return int(rows * min(width, self.answers))

    def _nonzero(self, mask: Any) -> Any:
        return torch.empty(self.count(mask), mask.dim(), dtype=torch.int64)

    def _select(self, tensor: Any, mask: Any) -> Any:
        return torch.empty(self.count(mask), dtype=tensor.dtype)

    def _index(self, tensor: Any, indices: Any) -> Any:
        """Rows that a mask of the first dimensions chooses."""
        mask = mask_of(indices)
        rest = tensor.shape[mask.dim() :]
        return torch.empty((self.count(mask), *rest), dtype=tensor.dtype)


def mask_of(indices: Any) -> Any:
    """The mask among indices; None where there is none."""
    first = indices[0] if len(indices) == 1 else None
    return first if isinstance(first, torch.Tensor) and first.dtype == torch.bool else None


def _one(tensor: Any) -> Any:
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 1


def _first(tensor: Any, *_: Any, **__: Any) -> Any:
    return tensor


def _scattered(grad: Any, mask: Any, sizes: Any) -> Any:
    return torch.empty(tuple(sizes), dtype=grad.dtype)
