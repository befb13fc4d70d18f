"""Models of other shapes, what stands beside their weights, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from core.study.after import ExportReply, ExportRequest, Weights
from core.train.after.export import end_of_answer, export
from tests.core.train.conftest import Ran, make_tokenizer

Train = Callable[..., Ran]
Export = Callable[..., ExportReply]


@pytest.fixture(scope="module")
def tied_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers whose embeddings are its head too."""
    folder = tmp_path_factory.mktemp("tied")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _adapter(base: Path, folder: Path, vocabulary: int | None = None, **settings: Any) -> Any:
    """An adapter of `base` with random weights in `folder`, as another program may have made it; returns its model."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if vocabulary is not None:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=16, init_lora_weights=False, **settings
    )
    model = get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if "modules_to_save" in name:
            weight.data = weight.data + 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return model.eval()


def _said(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
    ],
    ids=["adapted", "words whole", "head whole", "both as one"],
)
def test_tied_embeddings_come_out_as_they_were_trained(
    settings: dict[str, Any], tied_dir: Path, tmp_path: Path, line: Any
) -> None:
    before = _adapter(tied_dir, tmp_path / "adapter", **settings)
    request = ExportRequest(
        weights=Weights(str(tmp_path / "adapter")), output=str(tmp_path / "model")
    )
    reply = export(request, line)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = [5, 6, 7, 80, 81]
    torch.testing.assert_close(_said(model, ids), _said(before, ids), atol=1e-4, rtol=1e-4)
    assert model.config.tie_word_embeddings == settings.get("ensure_weight_tying", False)
    assert reply.effect is not None and reply.effect > 0.01


def test_a_vocabulary_that_grew_in_training_grows_in_the_model(
    model_dir: Path, tmp_path: Path, line: Any
) -> None:
    size = len(AutoTokenizer.from_pretrained(model_dir)) + 8
    whole = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    before = _adapter(model_dir, tmp_path / "adapter", vocabulary=size, **whole)
    weights = Weights(str(tmp_path / "adapter"))
    export(ExportRequest(weights=weights, output=str(tmp_path / "model")), line)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == size
    ids = [5, size - 1, 7]
    torch.testing.assert_close(_said(model, ids), _said(before, ids), atol=1e-4, rtol=1e-4)


def test_modules_trained_whole_are_exported(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    ran = trained(method__lora_rank=2, method__additional_target="lm_head")
    exported(ran)
    own = load_file(ran.folder / "output" / "adapter_model.safetensors")
    head = next(weight for name, weight in own.items() if "lm_head" in name)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(model.lm_head.weight, head)


def test_large_models_are_written_in_shards(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    reply = exported(trained(), max_shard_size="200KB")
    shards = [name for name in reply.files if name.startswith("model-0")]
    assert len(shards) > 1 and "model.safetensors.index.json" in reply.files
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_are_held_in_the_numbers_that_are_asked_for(
    dtype: str, kind: torch.dtype, method: str, trained: Train, exported: Export, tmp_path: Path
) -> None:
    reply = exported(
        trained(method__finetuning_type=method, train__learning_rate=0.005), dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert reply.dtype == dtype and model.dtype == kind
    assert all(check.passed and check.error > 0 for check in reply.checks[-1:])


def test_a_full_training_is_exported_in_the_numbers_of_its_base(
    trained: Train, model_dir: Path, exported: Export, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(half)
    ran = trained(
        method__finetuning_type="full",
        model__model_name_or_path=str(half),
        train__learning_rate=0.005,
    )
    assert exported(ran).dtype == "bf16"


def test_tokenizer_template_and_ends_of_answers_come_with_the_model(
    trained: Train, exported: Export, tmp_path: Path
) -> None:
    exported(trained(generation__temperature=0.5))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert "<|im_start|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert sorted(settings["eos_token_id"]) == sorted(ends)
    assert settings["temperature"] == 0.5 and settings["do_sample"] is True


def test_the_end_of_an_answer_is_read_off_the_template() -> None:
    tokenizer = make_tokenizer()
    assert end_of_answer(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert end_of_answer(tokenizer) is None
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert end_of_answer(tokenizer) is None


def test_an_adapter_alone_is_copied_with_its_tokenizer(
    trained: Train, exported: Export, model_dir: Path, tmp_path: Path
) -> None:
    ran = trained(method__lora_rank=4)
    reply = exported(ran, adapter_only=True)
    assert reply.kind == "adapter" and reply.checks == ()
    assert (tmp_path / "model" / "adapter_model.safetensors").read_bytes() == (
        ran.folder / "output" / "adapter_model.safetensors"
    ).read_bytes()
    AutoTokenizer.from_pretrained(tmp_path / "model")
    PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model_dir), str(tmp_path / "model")
    )
    assert "--lora-modules" in reply.serve[0] and "--max-lora-rank 8" in reply.serve[0]


def test_a_checkpoint_is_exported_with_the_tokenizer_of_its_base(
    trained: Train, tmp_path: Path, line: Any
) -> None:
    ran = trained(train__save_steps=2, train__max_steps=4)
    checkpoint = ran.folder / "checkpoints" / "checkpoint-2"
    weights = Weights(str(checkpoint), str(ran.folder))
    reply = export(ExportRequest(weights=weights, output=str(tmp_path / "model")), line)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert "im_start" in tokenizer.chat_template
    assert reply.effect is not None and reply.effect > 0


def test_the_card_tells_profile_curve_and_checks(
    trained: Train, exported: Export, dataset: Path, tmp_path: Path
) -> None:
    ran = trained(profile__name="my-run")
    exported(ran)
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    assert 'name = "my-run"' in card and "lora_rank = 8" in card
    assert f"`{dataset.name}`" in card and str(dataset.parent) not in card
    assert "| eval_loss |" in card and "loaded from these files" in card
    last = ran.losses[-1]
    assert f"| {last[0]} | {last[1]:.4g} |" in card
    assert "see the base model's" in card and "transformers" in card


def test_an_adapter_whose_base_is_not_here_is_copied_all_the_same(
    trained: Train, tmp_path: Path, line: Any
) -> None:
    ran = trained(train__max_steps=1)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(ran.folder / "output" / name, adapter / name)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "gone")
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    weights = Weights(str(adapter))
    request = ExportRequest(weights=weights, output=str(tmp_path / "model"), adapter_only=True)
    assert "tokenizer.json" not in export(request, line).files
