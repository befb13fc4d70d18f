"""What is estimated of stages rm, dpo and kto, against their dry run."""

import json
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401  (before any proof: one imports it without its compiler)
import pytest

from core.dryrun.prove import prove
from core.memory.architecture import read_config
from core.memory.closed_form import estimate
from core.memory.forecast import GIB, Lengths, Moment, Target
from core.profile import from_document

A100 = Target(kind="cuda", total=80 * GIB, free=80 * GIB, capability=(8, 0))
T4 = Target(kind="cuda", total=80 * GIB, free=80 * GIB, capability=(7, 5))
CPU = Target(kind="cpu", total=80 * GIB, free=80 * GIB)
LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 40000, "hidden_size": 256, "intermediate_size": 704,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
    "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "model_type": "gpt2", "vocab_size": 40000, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 1024,
}  # fmt: skip
FULL = {"method.finetuning_type": "full"}
FREEZE = {"method.finetuning_type": "freeze"}
MOMENTS: tuple[Moment, ...] = ("forward", "backward", "optimizer", "eval")
CASES: dict[str, tuple[str, dict[str, Any], Target, dict[str, Any]]] = {
    "rm, lora": ("rm", LLAMA, A100, {}),
    "rm, full": ("rm", LLAMA, A100, {**FULL, "train.optim": "adamw_torch_fused"}),
    "rm, freeze": ("rm", LLAMA, A100, FREEZE),
    "rm, 4 bits": ("rm", LLAMA, A100, {"model.quantization_bit": 4}),
    "rm, gpt2": ("rm", GPT2, A100, {}),
    "dpo, lora": ("dpo", LLAMA, A100, {"train.gradient_checkpointing": True}),
    "dpo, full": ("dpo", LLAMA, A100, {**FULL, "train.optim": "adamw_torch_fused"}),
    "dpo, full, tied": (
        "dpo", LLAMA | {"tie_word_embeddings": True}, A100, {**FULL, "train.optim": "adamw_torch_fused"},
    ),
    "dpo, freeze": ("dpo", LLAMA, A100, FREEZE),
    "dpo, 4 bits": ("dpo", LLAMA, A100, {"model.quantization_bit": 4}),
    "dpo, pure bf16": ("dpo", LLAMA, A100, {**FULL, "train.precision": "pure_bf16"}),
    "dpo, orpo in fp16": ("dpo", LLAMA, T4, {"alignment.pref_loss": "orpo"}),
    "dpo, simpo on the CPU": ("dpo", LLAMA, CPU, {"alignment.pref_loss": "simpo"}),
    "dpo, gpt2": ("dpo", GPT2, A100, FULL),
    "kto, lora": ("kto", LLAMA, A100, {}),
    "kto, full": ("kto", LLAMA, A100, {**FULL, "train.gradient_accumulation_steps": 1}),
    "kto, freeze": ("kto", LLAMA, CPU, FREEZE),
    "rm, DoRA on 4 bits": (
        "rm", LLAMA | {"hidden_size": 1024, "intermediate_size": 4096}, A100,
        {"model.quantization_bit": 4, "method.use_dora": True, "train.precision": "fp32",
         "train.gradient_checkpointing": True, "train.per_device_train_batch_size": 1},
    ),
    "kto, 4 bits": ("kto", LLAMA, A100, {"model.quantization_bit": 4, "train.gradient_checkpointing": True}),
}  # fmt: skip
WIDER: dict[tuple[str, Moment], float] = {
    ("rm, gpt2", "eval"): 0.07,
    ("rm, DoRA on 4 bits", "forward"): 0.11,
    ("rm, DoRA on 4 bits", "eval"): 0.11,
}
"""Moments without scores of a vocabulary, in which the names that a layer's code holds on to weigh more."""


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_within_five_percent_of_the_dry_run(name: str, tmp_path: Path) -> None:
    stage, config, target, changes = CASES[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": str(tmp_path)}, "method": {"stage": stage},
        "data": {"dataset": "demo", "cutoff_len": 512}, "train": {"per_device_train_batch_size": 4},
    }  # fmt: skip
    made = from_document(document).as_training().with_changes(changes)
    lengths = Lengths(512, 512, measured=True, learnt=600)
    estimated = estimate(made, read_config(config), target, lengths)
    simulated = prove(made, target, lengths)
    assert estimated.allocated == pytest.approx(simulated.allocated, rel=0.05)
    for moment in MOMENTS:
        close = WIDER.get((name, moment), 0.05)
        assert estimated.moments[moment] == pytest.approx(simulated.moments[moment], rel=close)
