"""Reward models keep their score head, and a policy of ppo comes without its value head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from core.study.after import ExportReply
from tests.core.train.conftest import Ran

Train = Callable[..., Ran]
Export = Callable[..., ExportReply]
TEXT = "Say hello. Hello there, friend!"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """24 questions with a better and a worse answer."""
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"instruction": f"Say {n}", "input": "", "chosen": f"hello {n}", "rejected": f"eight {n}"}
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _score(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=tokenizer(TEXT, return_tensors="pt").input_ids).logits


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reward_model_is_exported_with_its_score_head(
    method: str, trained: Train, exported: Export, pairs: Path, model_dir: Path, tmp_path: Path
) -> None:
    ran = trained(
        method__stage="rm", method__finetuning_type=method, data__dataset=str(pairs),
        data__val_size=4.0, train__learning_rate=0.005,
    )  # fmt: skip
    reply = exported(ran)
    assert reply.kind == "reward model" and all(check.passed for check in reply.checks)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert model.config.num_labels == 1 and model.config.pad_token_id is not None
    output = str(ran.folder / "output")
    if method == "lora":
        base = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1)
        before = PeftModel.from_pretrained(base, output)
    else:
        before = AutoModelForSequenceClassification.from_pretrained(output)
    torch.testing.assert_close(
        _score(model, tokenizer), _score(before, tokenizer), atol=1e-4, rtol=1e-3
    )
    assert "--runner pooling" in reply.serve[0]
    assert model.config.problem_type == "regression", "whoever serves it returns scores as they are"
    assert reply.effect is None and all(check.agreement is None for check in reply.checks)
    assert "text-classification" in (tmp_path / "model" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_policy_of_ppo_comes_without_its_value_head(
    method: str, trained: Train, exported: Export, pairs: Path, model_dir: Path, tmp_path: Path
) -> None:
    reward = tmp_path / "reward"
    torch.manual_seed(0)
    scorer = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1)
    scorer.config.pad_token_id = 0
    scorer.save_pretrained(reward)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(reward)
    ran = trained(
        method__stage="ppo", method__finetuning_type=method, alignment__reward_model=str(reward),
        alignment__ppo_epochs=1, data__dataset=str(pairs), data__val_size=0.0, generation__max_new_tokens=4,
        train__max_steps=2, train__learning_rate=0.001,
    )  # fmt: skip
    reply = exported(ran)
    assert reply.kind == "model" and all(check.passed for check in reply.checks)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]
    assert not any("value" in name for name, _ in model.named_parameters() if "v_proj" not in name)
