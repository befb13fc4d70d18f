"""What a profile's settings become on a device."""

from typing import Any

import pytest

from core.memory.architecture import read_config
from core.memory.estimate.regime import Regime, decide
from core.memory.forecast import GIB, Target
from core.profile import from_document

LLAMA = read_config(
    {
        "model_type": "llama",
        "hidden_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "vocab_size": 1000,
    }
)


def on(
    capability: tuple[int, int] | None = (8, 0),
    *,
    kind: Any = "cuda",
    padded: bool = True,
    precision: str = "auto",
    **changes: Any,
) -> Regime:
    profile = from_document(
        {
            "model": {"model_name_or_path": "x", **changes.get("model", {})},
            "method": changes.get("method", {}),
            "data": {"dataset": "demo"},
            "train": {"precision": precision},
        }
    )
    target = Target(kind=kind, total=GIB, free=GIB, capability=capability)
    return decide(profile, LLAMA, target, padded=padded)


@pytest.mark.parametrize(
    ("method", "precision", "widths"),
    [
        ("lora", "bf16", (2, 2, 4)),
        ("lora", "fp16", (2, 2, 4)),
        ("lora", "fp32", (0, 4, 4)),
        ("lora", "pure_bf16", (0, 2, 2)),
        ("freeze", "bf16", (2, 2, 4)),
        ("freeze", "fp16", (2, 4, 4)),
        ("full", "bf16", (2, 2, 4)),
        ("full", "pure_bf16", (0, 2, 2)),
    ],
)
def test_widths_are_those_of_the_worker(
    method: str, precision: str, widths: tuple[int, int, int]
) -> None:
    import torch

    from core.params import MethodTable, TrainTable
    from core.train.precision import decide as decide_torch

    regime = on(precision=precision, method={"finetuning_type": method})
    assert (regime.autocast, regime.frozen, regime.trained) == widths
    tables = TrainTable(precision=precision), MethodTable(finetuning_type=method)  # type: ignore[arg-type]
    numbers = decide_torch(*tables, "cuda", True)
    sizes = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}
    assert (sizes[numbers.frozen], sizes[numbers.trained]) == widths[1:]


def test_auto_is_bf16_from_ampere_on_fp16_before_and_fp32_on_the_cpu() -> None:
    assert on((8, 0)).precision == "bf16"
    assert on((7, 5)).precision == "fp16"
    assert on(None).precision == "bf16"
    assert on(kind="cpu", capability=None).precision == "fp32"


@pytest.mark.parametrize(
    ("capability", "padded", "attn", "kernel"),
    [
        ((9, 0), True, "auto", "cudnn"),
        ((8, 0), True, "auto", "efficient"),
        ((8, 0), False, "auto", "flash"),
        ((7, 5), False, "sdpa", "efficient"),
        ((8, 0), True, "flash_attention_2", "flash"),
        ((9, 0), True, "eager", "eager"),
    ],
)
def test_the_attention_kernel_is_the_one_that_the_device_would_take(
    capability: tuple[int, int], padded: bool, attn: str, kernel: str
) -> None:
    assert on(capability, padded=padded, model={"attn": attn}).kernel == kernel


def test_adapters_go_to_the_layers_that_are_named() -> None:
    every = on()
    assert all(every.adapts(layer.name) for layer in LLAMA.linears)
    some = on(method={"lora_target": "self_attn.q_proj, v_proj"})
    assert [m.name for m in LLAMA.linears if some.adapts(m.name)] == ["q_proj", "v_proj"]
    assert not on(method={"finetuning_type": "full"}).adapts("q_proj")


def test_freezing_can_leave_a_part_of_a_layer_free() -> None:
    regime = on(method={"finetuning_type": "freeze", "freeze_trainable_modules": "mlp,o_proj"})
    assert [m.name for m in LLAMA.linears if regime.moves(m, LLAMA)] == [
        "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
