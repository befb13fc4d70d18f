"""Runs of each method become models that say what was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.study.after import ExportReply
from tests.core.train.conftest import Ran

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method__finetuning_type": "full", "train__learning_rate": 0.005},
    "freeze": {"method__finetuning_type": "freeze", "method__freeze_trainable_layers": 1},
    "lora": {"method__lora_rank": 4},
    "dora": {"method__lora_rank": 4, "method__use_dora": True},
    "rslora": {"method__lora_rank": 4, "method__use_rslora": True},
    "4 bits": {"method__lora_rank": 4, "model__quantization_bit": 4},
    "8 bits": {"method__lora_rank": 4, "model__quantization_bit": 8},
    "pissa": {"method__lora_rank": 4, "method__pissa_init": True},
}


def _logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer("Say hello. What is the colour of the sky?", return_tensors="pt").input_ids
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method_becomes_a_model_that_says_what_was_trained(
    method: str,
    trained: Callable[..., Ran],
    exported: Callable[..., ExportReply],
    model_dir: Path,
    tmp_path: Path,
) -> None:
    ran = trained(**METHODS[method])
    reply = exported(ran)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    output = ran.folder / "output"
    if reply.effect is None:
        before = AutoModelForCausalLM.from_pretrained(output)
    else:
        base = AutoModelForCausalLM.from_pretrained(model_dir)
        before = PeftModel.from_pretrained(base, str(output))
    torch.testing.assert_close(
        _logits(model, tokenizer), _logits(before, tokenizer), atol=2e-4, rtol=1e-4
    )
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    moved = (_logits(model, tokenizer) - _logits(base, tokenizer)).abs().max()
    assert moved > 0.01, "training has changed the model"
    assert getattr(model.config, "quantization_config", None) is None
    assert all(check.passed for check in reply.checks)
    assert not (tmp_path / "model.partial").exists()
