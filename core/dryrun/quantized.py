"""bitsandbytes' linear layers on fake tensors: 4-bit ones as they are, 8-bit ones with CUDA's way through them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from core.memory.estimate.states import NESTED, SCALED
from core.params import ModelTable


def import_bitsandbytes() -> ModuleType | None:
    """bitsandbytes, without what it would compile: the compiler takes longer to import than all the rest, and nothing
    is computed here. None where it is not installed."""
    if sys.modules.get("bitsandbytes", torch) is None:
        del sys.modules["bitsandbytes"]
    with _without_compiler():
        try:
            import bitsandbytes
        except ImportError:
            return None
    return bitsandbytes  # type: ignore[no-any-return]


@contextmanager
def _without_compiler() -> Iterator[None]:
    compiler = torch.compile
    torch.compile = lambda model=None, **_: model if model is not None else (lambda given: given)
    try:
        yield
    finally:
        torch.compile = compiler


def replace_linears(model: Any, table: ModelTable, compute: Any) -> None:
    """Make the linear layers of `model`, which is on the meta device, those that transformers would; without weights
    yet (`quantise`)."""
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import HfQuantizer

    if table.quantization_bit == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=compute,
            bnb_4bit_quant_type=table.quantization_type,
            bnb_4bit_use_double_quant=table.double_quantization,
        )
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    # peft looks at these.
    setattr(model, f"is_loaded_in_{table.quantization_bit}bit", True)
    model.is_quantized = True


def is_quantized_linear(module: Any) -> bool:
    """Whether `module` is a linear layer whose weight is held in 4 or 8 bits."""
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt", "_Linear8bit")


def quantise(module: Any, table: ModelTable, weight: Any) -> list[Any]:
    """Give `module` the quantised form of `weight` (out × in), a fake tensor; returns what it holds from then on."""
    if table.quantization_bit == 8:
        return _quantise_8bit(module, weight)
    return _quantise_4bit(module, table, weight)


def _quantise_4bit(module: Any, table: ModelTable, weight: Any) -> list[Any]:
    from bitsandbytes.functional import QuantState

    count = weight.numel()
    blocks = -(-count // SCALED)
    packed = torch.empty((count + 1) // 2, 1, dtype=torch.uint8)
    absmax = torch.empty(blocks)
    code = torch.empty(16)
    common = {
        "shape": weight.shape, "dtype": weight.dtype, "blocksize": SCALED, "code": code,
        "quant_type": table.quantization_type,
    }  # fmt: skip
    held = [packed, code]
    if table.double_quantization:
        nested = QuantState(
            absmax=torch.empty(-(-blocks // NESTED)), code=torch.empty(256), blocksize=NESTED,
            dtype=torch.float32,
        )  # fmt: skip
        offset = absmax.mean()
        scales = torch.empty((absmax - offset).shape, dtype=torch.uint8)
        state = QuantState(absmax=scales, offset=offset, state2=nested, **common)
        held += [scales, nested.absmax, nested.code, offset]
    else:
        state = QuantState(absmax=absmax, **common)
        held.append(absmax)
    parameter = torch.nn.Parameter(packed, requires_grad=False)
    # What peft and the layer's forward look for on bitsandbytes' own class of parameters.
    parameter.quant_state = state
    parameter.compress_statistics = table.double_quantization
    parameter.quant_type = table.quantization_type
    parameter.quant_storage = torch.uint8
    parameter.bnb_quantized = True
    module.weight = parameter
    module.quant_state = state
    # As core.train.model.build has it: no packing for inference on the CPU.
    module.support_avx512bf16_for_cpu = False
    return held


@contextmanager
def dora_reads_4bit() -> Iterator[None]:
    """Within it, peft's DoRA unpacks the fake 4-bit weights that it takes the norm of: it tells them by the class of
    their parameters, which is bitsandbytes' own only with real ones."""
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import dora

    before = dora.dequantize_module_weight

    def unpacked(module: Any) -> Any:
        if type(module).__name__ == "Linear4bit":
            return dequantize_4bit(module.weight.data, module.quant_state)
        return before(module)

    dora.dequantize_module_weight = unpacked
    try:
        yield
    finally:
        dora.dequantize_module_weight = before


def _quantise_8bit(module: Any, weight: Any) -> list[Any]:
    half = weight.to(torch.float16)
    values = torch.empty(half.shape, dtype=torch.int8)
    scales = torch.empty(half.shape[0])
    module.__class__ = _linear_8bit()
    module.weight = torch.nn.Parameter(values, requires_grad=False)
    module.state.CB, module.state.SCB = module.weight.data, scales
    return [values, scales]


def _linear_8bit() -> type:
    """bitsandbytes' 8-bit layer, so that peft takes it for one, with a forward of our own."""
    import bitsandbytes

    class _Linear8bit(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc]
        def forward(self, tokens: Any) -> Any:
            return _Multiply8bit.apply(tokens, self.state.CB, self.state.SCB, self.bias)

    return _Linear8bit


class _Multiply8bit(torch.autograd.Function):  # type: ignore[misc]
    """What bitsandbytes' MatMul8bitLt allocates on CUDA, but for features with outliers: they depend on the data."""

    @staticmethod
    def forward(ctx: Any, tokens: Any, values: Any, scales: Any, bias: Any) -> Any:
        rows = tokens.reshape(-1, tokens.shape[-1])
        half = rows.to(torch.float16)
        row_scales = torch.empty(rows.shape[0])
        quantised = torch.empty(rows.shape, dtype=torch.int8)
        outliers = half.abs() >= 6.0
        del outliers
        sums = torch.empty(rows.shape[0], values.shape[0], dtype=torch.int32)
        product = torch.empty(sums.shape, dtype=torch.float16)
        del sums, row_scales, quantised
        if bias is not None:
            product = product.add_(bias)
        product = product.to(rows.dtype)
        ctx.values, ctx.scales, ctx.rows, ctx.shape = values, scales, rows, tokens.shape
        return product.reshape(*tokens.shape[:-1], values.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        grad = grad.reshape(-1, grad.shape[-1]).contiguous()
        kind = ctx.rows.dtype
        weight = ctx.values.to(kind, copy=True).mul_(ctx.scales.unsqueeze(1).mul(1.0 / 127.0))
        return torch.matmul(grad.to(kind), weight).view(ctx.shape), None, None, None
