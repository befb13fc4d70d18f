"""Which stages, methods and settings go together, and with what reason the others are refused, by the profile alone.

`test_method_checks.py`, `test_alignment_checks.py`, `test_reward_checks.py` and `test_data_checks.py` have what is
forbidden in one stage or with one method; here is what holds over all of them. The model is one that nobody has: a
refusal that came after it was looked for would be another one.
"""

from typing import Any

import pytest

from core.profile import ProfileError, from_document

STAGES = ("pt", "sft", "rm", "dpo", "kto", "ppo")
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method.finetuning_type": "full"},
    "freeze": {"method.finetuning_type": "freeze"},
    "lora": {"method.finetuning_type": "lora"},
    "qlora": {"method.finetuning_type": "lora", "model.quantization_bit": 4},
    "qlora8": {"method.finetuning_type": "lora", "model.quantization_bit": 8},
}


def refusals(stage: str, method: str, settings: dict[str, Any]) -> dict[str, str]:
    """What is wrong, by key."""
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": "nobody/has-such-a-model"},
        "data": {"dataset": "demo-text" if stage == "pt" else "demo"},
    }
    own = {"alignment.reward_model": "scores"} if stage == "ppo" else {}
    for key, value in ({"method.stage": stage} | own | METHODS[method] | settings).items():
        table, _, name = key.partition(".")
        document.setdefault(table, {})[name] = value
    try:
        from_document(document, source="test")
    except ProfileError as error:
        return {problem.key: str(problem) for problem in error.problems}
    return {}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
def test_every_stage_goes_with_every_method(stage: str, method: str) -> None:
    assert refusals(stage, method, {}) == {}


OF_WEIGHTS = {"full", "freeze"}
OF_ADAPTERS = {"lora", "qlora", "qlora8"}
EVERY = OF_WEIGHTS | OF_ADAPTERS
ALL = set(STAGES)

FORBIDDEN: list[tuple[dict[str, Any], set[str], set[str], tuple[str, ...]]] = [
    # setting, stages and methods that refuse it (all others take it), words of the reason and of the fix
    ({"model.quantization_bit": 4}, ALL, OF_WEIGHTS, ("cannot be trained", '"lora"')),
    ({"model.quantization_bit": 8}, ALL, OF_WEIGHTS, ("cannot be trained", '"lora"')),
    ({"train.optim": "galore_adamw"}, ALL, EVERY - {"full"}, ("whole weights", '"adamw_torch"')),
    ({"train.optim": "apollo_adamw"}, ALL, EVERY - {"full"}, ("whole weights", '"adamw_torch"')),
    ({"method.lora_dropout": 0.1}, {"ppo"}, OF_ADAPTERS, ("drawn without it",)),
    ({"train.neftune_noise_alpha": 5.0}, {"dpo", "kto", "ppo"}, EVERY, ("noise", '"sft"')),
    ({"train.loss_chunk_tokens": 64}, ALL - {"pt", "sft"}, EVERY, ("does nothing", "leave it")),
    ({"data.train_on_prompt": True}, ALL - {"pt", "sft"}, EVERY, ("answers", '"sft"')),
    ({"data.packing": True}, ALL - {"pt", "sft"}, EVERY, ("whole rows", '"sft"')),
    ({"data.format": "text"}, ALL - {"pt"}, EVERY, ('the stage is "', 'method.stage = "pt"')),
    ({"data.format": "sharegpt"}, {"pt"}, EVERY, ("plain text", 'method.stage = "sft"')),
    ({"resources.gpus_per_trial": 2}, {"ppo"}, EVERY, ("one GPU", "parallel")),
    ({"search.rank_by": "eval_accuracy"}, ALL - {"pt", "sft"}, EVERY, ("no trial of stage",)),
    ({"search.rank_by": "reward_margin"}, {"pt", "sft", "ppo"}, EVERY, ("no trial of stage",)),
    ({"search.rank_by": "eval_reward"}, ALL - {"ppo"}, EVERY, ("no trial of stage",)),
    ({"method.lora_target": "q_proj,lm_head"}, {"rm", "dpo", "kto"}, OF_ADAPTERS, ("lm_head", "leave lm_head out")),
    ({"method.additional_target": "lm_head"}, {"rm"}, OF_ADAPTERS, ("a score in its place",)),
]  # fmt: skip


@pytest.mark.parametrize(
    "row", FORBIDDEN, ids=lambda row: ", ".join(f"{k} = {v}" for k, v in row[0].items())
)
def test_what_cannot_work_is_refused_with_its_reason_and_nothing_else_is(
    row: tuple[dict[str, Any], set[str], set[str], tuple[str, ...]],
) -> None:
    setting, stages, methods, told = row
    (key,) = setting
    for stage in STAGES:
        for method in METHODS:
            found = refusals(stage, method, setting)
            if stage not in stages or method not in methods:
                assert found == {}, (stage, method)
                continue
            assert set(found) == {key}, (stage, method)
            for words in told:
                assert words in found[key], (stage, method)


@pytest.mark.parametrize("stage", ["dpo", "kto", "ppo"])
def test_adapters_that_hold_a_part_of_the_model_leave_no_reference(stage: str) -> None:
    settings: dict[str, Any] = {"method.pissa_init": True}
    assert "without its adapters" in refusals(stage, "lora", settings)["method.pissa_init"]
    if stage == "dpo":
        for loss in ("orpo", "simpo"):
            assert refusals(stage, "lora", settings | {"alignment.pref_loss": loss}) == {}
