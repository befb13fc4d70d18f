"""Which numbers a trial computes with."""

from dataclasses import dataclass
from typing import Any, Literal

from core.params import MethodTable, TrainTable
from core.train.errors import SettingsError

Device = Literal["cuda", "cpu"]
Precision = Literal["fp32", "bf16", "fp16", "pure_bf16"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """A precision that is decided: `auto` does not occur. The types are torch.dtype."""

    name: Precision
    compute: Any
    frozen: Any
    """The type of weights that do not train."""
    trained: Any
    """The type of weights that train."""


def decide(
    train: TrainTable, method: MethodTable, device: Device, bf16: bool | None = None
) -> Numbers:
    """What `train.precision` means on this device; `bf16` says whether its GPU has bf16 (None asks PyTorch).

    Weights that train are fp32 but for pure_bf16: AdamW's small updates get lost in bf16. Frozen weights are held in
    the type they are computed with. Adapters are held in what method.adapter_precision says, if it says so. Where
    whole layers train beside frozen ones (freeze) in fp16, the frozen ones stay fp32 too, as fp16 overflows in the sums
    between the layers.

    Raises:
        SettingsError: the device cannot compute with it.
    """
    import torch

    if bf16 is None and device == "cuda":
        # A GPU that is older emulates bf16: slow, but it may be asked for.
        exact = train.precision == "auto"
        bf16 = torch.cuda.is_bf16_supported(including_emulation=not exact)
    name = _named(train.precision, device, bool(bf16))
    if name == "fp16" and device == "cpu":
        raise SettingsError(
            'train.precision = "fp16" needs a GPU: its loss scaling does not exist on the CPU. '
            'Take "fp32" or "bf16"'
        )
    if name in ("bf16", "pure_bf16") and device == "cuda" and not bf16:
        raise SettingsError(
            f'train.precision = "{name}" needs an Ampere GPU or newer, and this is an older one. '
            'Take "fp16" or "fp32"'
        )
    lora = method.finetuning_type == "lora"
    held = method.adapter_precision if lora else "auto"
    if name == "fp16" and held == "bf16":
        raise SettingsError(
            'method.adapter_precision = "bf16" does not go with fp16, whose loss scaling works on fp32 gradients. '
            'Take "fp32", or train.precision = "bf16" where the GPU has it'
        )
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    trained = types.get(held, torch.bfloat16 if name == "pure_bf16" else torch.float32)
    if name in ("bf16", "pure_bf16"):
        return Numbers(name, torch.bfloat16, torch.bfloat16, trained)
    if name == "fp16":
        return Numbers(name, torch.float16, torch.float16 if lora else torch.float32, trained)
    return Numbers(name, torch.float32, torch.float32, trained)


def _named(asked: str, device: Device, bf16: bool) -> Precision:
    if asked == "auto":
        if device == "cpu":
            return "fp32"
        return "bf16" if bf16 else "fp16"
    names: dict[str, Precision] = {
        "fp32": "fp32",
        "bf16": "bf16",
        "fp16": "fp16",
        "pure_bf16": "pure_bf16",
    }
    return names[asked]
