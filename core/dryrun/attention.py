"""CUDA's scaled_dot_product_attention on fake tensors: the kernel that it would choose, called directly.

The choice follows aten/src/ATen/native/transformers/cuda/sdp_utils.cpp of torch 2.13, and what is done before a kernel
runs (autocast, masks made additive) aten/src/ATen/native/transformers/attention.cpp.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

Kernel = Literal["cudnn", "flash", "efficient", "math"]
Capability = tuple[int, int]

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Call:
    """What the choice of a kernel looks at."""

    dtype: Any
    head_dim: int
    value_dim: int
    masked: bool
    grouped: bool
    """Whether keys have fewer heads than queries."""
    dropout: float = 0.0
    trains: bool = True


def choose(capability: Capability, call: Call) -> Kernel:
    """The kernel that `capability` runs `call` with; cuDNN is taken to be as recent as in torch's wheels."""
    half = call.dtype in _HALF and (call.dtype == torch.float16 or capability >= (8, 0))
    fused = call.head_dim == call.value_dim and call.head_dim <= 256
    if half and capability >= (8, 0) and fused:
        widest = {(9, 0): 256, (10, 0): 128}.get(capability, 0)
        if call.head_dim <= widest and call.head_dim % 8 == 0:
            return "cudnn"
        if not call.masked and not _flash_cannot_train(capability, call):
            return "flash"
    bfloat16 = call.dtype == torch.bfloat16 and capability < (8, 0)
    if capability >= (5, 0) and not bfloat16 and not call.grouped:
        step = (8 if capability >= (8, 0) or half else 4) if call.dtype in _HALF else 4
        if call.head_dim % step == 0 and call.value_dim % step == 0:
            return "efficient"
    return "math"


def _flash_cannot_train(capability: Capability, call: Call) -> bool:
    """Ada and consumer Ampere and Blackwell have too little shared memory for the backward pass of wide heads."""
    if not call.trains or capability not in ((8, 6), (8, 9), (12, 0), (12, 1)):
        return False
    return 192 < call.head_dim <= 224 or (call.head_dim > 224 and call.dropout > 0)


def attend(
    capability: Capability,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """torch.nn.functional.scaled_dot_product_attention as a device of `capability` does it: batch × heads × tokens ×
    head_dim in and out."""
    if torch.is_autocast_enabled("cpu"):
        lower = torch.get_autocast_dtype("cpu")
        query, key, value = (t.to(lower) for t in (query, key, value))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(lower)
    call = Call(
        query.dtype,
        query.shape[-1],
        value.shape[-1],
        attn_mask is not None,
        enable_gqa and key.shape[1] != query.shape[1],
        dropout_p,
        torch.is_grad_enabled() and (query.requires_grad or key.requires_grad),
    )
    kernel = choose(capability, call)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _additive(attn_mask, query.dtype)
    aten = torch.ops.aten
    if kernel == "flash":
        return aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    if kernel == "math":
        return aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    if attn_mask is not None:
        attn_mask = attn_mask.expand(query.shape[0], query.shape[1], -1, -1)
    run = (
        aten._scaled_dot_product_cudnn_attention
        if kernel == "cudnn"
        else aten._scaled_dot_product_efficient_attention
    )
    return run(query, key, value, attn_mask, call.trains, dropout_p, is_causal, scale=scale)[0]


def _additive(mask: Any, dtype: Any) -> Any:
    """A mask to add to the scores: as large as the boolean one, and once more with rows of a multiple of 8 numbers
    where they are not, as the kernels want them (preprocess_mask)."""
    added = torch.empty(mask.shape, dtype=dtype)
    width = mask.shape[-1]
    padding = -width % 8
    return torch.nn.functional.pad(added, (0, padding))[..., :width] if padding else added


@contextmanager
def cuda_attention(capability: Capability) -> Iterator[None]:
    """Within it, torch.nn.functional's attention and softmax take CUDA's ways."""
    functional = torch.nn.functional
    attention, softmax = functional.scaled_dot_product_attention, functional.softmax

    def attending(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        return attend(capability, query, key, value, *rest, **named)

    functional.scaled_dot_product_attention = attending
    functional.softmax = _fused_softmax(softmax)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attention
        functional.softmax = softmax


def _fused_softmax(softmax: Any) -> Any:
    """CUDA's softmax of fp16 computes in fp32 as it reads: there is no copy of the input in fp32."""

    def fused(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
        if dtype == torch.float32 and input.dtype == torch.float16 and dim is not None:
            return torch.ops.aten._softmax(input, dim, True)
        return softmax(input, dim=dim, _stacklevel=_stacklevel, dtype=dtype)

    return fused
