"""In which numbers a run computes, and how: a profile's settings as they turn out on a device, without torch.

This is what `core.train.precision`, `core.train.model.trainable` and transformers decide, said in bytes.
"""

from typing import Literal

import msgspec

from core.memory.forecast import AMPERE, Target
from core.memory.models.shape import Architecture, Linear
from core.profile import Profile
from core.values import names_in

Kernel = Literal["flash", "cudnn", "efficient", "math", "eager", "cpu"]
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
"""What transformers calls a layer's attention."""
FEED_FORWARD = ("mlp", "feed_forward", "block_sparse_moe")
"""And its feed-forward part."""


class Regime(msgspec.Struct, frozen=True, kw_only=True):
    """How one profile computes on one device. Widths are bytes a number."""

    precision: str
    """fp32, bf16, fp16 or pure_bf16."""
    autocast: int
    """The width that autocast lowers products to; 0 without autocast."""
    frozen: int
    """The width of weights that do not train."""
    trained: int
    """That of weights that train: adapters, or the model's own."""
    method: str
    """lora, full or freeze."""
    bits: int
    """4 or 8 where the frozen linear layers are quantised, else 16."""
    nested: bool
    """Whether the scales of 4-bit weights are quantised too."""
    kernel: Kernel
    masked: bool
    """Whether attention gets a mask: rows are padded, and then it does."""
    rank: int
    dropout: float
    dora: bool
    targets: tuple[str, ...]
    """Names of the layers with adapters; empty means all linear layers of the decoder."""
    modules: tuple[str, ...]
    """Names of what trains inside the layers that freeze leaves free; empty means all of it."""
    cuda: bool
    capability: tuple[int, int]

    @property
    def weight(self) -> int:
        """The width in which most of the model's own weights are held."""
        return self.trained if self.method == "full" else self.frozen

    def moves(self, layer: Linear, shape: Architecture) -> bool:
        """Whether a linear layer trains in a decoder layer that does."""
        if not self.modules:
            return True
        around = ATTENTION if layer in shape.attention else FEED_FORWARD
        return any(name == layer.name or name in around for name in self.modules)

    def adapts(self, name: str) -> bool:
        """Whether the linear layer `name` of the decoder gets an adapter."""
        if self.method != "lora":
            return False
        return not self.targets or any(name == t.rpartition(".")[2] for t in self.targets)


def decide(
    profile: Profile, architecture: Architecture, target: Target, *, padded: bool = True
) -> Regime:
    """The regime of `profile` on `target`; `padded` says whether batches may hold padding."""
    cuda = target.kind == "cuda"
    capability = target.assumed_capability
    precision: str = profile.train.precision
    if precision == "auto":
        precision = ("bf16" if capability >= AMPERE else "fp16") if cuda else "fp32"
    method = profile.method
    lora = method.finetuning_type == "lora"
    frozen = 4 if precision == "fp32" or (precision == "fp16" and not lora) else 2
    trained = 2 if precision == "pure_bf16" else 4
    if lora and method.adapter_precision != "auto":
        trained = 2 if method.adapter_precision == "bf16" else 4
    # Other widths than bitsandbytes' two are held much like the nearest of them.
    stored = 16 if not architecture.quantized else (8 if architecture.quantized_bits > 4 else 4)
    bits = profile.model.quantization_bit or stored
    autocast = 2 if precision in ("bf16", "fp16") else 0
    half = precision != "fp32"
    kernel = choose_kernel(profile.model.attn, architecture, target, capability, half, padded)
    return Regime(
        precision=precision,
        autocast=autocast,
        frozen=frozen,
        trained=trained,
        method=method.finetuning_type,
        bits=bits,
        nested=profile.model.double_quantization,
        kernel=kernel,
        masked=padded,
        rank=method.lora_rank,
        dropout=method.lora_dropout,
        dora=lora and method.use_dora,
        targets=names(method.lora_target),
        modules=names(method.freeze_trainable_modules)
        if method.finetuning_type == "freeze"
        else (),
        cuda=cuda,
        capability=capability,
    )


def choose_kernel(
    asked: str,
    architecture: Architecture,
    target: Target,
    capability: tuple[int, int],
    half: bool,
    masked: bool,
) -> Kernel:
    """The attention kernel that PyTorch takes: cuDNN's on Hopper and data-centre Blackwell; on other GPUs from Ampere
    on flash attention, which takes no mask, else the memory-efficient one (sdp_utils.cpp of torch 2.13)."""
    capped = architecture.score_cap and asked == "auto"
    if asked == "eager" or architecture.eager or capped:
        return "eager"
    if target.kind == "cpu":
        return "cpu"
    if asked == "flash_attention_2":
        return "flash"
    width = architecture.head_dim
    widest = {(9, 0): 256, (10, 0): 128}.get(capability, 0)
    if half and width <= widest and width % 8 == 0:
        return "cudnn"
    if half and capability >= AMPERE and width <= 256 and not masked:
        return "flash"
    step = 8 if half and capability >= AMPERE else 4
    return "efficient" if width % step == 0 else "math"


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas; none for `all`."""
    return () if text == "all" else tuple(names_in(text))
