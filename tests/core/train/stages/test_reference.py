"""The reference of a policy of which some layers train lies in the policy's memory, and nothing else is different."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.train.stages.dpo import DpoTrainer
from core.train.stages.reference import Frozen

Run = Callable[..., Any]

FREEZE: dict[str, Any] = {
    "finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 2e-3, "max_steps": 5, "val_size": 4,
}  # fmt: skip


def of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a reference that shares nothing: a second model from the files."""
    monkeypatch.setattr("core.train.stages.preference.twin_of", lambda profile, model: None)
    monkeypatch.setattr("core.train.stages.reference.share_weights", lambda model, other: 0)


def logged(ran: Any) -> list[Any]:
    assert ran.report.outcome == "completed", ran.report
    return [(p.step, p.loss, p.grad_norm, p.eval_loss, p.more) for p in ran.points]


@pytest.fixture
def asked(pairs: Path, tags: Path) -> dict[str, dict[str, Any]]:
    """What each stage is told besides."""
    return {
        "dpo": {"stage": "dpo", "dataset": str(pairs)},
        "kto": {"stage": "kto", "dataset": str(tags)},
    }


@pytest.mark.parametrize("stage", ["dpo", "kto"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"precision": "bf16", "gradient_checkpointing": True},
        {"precision": "pure_bf16", "freeze_extra_modules": "embed_tokens,lm_head"},
    ],
    ids=["fp32", "bf16", "pure_bf16"],
)
def test_a_shared_reference_gives_the_numbers_of_one_of_its_own(
    run_trial: Run, asked: Any, monkeypatch: pytest.MonkeyPatch, stage: str, more: Any
) -> None:
    settings = asked[stage] | FREEZE | more
    task = {"save_model": True}
    shared = run_trial("shared", task=task, **settings)
    of_its_own(monkeypatch)
    apart = run_trial("apart", task=task, **settings)
    assert logged(shared) == logged(apart)
    one, two = (load_file(r.folder / "output" / "model.safetensors") for r in (shared, apart))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert AutoModelForCausalLM.from_pretrained(shared.folder / "output").num_parameters()


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_trial_that_goes_on_is_held_to_the_same_reference(
    run_trial: Run, asked: Any, stage: str
) -> None:
    settings = asked[stage] | FREEZE
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 2), **settings)
    again = run_trial(
        "paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings
    )
    assert again.report.outcome == "completed", again.report
    assert again.losses == straight.losses


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[DpoTrainer]:
    """The trainers that trials have made, in order."""
    made: list[DpoTrainer] = []
    init = DpoTrainer.__init__

    def noting(trainer: Any, **arguments: Any) -> None:
        init(trainer, **arguments)
        made.append(trainer)

    monkeypatch.setattr(DpoTrainer, "__init__", noting)
    return made


def places(model: Any) -> dict[str, int]:
    return {name: weight.untyped_storage().data_ptr() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "pure_bf16"])
def test_only_the_layers_that_train_exist_twice(
    run_trial: Run, asked: Any, trainers: list[DpoTrainer], model_dir: Path, precision: str
) -> None:
    more = {"precision": precision, "gradient_checkpointing": True, "offload_activations": True}
    ran = run_trial(**asked["dpo"] | FREEZE | more)
    assert ran.report.outcome == "completed", ran.report
    policy, held = trainers[0].model, trainers[0]._reference
    assert isinstance(held, Frozen)
    # As many layers as the policy has, of which it holds one: the last.
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert trained and all(".layers.1." in name for name in trained)
    own, other = places(policy), places(held.model)
    assert {name for name in own if own[name] != other[name]} == trained
    # It is what the policy was, in the numbers that it computes with, and keeps nothing for a backward pass.
    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    begun = AutoModelForCausalLM.from_pretrained(model_dir, dtype=kind)
    for (name, weight), before in zip(
        held.model.named_parameters(), begun.parameters(), strict=True
    ):
        assert torch.equal(weight, before) and weight.dtype == kind, name
        assert not weight.requires_grad
    changed = dict(policy.named_parameters())
    assert any(not torch.equal(changed[n].to(kind), w) for n, w in begun.named_parameters())
    assert not held.model.training and not held.model.is_gradient_checkpointing
    assert policy.is_gradient_checkpointing


def test_tied_weights_that_train_are_parted_and_stay_tied(
    run_trial: Run, asked: Any, trainers: list[DpoTrainer], model_dir: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    tied = tmp_path / "tied"
    shutil.copytree(model_dir, tied)
    model.save_pretrained(tied)
    words = deepcopy(model.get_input_embeddings().weight.detach())
    ran = run_trial(
        **asked["dpo"] | FREEZE,
        model_name_or_path=str(tied),
        freeze_extra_modules="embed_tokens",
    )
    assert ran.report.outcome == "completed", ran.report
    policy, held = trainers[0].model, trainers[0]._reference
    assert isinstance(held, Frozen)
    for made in (policy, held.model):
        assert made.get_input_embeddings().weight is made.get_output_embeddings().weight
    assert torch.equal(held.model.get_input_embeddings().weight, words)
    assert not torch.equal(policy.get_input_embeddings().weight, words)


def test_a_named_reference_shares_what_is_the_same(
    run_trial: Run, asked: Any, trainers: list[DpoTrainer], model_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 1
    model.save_pretrained(other)
    ran = run_trial(
        **asked["dpo"], finetuning_type="lora", ref_model=str(other), max_steps=2, val_size=4
    )
    assert ran.report.outcome == "completed", ran.report
    held = trainers[0]._reference
    assert isinstance(held, Frozen)
    own = {p.untyped_storage().data_ptr() for p in trainers[0].model.parameters()}
    apart = [name for name, place in places(held.model).items() if place not in own]
    assert apart == ["model.layers.1.mlp.up_proj.weight"]
