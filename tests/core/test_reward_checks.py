"""What is refused in stages rm and ppo before anything is loaded."""

from typing import Any

import pytest

from core.catalogue import find
from core.profile import ProfileError, loads

BASE = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
PPO = {"stage": "ppo", "reward_model": "judge"}


def problems(**settings: Any) -> dict[str, str]:
    try:
        loads(BASE, changes={find(name).key: value for name, value in settings.items()})
    except ProfileError as error:
        return {problem.key: str(problem) for problem in error.problems}
    return {}


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
@pytest.mark.parametrize("stage", [{"stage": "rm"}, PPO])
def test_plain_profiles_are_fine(stage: dict[str, Any], method: str) -> None:
    assert problems(**stage, finetuning_type=method) == {}


@pytest.mark.parametrize("given", [{}, {"reward_model": " "}])
def test_ppo_says_how_to_get_a_reward_model(given: dict[str, Any]) -> None:
    told = problems(stage="ppo", **given)["alignment.reward_model"]
    assert "needs a model that scores" in told and 'method.stage = "rm"' in told
    assert "step:NAME" in told


def test_a_model_cannot_score_itself() -> None:
    told = problems(stage="ppo", reward_model="demo")
    assert "cannot score its own answers" in told["alignment.reward_model"]


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"lora_dropout": 0.1}, "method.lora_dropout", "drawn without it"),
        ({"neftune_noise_alpha": 5.0}, "train.neftune_noise_alpha", "another policy"),
        ({"budget_tokens": 1000}, "search.budget_tokens", "search.budget, a share"),
        ({"loss_chunk_tokens": 64}, "train.loss_chunk_tokens", "does nothing"),
        ({"train_on_prompt": True}, "data.train_on_prompt", "answers alone"),
        ({"packing": True}, "data.packing", "ppo"),
        ({"gpus_per_trial": 2}, "resources.gpus_per_trial", "whole in one process"),
        ({"ref_model": "demo"}, "alignment.ref_model", "leave it out"),
        (
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1},
            "train.per_device_train_batch_size",
            "draws one answer at a time",
        ),
    ],
)
def test_what_ppo_cannot_use_is_refused_with_its_reason(
    settings: dict[str, Any], key: str, says: str
) -> None:
    assert says in problems(**PPO, **settings)[key]


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"loss_chunk_tokens": 64}, "train.loss_chunk_tokens", "one score"),
        ({"train_on_prompt": True}, "data.train_on_prompt", "answers alone"),
        ({"packing": True}, "data.packing", "rm"),
        ({"lora_target": "q_proj, lm_head"}, "method.lora_target", "a score in its place"),
        ({"additional_target": "lm_head"}, "method.additional_target", "a score in its place"),
        ({"adapter_name_or_path": "sft"}, "model.adapter_name_or_path", "`tunedeck export`"),
    ],
)
def test_what_a_reward_model_cannot_use_is_refused_with_its_reason(
    settings: dict[str, Any], key: str, says: str
) -> None:
    assert says in problems(stage="rm", **settings)[key]


def test_a_reward_model_may_train_on_several_gpus() -> None:
    assert problems(stage="rm", gpus_per_trial=2) == {}


def test_a_whole_reward_model_may_begin_with_an_adapter() -> None:
    assert problems(stage="rm", finetuning_type="full", adapter_name_or_path="sft") == {}


def test_other_stages_need_none_of_it() -> None:
    assert problems(stage="sft", lora_dropout=0.1, neftune_noise_alpha=5.0) == {}
