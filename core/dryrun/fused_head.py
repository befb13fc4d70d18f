"""TRL's fused output head (trl/kernels/chunked_logprob.py of 1.16) as it runs on CUDA, on fake tensors.

There it scores the answers' tokens alone, folds each tile of logits in a Triton kernel, which allocates nothing, and
adds products of half precision to a sum in fp32 within the GEMM. On the CPU all tokens are scored, in PyTorch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from core.dryrun.assumed import mask_of
from core.dryrun.tracker import Transients

CHUNK = 32768
"""Tokens of the vocabulary whose scores exist at once (trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE)."""


def head_transients(count: Callable[[Any], int]) -> Transients:
    """What CUDA's kernels allocate and free where the head takes the answers' tokens out of all, and puts them back;
    `count` says how many numbers of a mask are true."""

    def index(_: Any, indices: Any) -> list[int]:
        """Indexing.cpp: a mask becomes the places where it is true."""
        mask = mask_of(indices)
        return [] if mask is None else [8 * mask.dim() * count(mask)]

    def put(_: Any, indices: Any, *__: Any, **___: Any) -> list[int]:
        """Indexing.cu: besides, the places as one number each, sorted, with where they stood and what sorts them."""
        mask = mask_of(indices)
        return [] if mask is None else [8 * mask.dim() * count(mask), *[8 * count(mask)] * 4]

    def scatter(_: Any, mask: Any, *__: Any) -> list[int]:
        """IndexKernel.cpp: how many are true before each."""
        return [8 * mask.numel()]

    aten = torch.ops.aten
    return {
        aten.index.Tensor: index,
        aten._index_put_impl_.default: put,
        aten.masked_scatter.default: scatter,
    }


class _Kernel:
    """A Triton kernel that was launched."""

    def __getitem__(self, grid: Any) -> Any:
        return self._run

    def _run(self, *_: Any, **__: Any) -> None:
        """It writes into what it is given."""


@contextmanager
def fused_head_on_cuda() -> Iterator[None]:
    """Within it, TRL's fused head takes its way on CUDA."""
    from trl.kernels import chunked_logprob as kernels
    from trl.trainer import utils

    places: list[tuple[Any, str, Any]] = [
        (kernels, "_use_triton", _always),
        (utils, "_use_triton", _always),
        (kernels, "_forward_kernel", _Kernel()),
        (kernels, "_backward_kernel", _Kernel()),
        (kernels, "_addmm_fp32", _add_product),
        # Without Triton here the name is not there, and its cdiv is asked for.
        (kernels, "triton", SimpleNamespace(cdiv=lambda size, block: -(-size // block))),
    ]
    before = [(module, name, vars(module).get(name)) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            if value is None:
                delattr(module, name)
            else:
                setattr(module, name, value)


def _always(device: Any) -> bool:
    return True


def _add_product(total: Any, left: Any, right: Any) -> None:
    """torch.addmm into its own first argument, with a result in fp32: nothing is allocated."""
