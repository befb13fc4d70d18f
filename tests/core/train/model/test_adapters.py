"""LoRA+'s rates, modules that train whole beside adapters, and adapters that a run begins with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from core.params import MethodTable, TrainTable
from core.train.optimizers import EMBEDDING_RATE, build_optimizer

Run = Callable[..., Any]
TOKENS = torch.arange(5, 29).reshape(2, 12)


def tiny(**settings: Any) -> Any:
    torch.manual_seed(0)
    config = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**config | settings))


def logits(model: Any) -> Any:
    model.eval()
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


# LoRA+ ----------------------------------------------------------------------------------------------------------


def test_loraplus_divides_the_weights_as_peft_does() -> None:
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj", "embed_tokens"], use_dora=False)
    model = get_peft_model(tiny(), config)
    train = TrainTable(learning_rate=1e-3, weight_decay=0.1)
    ours = build_optimizer(model, train, "cpu", method=MethodTable(loraplus_lr_ratio=16.0))
    theirs = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
    )

    def rates(optimizer: Any) -> dict[int, tuple[float, float]]:
        return {
            id(p): (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for p in group["params"]
        }

    assert rates(ours) == rates(theirs)
    assert {rate for rate, _ in rates(ours).values()} == {1e-3, 1e-3 * 16, EMBEDDING_RATE}


def test_loraplus_trains_b_matrices_faster_through_the_whole_schedule(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.stages.base import StageTrainer

    rates: list[list[float]] = []
    step = StageTrainer.training_step

    def look(self: Any, *arguments: Any, **named: Any) -> Any:
        rates.append([group["lr"] for group in self.optimizer.param_groups if group["params"]])
        return step(self, *arguments, **named)

    monkeypatch.setattr(StageTrainer, "training_step", look)
    ran = run_trial(
        loraplus_lr_ratio=8.0, max_steps=6, lr_scheduler_type="cosine", learning_rate=1e-3
    )
    assert ran.report.outcome == "completed", ran.report.error
    assert all(quick == pytest.approx(8 * slow) for slow, quick in rates) and len(rates) > 6
    assert max(slow for slow, _ in rates) == pytest.approx(1e-3)
    # What is told is the rate that the profile names.
    assert max(p.lr for p in ran.points if p.lr is not None) <= 1e-3 * (1 + 1e-9)


def test_loraplus_changes_how_it_learns_and_full_fine_tuning_knows_nothing_of_it(
    run_trial: Run,
) -> None:
    plain, plus = run_trial("a"), run_trial("b", loraplus_lr_ratio=16.0)
    assert plain.losses[0] == plus.losses[0] and plain.losses != plus.losses
    full = {"finetuning_type": "full", "learning_rate": 1e-3}
    assert run_trial("c", **full).losses == run_trial("d", loraplus_lr_ratio=16.0, **full).losses


# Modules that train whole -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied_dir(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A model whose embeddings are its head too."""
    folder = tmp_path_factory.mktemp("tied")
    shutil.copytree(model_dir, folder, dirs_exist_ok=True)
    words = AutoModelForCausalLM.from_pretrained(model_dir).config.vocab_size
    tiny(vocab_size=words, tie_word_embeddings=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("named", ["embed_tokens", "lm_head", "embed_tokens, lm_head"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_module_that_trains_whole_is_saved_with_the_adapter_and_loads(
    run_trial: Run, model_dir: Path, tied_dir: Path, named: str, tied: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from core.train.stages.base import StageTrainer

    kept: list[Any] = []
    init = StageTrainer.__init__

    def keep(self: Any, **arguments: Any) -> None:
        kept.append(arguments["model"])
        init(self, **arguments)

    monkeypatch.setattr(StageTrainer, "__init__", keep)
    base = tied_dir if tied else model_dir
    settings = {"additional_target": named, "model_name_or_path": str(base), "lora_rank": 2}
    ran = run_trial(task={"save_model": True}, **settings)
    assert ran.report.outcome == "completed", ran.report.error
    tuned = logits(kept[0])
    original = AutoModelForCausalLM.from_pretrained(base)
    before = original.get_input_embeddings().weight.detach().clone()
    loaded = PeftModel.from_pretrained(original, ran.folder / "output")
    assert torch.allclose(logits(loaded), tuned, atol=1e-5)
    merged = loaded.merge_and_unload()
    assert torch.allclose(logits(merged), tuned, atol=1e-4)
    words, head = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    assert (words.data_ptr() == head.data_ptr()) == tied
    assert torch.equal(words, before) == (not tied and named == "lm_head")


@pytest.mark.parametrize("named", ["embed_tokens", "lm_head"])
def test_embeddings_that_are_the_head_train_by_either_name(
    run_trial: Run, tied_dir: Path, named: str
) -> None:
    ran = run_trial(
        task={"save_model": True}, finetuning_type="freeze", freeze_extra_modules=named, max_steps=2, learning_rate=1e-3,
        model_name_or_path=str(tied_dir),
    )  # fmt: skip
    assert ran.report.outcome == "completed", ran.report.error
    before, after = (
        AutoModelForCausalLM.from_pretrained(f).get_input_embeddings().weight
        for f in (tied_dir, ran.folder / "output")
    )
    assert not torch.equal(before, after)


def test_such_a_run_is_paused_and_goes_on_to_the_last_bit(run_trial: Run) -> None:
    settings = {"additional_target": "embed_tokens", "max_steps": 6, "lora_dropout": 0.1}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 3), **settings)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    assert run_trial("paused", task=task, **settings).losses == straight.losses


def test_whole_modules_work_with_a_loss_in_chunks_and_a_quantised_base(run_trial: Run) -> None:
    settings = {"additional_target": "lm_head", "quantization_bit": 4, "max_steps": 3}
    plain = run_trial("plain", **settings)
    chunked = run_trial("chunked", loss_chunk_tokens=16, **settings)
    assert plain.report.outcome == "completed", plain.report.error
    assert [loss for _, loss in chunked.losses] == pytest.approx(
        [loss for _, loss in plain.losses], rel=1e-5
    )


@pytest.mark.parametrize(
    ("precision", "adapters"), [("pure_bf16", "fp32"), ("fp32", "bf16"), ("bf16", "bf16")]
)
def test_whole_modules_work_with_adapters_of_other_numbers(
    run_trial: Run, precision: str, adapters: str
) -> None:
    ran = run_trial(
        additional_target="embed_tokens, lm_head", precision=precision, adapter_precision=adapters, max_steps=2
    )  # fmt: skip
    assert ran.report.outcome == "completed", ran.report.error


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"additional_target": "embed_words"}, "no module embed_words"),
        ({"additional_target": "q_proj", "lora_target": "v_proj", "quantization_bit": 4}, "q_proj is quantised"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_train_whole_is_named(
    run_trial: Run, settings: dict[str, Any], told: str
) -> None:
    report = run_trial(**settings).report
    assert report.usage_error and told in report.error


# Adapters to begin with -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """An adapter of the model whose effect can be seen."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    get_peft_model(base, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("kind", ["lora", "full", "freeze"])
def test_a_run_begins_with_the_adapter_merged_into_the_model(
    run_trial: Run, model_dir: Path, adapter: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.stages.base import StageTrainer

    begun: list[Any] = []
    init = StageTrainer.__init__

    def keep(self: Any, **arguments: Any) -> None:
        begun.append(logits(arguments["model"]))
        arguments["model"].train()
        init(self, **arguments)

    monkeypatch.setattr(StageTrainer, "__init__", keep)
    ran = run_trial(
        adapter_name_or_path=str(adapter), finetuning_type=kind, max_steps=2, learning_rate=1e-4
    )
    assert ran.report.outcome == "completed", ran.report.error
    expected = logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), adapter)
    )
    assert torch.allclose(begun[0], expected, atol=1e-5)
    assert not torch.allclose(
        begun[0], logits(AutoModelForCausalLM.from_pretrained(model_dir)), atol=1e-3
    )


def test_adapters_that_cannot_be_begun_with_are_told_with_both_names(
    run_trial: Run, model_dir: Path, adapter: Path, tmp_path: Path
) -> None:
    def refused(path: Path, **more: Any) -> str:
        report = run_trial(adapter_name_or_path=str(path), **more).report
        assert report.usage_error, report.error
        return str(report.error)

    assert f"there is no folder {tmp_path / 'gone'}" in refused(tmp_path / "gone")
    whole = refused(model_dir)
    assert "adapter_config.json" in whole and "it is a whole model" in whole
    empty = tmp_path / "empty"
    shutil.copytree(adapter, empty)
    (empty / "adapter_model.safetensors").unlink()
    assert "lacks its weights (adapter_model.safetensors" in refused(empty)
    (empty / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    (empty / "adapter_model.safetensors").write_bytes(b"")
    assert "an adapter of the kind IA3, not LORA" in refused(empty)
    (empty / "adapter_config.json").write_text("{")
    assert "adapter_config.json cannot be read" in refused(empty)
    wide = tmp_path / "wide"
    other = get_peft_model(
        tiny(), LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path="some/base")
    )
    other.save_pretrained(wide, save_embedding_layers=False)
    config = json.loads((wide / "adapter_config.json").read_text())
    (wide / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "some/base"})
    )
    told = refused(wide)
    assert str(wide) in told and "some/base" in told and str(model_dir) in told
    assert "size mismatch" in told
    deep = tmp_path / "deep"
    get_peft_model(
        tiny(hidden_size=64, num_hidden_layers=3, num_attention_heads=4),
        LoraConfig(target_modules=["q_proj"]),
    ).save_pretrained(deep, save_embedding_layers=False)
    told = refused(deep)
    assert "layers.2" in told and "does not fit the model" in told


def test_an_adapter_named_as_the_model_is_told_how_it_can_be_used(
    run_trial: Run, adapter: Path, model_dir: Path
) -> None:
    report = run_trial(model_name_or_path=str(adapter)).report
    assert report.usage_error and str(model_dir) in report.error
    assert "adapter_name_or_path" in report.error and "tunedeck export" in report.error


def test_the_log_names_the_adapter_that_a_run_began_with(
    run_trial: Run, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_trial(adapter_name_or_path=str(adapter), max_steps=1)
    assert f"begins with the adapter {adapter}" in capsys.readouterr().out
