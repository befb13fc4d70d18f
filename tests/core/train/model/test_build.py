"""Which weights train and in which numbers; models that cannot be used say why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


def trained(run_trial: Run, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Any, Any]:
    """Run a trial and keep its model."""
    from core.train.stages.base import StageTrainer

    kept: list[Any] = []
    init = StageTrainer.__init__

    def keep(self: Any, **arguments: Any) -> None:
        kept.append(arguments["model"])
        init(self, **arguments)

    monkeypatch.setattr(StageTrainer, "__init__", keep)
    ran = run_trial(**settings)
    assert ran.report.outcome == "completed", ran.report.error
    return ran, kept[0]


def names(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_lora_trains_adapters_on_every_linear_layer_but_the_head(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, model = trained(run_trial, monkeypatch, lora_rank=4)
    assert all("lora_" in name for name in names(model))
    layers = {
        n.split("layers.0.")[1].split(".lora")[0].split(".")[1]
        for n in names(model)
        if "layers.0." in n
    }
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert not any("lm_head" in name for name in names(model))
    assert model.peft_config["default"].lora_alpha == 8
    assert 0 < ran.run.trainable_parameters < ran.run.parameters


def test_lora_s_settings_reach_the_adapters(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = trained(
        run_trial, monkeypatch, lora_target="q_proj, v_proj", lora_rank=2, lora_alpha=3.0, use_rslora=True, use_dora=True,
        lora_dropout=0.25,
    )  # fmt: skip
    assert {n.split(".lora")[0].split(".")[-1] for n in names(model)} == {"q_proj", "v_proj"}
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_rslora, config.use_dora) == (2, 3.0, True, True)
    assert any("magnitude" in name for name in names(model))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}


def test_full_trains_every_weight(run_trial: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, model = trained(run_trial, monkeypatch, finetuning_type="full")
    assert names(model) == {name for name, _ in model.named_parameters()}
    assert ran.run.trainable_parameters == ran.run.parameters


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"freeze_trainable_layers": 1}, {"model.layers.1."}),
        ({"freeze_trainable_layers": -1}, {"model.layers.0."}),
        ({"freeze_trainable_layers": 9}, {"model.layers.0.", "model.layers.1."}),
        (
            {"freeze_trainable_layers": 1, "freeze_trainable_modules": "mlp"},
            {"model.layers.1.mlp."},
        ),
        (
            {"freeze_trainable_layers": 1, "freeze_extra_modules": "embed_tokens, lm_head"},
            {"model.layers.1.", "model.embed_tokens.", "lm_head."},
        ),
    ],
)
def test_freeze_trains_the_layers_and_modules_that_are_named(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], expected: set[str]
) -> None:
    _, model = trained(run_trial, monkeypatch, finetuning_type="freeze", **settings)
    wanted = {
        n for n, _ in model.named_parameters() if any(n.startswith(part) for part in expected)
    }
    assert names(model) == wanted != set()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_trains_adapters_on_the_cpu(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    ran, model = trained(
        run_trial, monkeypatch, quantization_bit=bits, max_steps=12, lora_dropout=0.0
    )
    kinds = {type(m).__name__ for m in model.modules()}
    assert ("Linear4bit" if bits == 4 else "Linear8bitLt") in kinds
    assert ran.losses[-1][1] < ran.losses[0][1]
    plain, _ = trained(run_trial, monkeypatch, name="plain", max_steps=1)
    assert ran.run.parameters == plain.run.parameters
    assert ran.run.versions["bitsandbytes"]


@pytest.mark.parametrize("bits", [4, 8, None])
def test_evaluating_does_not_change_training(run_trial: Run, bits: int | None) -> None:
    """bitsandbytes packs 4-bit weights for inference in the first evaluation, if it is let."""
    often, once = (
        run_trial(
            str(steps), quantization_bit=bits, max_steps=6, eval_steps=steps, lora_dropout=0.1
        )
        for steps in (1, 99)
    )
    assert [p.grad_norm for p in often.points if p.loss] == [
        p.grad_norm for p in once.points if p.loss
    ]
    assert often.losses == once.losses


@pytest.mark.parametrize(
    ("kind", "precision", "frozen", "moving"),
    [
        ("lora", "bf16", torch.bfloat16, torch.float32),
        ("lora", "pure_bf16", torch.bfloat16, torch.bfloat16),
        ("full", "bf16", None, torch.float32),
        ("full", "pure_bf16", None, torch.bfloat16),
        ("freeze", "bf16", torch.bfloat16, torch.float32),
        ("full", "fp32", None, torch.float32),
    ],
)
def test_each_precision_holds_weights_as_it_should(
    run_trial: Run,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    precision: str,
    frozen: Any,
    moving: Any,
) -> None:
    ran, model = trained(
        run_trial,
        monkeypatch,
        finetuning_type=kind,
        precision=precision,
        freeze_trainable_layers=1,
        learning_rate=1e-3,
    )
    assert ran.run.precision == precision
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {moving}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == (
        {frozen} if frozen else set()
    )


def test_fp16_on_the_cpu_is_refused_with_the_reason(run_trial: Run) -> None:
    report = run_trial(precision="fp16").report
    assert report.usage_error and "fp16" in report.error and "GPU" in report.error


def test_a_gpu_that_is_not_there_is_said_so(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = run_trial(task={"device": "cuda"}).report
    assert report.usage_error and "PyTorch sees none" in report.error


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_gradient_checkpointing_computes_the_same(run_trial: Run, kind: str) -> None:
    settings = {"finetuning_type": kind, "learning_rate": 1e-3}
    plain = run_trial("plain", **settings)
    saving = run_trial("saving", gradient_checkpointing=True, **settings)
    assert [loss for _, loss in saving.losses] == pytest.approx(
        [loss for _, loss in plain.losses], rel=1e-5
    )


def test_eager_attention_computes_the_same(run_trial: Run) -> None:
    one, two = (run_trial(attn, attn=attn).losses for attn in ("sdpa", "eager"))
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_packing_trains_on_fewer_longer_sequences(run_trial: Run) -> None:
    plain, packed = (
        run_trial("plain", num_train_epochs=1.0, max_steps=None),
        run_trial("packed", packing=True, cutoff_len=128, num_train_epochs=1.0, max_steps=None),
    )
    assert packed.run.train_rows == plain.run.train_rows
    assert packed.run.steps_per_epoch < plain.run.steps_per_epoch
    assert packed.points[-2].tokens == plain.points[-2].tokens


@pytest.fixture
def broken(tmp_path: Path, model_dir: Path) -> Path:
    copy = tmp_path / "broken"
    shutil.copytree(model_dir, copy)
    return copy


def test_a_missing_model_is_named(run_trial: Run, tmp_path: Path) -> None:
    for path in (str(tmp_path / "none"), str(tmp_path / "none.gguf")):
        report = run_trial(model_name_or_path=path).report
        assert (
            report.usage_error and report.phase == "load" and f"there is no {path}" in report.error
        )


def test_a_hub_name_that_cannot_be_had_says_so(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    report = run_trial(model_name_or_path="nobody/nothing-at-all").report
    assert report.usage_error and "nobody/nothing-at-all" in report.error and "hub" in report.error


def test_a_hub_model_that_lies_in_the_cache_needs_no_network(
    run_trial: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    repository = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(model_dir, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*address: Any, **options: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    ran = run_trial(task={"save_model": True}, model_name_or_path="somebody/tiny", max_steps=1)
    assert ran.report.outcome == "completed", ran.report.error
    adapter = json.loads((ran.folder / "output" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "somebody/tiny"


def test_damaged_weights_are_said_to_be(run_trial: Run, broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and str(broken) in report.error and "damaged" in report.error


def test_a_model_without_a_tokenizer_is_refused(run_trial: Run, broken: Path) -> None:
    for file in broken.glob("*token*"):
        file.unlink()
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and "tokenizer" in report.error and str(broken) in report.error


def test_a_model_that_is_no_language_model_is_refused(run_trial: Run, broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(
        json.dumps(config | {"model_type": "vit", "architectures": ["ViTModel"]})
    )
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and "causal language model" in report.error


def test_a_file_that_is_no_gguf_is_refused(run_trial: Run, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    report = run_trial(model_name_or_path=str(tmp_path / "weights.bin")).report
    assert report.usage_error and "a folder, a .gguf file or a hub name" in report.error


def test_a_tokenizer_of_another_model_is_noticed(run_trial: Run, broken: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(broken)
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and "the model knows 50 tokens" in report.error


def test_rows_beyond_a_model_s_positions_are_refused_with_the_length_that_fits(
    run_trial: Run, broken: Path
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    (broken / "model.safetensors").unlink()
    config = GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(broken)
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and "takes at most 16 tokens" in report.error
    ran = run_trial(model_name_or_path=str(broken), cutoff_len=16, train_on_prompt=True)
    assert ran.report.outcome == "completed"


def test_modules_that_the_model_lacks_are_named_with_those_it_has(run_trial: Run) -> None:
    report = run_trial(lora_target="query_key_value").report
    assert report.usage_error and "query_key_value" in report.error and "q_proj" in report.error
    report = run_trial(finetuning_type="freeze", freeze_trainable_modules="attention").report
    assert report.usage_error and "attention" in report.error and "self_attn" in report.error
    report = run_trial(finetuning_type="freeze", freeze_extra_modules="head").report
    assert report.usage_error and "head" in report.error and "lm_head" in report.error


def test_bad_data_ends_as_a_usage_error_with_its_sentence(run_trial: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    report = run_trial(dataset=str(rows)).report
    assert (report.outcome, report.phase, report.usage_error) == ("failed", "data", True)
    assert f"{rows}, row 2: output is missing" in report.error


def test_each_lora_target_has_to_be_there(run_trial: Run) -> None:
    report = run_trial(lora_target="q_proj,v_porj").report
    assert report.usage_error
    assert "no layer v_porj; its linear layers are q_proj, k_proj" in report.error
    report = run_trial(lora_target=" , ").report
    assert report.usage_error and "its linear layers are q_proj" in report.error
    report = run_trial(lora_target="model").report
    assert report.usage_error and "no layer model" in report.error


def test_adapters_on_the_embeddings_train(run_trial: Run) -> None:
    assert run_trial(lora_target="embed_tokens").report.outcome == "completed"


def test_settings_that_leave_nothing_to_train_are_refused(run_trial: Run) -> None:
    report = run_trial(finetuning_type="freeze", freeze_trainable_modules=",").report
    assert report.usage_error and "leaves no weight of this model to train" in report.error


def test_dora_on_an_8_bit_model_on_the_cpu_is_refused(run_trial: Run) -> None:
    report = run_trial(use_dora=True, quantization_bit=8).report
    assert report.usage_error and "take 4 bits" in report.error
    assert run_trial("four", use_dora=True, quantization_bit=4).report.outcome == "completed"


def test_a_saved_adapter_is_no_model_to_start_from(run_trial: Run, model_dir: Path) -> None:
    output = run_trial(task={"save_model": True}).folder / "output"
    report = run_trial("next", model_name_or_path=str(output)).report
    assert report.usage_error
    assert f"holds a LoRA adapter of {model_dir}, not a whole model" in report.error


def test_a_folder_without_a_model_is_refused(run_trial: Run, tmp_path: Path) -> None:
    report = run_trial(model_name_or_path=str(tmp_path)).report
    assert report.usage_error and "holds no config.json" in report.error


def test_weights_that_are_missing_are_not_made_up(run_trial: Run, broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and "lack 9 of its weights (model.layers.2." in report.error


def test_weights_of_another_size_are_refused(run_trial: Run, broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    report = run_trial(model_name_or_path=str(broken)).report
    assert report.usage_error and "other sizes than its config.json says" in report.error


def test_checkpointed_frozen_layers_are_left_out_of_the_backward_pass(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    needed = []
    forward = LlamaForCausalLM.forward

    def watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["output_hidden_states"] = True
        out = forward(self, *args, **kwargs)
        if self.training:
            needed.append([h.requires_grad for h in out.hidden_states])
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", watch)
    run_trial(finetuning_type="freeze", freeze_trainable_layers=1, gradient_checkpointing=True)
    assert needed[0] == [False, False, True]
