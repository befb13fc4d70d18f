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


def decide(train: TrainTable, method: MethodTable, device: Device) -> Numbers:
    """What `train.precision` means on this device.

    Weights that train are fp32 but for pure_bf16: AdamW's small updates get lost in bf16. Frozen weights are held in
    the type they are computed with. Where whole layers train beside frozen ones (freeze) in fp16, the frozen ones stay
    fp32 too, as fp16 overflows in the sums between the layers.

    Raises:
        SettingsError: the device cannot compute with it.
    """
    import torch

    name = _named(train.precision, device)
    if name == "fp16" and device == "cpu":
        raise SettingsError(
            'train.precision = "fp16" needs a GPU: its loss scaling does not exist on the CPU. '
            'Take "fp32" or "bf16"'
        )
    if name in ("bf16", "pure_bf16") and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise SettingsError(
            f'train.precision = "{name}" needs an Ampere GPU or newer, and this is {torch.cuda.get_device_name(0)}. '
            'Take "fp16" or "fp32"'
        )
    if name == "pure_bf16":
        return Numbers(name, torch.bfloat16, torch.bfloat16, torch.bfloat16)
    if name == "bf16":
        return Numbers(name, torch.bfloat16, torch.bfloat16, torch.float32)
    if name == "fp16":
        frozen = torch.float16 if method.finetuning_type == "lora" else torch.float32
        return Numbers(name, torch.float16, frozen, torch.float32)
    return Numbers(name, torch.float32, torch.float32, torch.float32)


def _named(asked: str, device: Device) -> Precision:
    import torch

    if asked == "auto":
        if device == "cpu":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    names: dict[str, Precision] = {
        "fp32": "fp32",
        "bf16": "bf16",
        "fp16": "fp16",
        "pure_bf16": "pure_bf16",
    }
    return names[asked]
