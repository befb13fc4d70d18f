"""A run that began with an adapter (model.adapter_name_or_path) belongs to its base with that adapter merged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from core.study.after import EvaluateRequest, ExportReply, Open, Weights
from core.train.after.chat import Talk
from core.train.after.evaluate import evaluate
from core.train.errors import ModelError, SettingsError
from tests.core.train.conftest import Ran

Train = Callable[..., Ran]
Export = Callable[..., ExportReply]
IDS = torch.tensor([[5, 9, 17, 30, 42, 7]])


@pytest.fixture
def first(tmp_path: Path, model_dir: Path) -> Path:
    """An adapter of the model whose effect can be seen."""
    folder = tmp_path / "first"
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    get_peft_model(base, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_it_is_exported_on_the_base_with_that_adapter(
    trained: Train, exported: Export, first: Path, model_dir: Path, tmp_path: Path
) -> None:
    ran = trained(model__adapter_name_or_path=str(first))
    reply = exported(ran)
    assert all(check.passed for check in reply.checks)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    begun = PeftModel.from_pretrained(base, first).merge_and_unload()
    tuned = PeftModel.from_pretrained(begun, ran.folder / "output")
    found = _logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    torch.testing.assert_close(found, _logits(tuned), atol=2e-4, rtol=1e-4)
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "with the adapter `first`" in card and str(tmp_path) not in card


def test_it_is_measured_and_asked_on_that_base(
    trained: Train, line: Any, first: Path, model_dir: Path
) -> None:
    ran = trained(model__adapter_name_or_path=str(first), data__val_size=6.0)
    weights = Weights(str(ran.folder / "output"), str(ran.folder))
    logged = next(p.eval_loss for p in reversed(ran.points) if p.eval_loss is not None)
    found = evaluate(EvaluateRequest(weights=weights), line).results[0].metrics["eval_loss"]
    assert found == pytest.approx(logged, rel=1e-6)
    talk = Talk(Open(weights=weights), line)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    begun = _logits(PeftModel.from_pretrained(base, first))
    speaker = talk._trained.speaker("base")
    with speaker.asked():
        torch.testing.assert_close(_logits(speaker.model), begun, atol=2e-4, rtol=1e-4)


def test_its_adapter_alone_is_refused_as_it_fits_no_model_that_anybody_has(
    trained: Train, exported: Export, first: Path
) -> None:
    ran = trained(model__adapter_name_or_path=str(first), train__max_steps=1)
    with pytest.raises(SettingsError, match="wrong on anything else"):
        exported(ran, adapter_only=True)


def test_an_adapter_that_is_gone_is_named_and_not_the_base(
    trained: Train, exported: Export, first: Path
) -> None:
    ran = trained(model__adapter_name_or_path=str(first), train__max_steps=1)
    shutil.rmtree(first)
    with pytest.raises(ModelError, match="adapter_name_or_path: there is no folder") as raised:
        exported(ran)
    assert "--base-model" not in str(raised.value)
