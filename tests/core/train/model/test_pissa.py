"""PiSSA: adapters that begin with a part of the weights, saved as adapters of the original model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

Run = Callable[..., Any]
PISSA: dict[str, Any] = {"pissa_init": True, "lora_rank": 4, "learning_rate": 1e-3}
TOKENS = torch.arange(5, 29).reshape(2, 12)


def keep_models(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    from core.train.stages.base import StageTrainer

    kept: list[Any] = []
    init = StageTrainer.__init__

    def keep(self: Any, **arguments: Any) -> None:
        kept.append(arguments["model"])
        init(self, **arguments)

    monkeypatch.setattr(StageTrainer, "__init__", keep)
    return kept


def logits(model: Any) -> Any:
    model.eval()
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


@pytest.mark.parametrize(
    "settings",
    [{"pissa_iter": 4}, {"pissa_iter": -1, "use_rslora": True}, {"use_dora": True, "lora_alpha": 3.0}],
    ids=["fast", "exact, rsLoRA", "DoRA"],
)  # fmt: skip
def test_what_is_saved_is_an_adapter_of_the_original_model(
    run_trial: Run, model_dir: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    from peft import PeftModel

    kept = keep_models(monkeypatch)
    ran = run_trial(task={"save_model": True}, **PISSA, **settings)
    assert ran.report.outcome == "completed", ran.report.error
    tuned = logits(kept[0])
    config = json.loads((ran.folder / "output" / "adapter_config.json").read_text())
    assert config["r"] == 8 and config["init_lora_weights"] is True
    original = AutoModelForCausalLM.from_pretrained(model_dir)
    before = logits(original)
    loaded = PeftModel.from_pretrained(original, ran.folder / "output")
    assert torch.allclose(logits(loaded), tuned, atol=1e-4)
    assert (tuned - before).abs().max() > 1e-2
    merged = loaded.merge_and_unload()
    assert torch.allclose(logits(merged), tuned, atol=1e-4)


def test_a_run_begins_as_the_original_model_with_its_largest_directions_in_the_adapters(
    run_trial: Run, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keep_models(monkeypatch)
    ran = run_trial(
        max_steps=1, warmup_steps=0, **PISSA | {"pissa_iter": -1, "learning_rate": 1e-12}
    )
    assert ran.report.outcome == "completed"
    original = AutoModelForCausalLM.from_pretrained(model_dir)
    assert torch.allclose(logits(kept[0]), logits(original), atol=1e-5)
    module = kept[0].base_model.model.model.layers[0].self_attn.q_proj
    weight = original.model.layers[0].self_attn.q_proj.weight.detach()
    taken = weight - module.get_base_layer().weight
    values = torch.linalg.svdvals(weight)
    assert torch.linalg.svdvals(taken)[:4] == pytest.approx(values[:4].tolist(), rel=1e-4)
    assert torch.linalg.matrix_norm(taken, 2) > 0
    assert torch.linalg.svdvals(module.get_base_layer().weight)[0] == pytest.approx(
        float(values[4]), rel=1e-4
    )


def test_trials_of_other_seeds_begin_with_the_same_adapters(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.model import pissa

    kept = keep_models(monkeypatch)
    for seed in (1, 2):
        run_trial(str(seed), seed=seed, max_steps=1, **PISSA)
    one, two = (pissa.origin_of(model) for model in kept)
    assert one is not None and two is not None and one.pairs.keys() == two.pairs.keys()
    for name, pair in one.pairs.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, two.pairs[name], strict=True))


def test_a_checkpoint_is_gone_on_from_to_the_last_bit(run_trial: Run) -> None:
    settings = PISSA | {"max_steps": 6, "lora_dropout": 0.2}
    straight = run_trial("straight", task={"save_model": True}, **settings)
    paused = run_trial("paused", ask=("paused", 3), **settings)
    assert paused.report.outcome == "paused"
    task = {"attempt": 2, "resume_from": paused.report.checkpoint, "save_model": True}
    again = run_trial("paused", task=task, **settings)
    assert again.losses == straight.losses
    one, two = (
        load_file(ran.folder / "output" / "adapter_model.safetensors") for ran in (straight, again)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_of_another_decomposition_gives_the_same_model(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another GPU, or with another version, the directions come out otherwise."""
    from core.train.model import pissa

    settings = PISSA | {"max_steps": 4, "pissa_iter": 0}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 2), **settings)
    monkeypatch.setattr(pissa, "SEED", 99)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    again = run_trial("paused", task=task, **settings)
    assert [loss for _, loss in again.losses] == pytest.approx(
        [loss for _, loss in straight.losses], rel=1e-5
    )


def test_the_best_weights_are_put_back_after_an_early_stop(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.stages.base import StageTrainer

    seen: list[tuple[float, Any]] = []
    evaluate = StageTrainer.evaluate

    def look(self: Any, *arguments: Any, **named: Any) -> Any:
        metrics = evaluate(self, *arguments, **named)
        weight = self.model.base_model.model.model.layers[0].mlp.up_proj.lora_A["default"].weight
        seen.append((metrics["eval_loss"], weight.detach().clone()))
        return metrics

    monkeypatch.setattr(StageTrainer, "evaluate", look)
    ran = run_trial(
        task={"save_model": True}, val_size=6, eval_steps=1, early_stopping_patience=2, max_steps=12,
        **PISSA | {"learning_rate": 0.3, "max_grad_norm": 0.0},
    )  # fmt: skip
    assert ran.report.outcome == "completed" and ran.report.step < 12
    best = min(seen, key=lambda moment: moment[0])[1]
    saved = load_file(ran.folder / "output" / "adapter_model.safetensors")
    name = next(n for n in saved if "layers.0.mlp.up_proj.lora_A" in n)
    assert torch.equal(saved[name][:4], best) and not torch.equal(best, seen[-1][1])


def test_a_quantised_model_is_refused(run_trial: Run) -> None:
    from core.profile import ProfileError

    with pytest.raises(ProfileError, match="pissa_init"):
        run_trial(quantization_bit=4, **PISSA)


def test_embeddings_are_refused_by_name(run_trial: Run) -> None:
    report = run_trial(lora_target="embed_tokens", **PISSA).report
    assert report.usage_error and "embed_tokens" in report.error and "pissa_init" in report.error


def test_a_rank_above_a_weight_s_own_is_refused_by_name(run_trial: Run) -> None:
    """What it would save could not be loaded."""
    report = run_trial(**PISSA | {"lora_rank": 64}).report
    assert report.usage_error and "lora_rank = 64" in report.error
    assert "k_proj has 32" in report.error
    fits = run_trial(lora_target="q_proj,up_proj", max_steps=1, **PISSA | {"lora_rank": 64})
    assert fits.report.outcome == "completed", fits.report.error
