"""Attention masks of batches whose content is not known: with or without padding, as is said."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def assumed_masks(*, padded: bool) -> Iterator[None]:
    """Within it, transformers takes each batch for one with padding (whose mask is then made) or for one without
    (whose mask it leaves out), where it would look at the values of attention_mask. flash-attn's kernel is that of
    PyTorch, given the rows without their padding as transformers does."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS
    from transformers.masking_utils import sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as KERNELS

    def sdpa(*args: Any, **named: Any) -> Any:
        if named.get("attention_mask") is not None:
            if padded:
                named["allow_is_causal_skip"] = False
            else:
                named["attention_mask"] = None
        return sdpa_mask(*args, **named)

    def flash(*_: Any, attention_mask: Any = None, **__: Any) -> Any:
        return attention_mask if padded else None

    with (
        _entry(MASKS, "sdpa", sdpa),
        _entry(MASKS, "flash_attention_2", flash),
        _entry(KERNELS, "flash_attention_2", flash_attention),
    ):
        yield


@contextmanager
def _entry(table: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """One of transformers' tables with another function under `name`, which hides the one that all share."""
    table[name] = function
    try:
        yield
    finally:
        del table[name]


def flash_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """transformers' way to flash-attn (integrations/flash_attention.py): batch × heads × tokens × width in, batch ×
    tokens × heads × width out. With padding, queries, keys and values are gathered first and the result is scattered;
    none of the rows is taken to be shorter, which is the most that there can be."""
    lower = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    if query.dtype == torch.float32 and lower is not None:
        query, key, value = (tensor.to(lower) for tensor in (query, key, value))
    if attention_mask is not None:
        query, key, value = (_gathered(tensor) for tensor in (query, key, value))
    out = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, dropout, True, scale=scaling
    )[0].transpose(1, 2)
    return (out.clone() if attention_mask is not None else out), None


def _gathered(tensor: Any) -> Any:
    return tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
