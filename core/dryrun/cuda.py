"""What tensors that are fake, and on the CPU, must do differently to take the memory that they would on CUDA."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from core.dryrun.attention import Capability, cuda_attention
from core.dryrun.tracker import Transients


@contextmanager
def cuda_semantics(capability: Capability) -> Iterator[None]:
    """Within it, operations on CPU tensors take CUDA's kernels and CUDA's side of autocast."""
    with ExitStack() as stack:
        stack.enter_context(cuda_attention(capability))
        stack.enter_context(_cuda_autocast())
        stack.enter_context(_cuda_dropout())
        yield


def transients() -> Transients:
    """What CUDA's kernels allocate and free within one operation, by operation."""
    aten = torch.ops.aten
    table: dict[Any, Callable[..., list[int]]] = {
        # SoftMax.cu: tmp = grad * output.
        aten._softmax_backward_data.default: lambda grad, *_, **__: [_bytes(grad)],
        aten.embedding_dense_backward.default: _embedding_backward,
        aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
        aten._scaled_dot_product_cudnn_attention_backward.default: _cudnn_backward,
        aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    }
    if hasattr(torch.ops.bitsandbytes, "gemm_4bit"):
        table[torch.ops.bitsandbytes.gemm_4bit.default] = _gemm_4bit
    return table


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _embedding_backward(grad: Any, indices: Any, weights: int, *_: Any, **__: Any) -> list[int]:
    """Embedding.cu: above 3072 tokens they are sorted, and each ten of one kind are summed in fp32 first."""
    tokens = indices.numel()
    if tokens <= 3072:
        return []
    segments = tokens // 10 + min(tokens, weights)
    return [8 * tokens, 8 * tokens, 8 * tokens, 4 * segments * grad.shape[-1]]


def _flash_backward(grad: Any, query: Any, key: Any, *_: Any, **__: Any) -> list[int]:
    """flash_api.cpp, mha_bwd: softmax_d, dq_accum, and with grouped heads dK and dV of every query head."""
    batch, heads, length, width = query.shape
    rounded = -(-length // 128) * 128
    wide = -(-width // 32) * 32 if width <= 128 else -(-width // 64) * 64
    sizes = [4 * batch * heads * rounded, 4 * batch * heads * rounded * wide]
    if key.shape[1] != heads:
        each = batch * heads * key.shape[2] * width * key.element_size()
        sizes += [each, each]
    return sizes


def _cudnn_backward(grad: Any, query: Any, key: Any, *_: Any, **__: Any) -> list[int]:
    """cudnn-frontend's backward node: dQ in fp32 and the sums of the softmax, in one workspace; with grouped heads dK
    and dV of every query head."""
    batch, heads, length, width = query.shape
    size = 4 * batch * heads * length * (width + 1)
    if key.shape[1] != heads:
        size += 2 * batch * heads * key.shape[2] * width * key.element_size()
    return [size]


def _efficient_backward(grad: Any, query: Any, key: Any, *_: Any, **__: Any) -> list[int]:
    """attention_backward.cu: delta, and half precision's gradients of the queries in fp32 as they are summed."""
    batch, heads, length, width = query.shape
    rows = batch * heads * length
    if query.element_size() == 4:
        return [4 * rows * width, 4 * rows * width, 4 * rows]
    return [4 * rows, 4 * batch * heads * (-(-length // 64) * 64) * width]


def _gemm_4bit(
    tokens: Any, packed: Any, shape: Any, absmax: Any, *_: Any, absmax_8bit: Any = None, **__: Any
) -> list[int]:
    """bitsandbytes' backends/cuda/ops.py, for batches of training: the scales and the weight in 16 bits, then a GEMM.
    A batch of few tokens may go without; what is logged is the most."""
    weight = math.prod(shape) * tokens.element_size()
    scales = [] if absmax_8bit is None else [4 * absmax_8bit.numel()] * 2
    return [*scales, weight]


_FP32 = (
    "layer_norm", "native_layer_norm", "group_norm", "rsqrt", "reciprocal", "exp", "log", "softplus", "logsumexp",
    "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar",
)  # fmt: skip
"""What CUDA's autocast computes in fp32 and the CPU's does not (aten/src/ATen/autocast_mode.h), as far as language
models use it."""
_FP32_RESULT = ("cumsum", "cumprod", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList")
"""What it asks for a result in fp32 of, where the caller does not say which."""


@contextmanager
def _cuda_dropout() -> Iterator[None]:
    """CUDA's dropout keeps a mask of a byte a number; the CPU's keeps the factors, as wide as its input."""
    functional = torch.nn.functional
    before = functional.dropout

    def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training or not 0 < p < 1 or inplace:
            return before(input, p, training, inplace)
        return torch.ops.aten.native_dropout(input, p, training)[0]

    functional.dropout = dropout
    try:
        yield
    finally:
        functional.dropout = before


@contextmanager
def _cuda_autocast() -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL")
    asked = torch.is_autocast_enabled
    # peft asks whether CUDA's autocast is on; here the CPU's stands in for it.
    torch.is_autocast_enabled = lambda device_type="cpu": asked(device_type)
    try:
        for name in _FP32:
            library.impl(name, _in_fp32(_operation(name)), "AutocastCPU")
        for name in _FP32_RESULT:
            library.impl(name, _to_fp32(_operation(name)), "AutocastCPU")
        yield
    finally:
        torch.is_autocast_enabled = asked
        library._destroy()


def _operation(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _in_fp32(operation: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        given = [argument.float() if _is_half(argument) else argument for argument in args]
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return operation(*given, **kwargs)

    return run


def _to_fp32(operation: Any) -> Callable[..., Any]:
    softmax = operation is torch.ops.aten.softmax.int
    # Their type may be given by its place: (input, dim, dtype).
    placed = softmax or operation is torch.ops.aten.log_softmax.int

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            if softmax and args[0].dtype == torch.float16 and "dtype" not in kwargs:
                return torch.ops.aten._softmax(args[0], args[1], True)
            if _is_half(args[0]) and not (placed and len(args) > 2):
                kwargs.setdefault("dtype", torch.float32)
            return operation(*args, **kwargs)

    return run


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


def _is_half(argument: Any) -> bool:
    return isinstance(argument, torch.Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
