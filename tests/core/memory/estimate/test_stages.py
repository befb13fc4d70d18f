"""What the stages need besides supervised fine-tuning: pairs, a reference, a reward model, answers that are drawn."""

from typing import Any

import msgspec
import pytest

from core.memory.architecture import read_config
from core.memory.closed_form import estimate
from core.memory.estimate.passes import Batch, tail_cost
from core.memory.estimate.regime import decide
from core.memory.estimate.stages import cache_of_answers, needs_of
from core.memory.forecast import GIB, Forecast, Target
from core.profile import Profile, from_document

A100 = Target(kind="cuda", total=80 * GIB, free=80 * GIB, capability=(8, 0))
UNTIED: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
    "num_key_value_heads": 8, "intermediate_size": 5632, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
SHAPE = read_config(UNTIED)
HEAD = 32000 * 2048


def profile(stage: str, method: str = "lora", **changes: Any) -> Profile:
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": "somewhere"},
        "method": {"stage": stage, "finetuning_type": method},
        "alignment": {"reward_model": "scores"} if stage == "ppo" else {},
        "data": {"dataset": "demo", "cutoff_len": 1024},
        "train": {"per_device_train_batch_size": 4, "precision": "bf16"},
        "generation": {},
    }
    for key, value in changes.items():
        table, _, name = key.partition("__")
        document[table][name] = value
    return from_document(document).as_training()


def forecast(stage: str, method: str = "lora", **changes: Any) -> Forecast:
    return estimate(profile(stage, method, **changes), SHAPE, A100)


@pytest.mark.parametrize("stage", ["sft", "rm", "dpo", "kto", "ppo"])
def test_such_a_forecast_says_what_no_dry_run_goes_through(stage: str) -> None:
    found = forecast(stage)
    assert found.tier == "estimate"
    told = any(f"stage {stage} are estimated" in note for note in found.notes)
    assert told == (stage == "ppo") == any("stage" in note for note in found.notes)


def test_a_pair_is_two_rows() -> None:
    halved = forecast("dpo", train__per_device_train_batch_size=2)
    single = forecast("kto", train__per_device_train_batch_size=4)
    assert halved.parts["activations"] == pytest.approx(single.parts["activations"], rel=0.02)


def test_a_reference_takes_a_second_model_where_there_are_no_adapters_to_switch_off() -> None:
    frozen = 2 * (SHAPE.layers * sum(m.weight for m in SHAPE.linears) + 2 * HEAD)
    for method, width in (("lora", 0), ("full", frozen)):
        with_one, without = (
            # Between updates nothing else is there that differs.
            forecast("dpo", method, alignment__pref_loss=loss).moments["optimizer"]
            for loss in ("sigmoid", "orpo")
        )
        assert with_one - without == pytest.approx(width, rel=0.01)
    named = forecast("dpo", alignment__ref_model="another")
    assert named.parts["weights"] - forecast("dpo").parts["weights"] == pytest.approx(
        frozen, rel=0.01
    )
    assert any("reference model is taken to be as large" in note for note in named.notes)


def test_the_references_pass_comes_before_the_activations_of_the_batch() -> None:
    assert forecast("dpo").moments == forecast("dpo", alignment__pref_loss="simpo").moments


def test_answers_alone_are_scored_on_a_gpu() -> None:
    def scores(answers: int, length: int, target: Target) -> int:
        regime = decide(profile("dpo"), SHAPE, target)
        batch = Batch(8, length, fused=answers)
        return tail_cost(
            SHAPE, regime, batch, 2, head_trains=False, norm_trains=False, flows=True
        ).forward.parts[1]

    # 32,768 scores in bf16 each, however few words there are, and five sums in fp32.
    assert scores(400, 128, A100) == 400 * (32768 * 2 + 5 * 4)
    # No more than 4,096 at once.
    assert scores(8000, 1024, A100) == 4096 * 32768 * 2 + 8000 * 5 * 4
    cpu = Target(kind="cpu", total=80 * GIB, free=80 * GIB)
    assert scores(400, 1024, cpu) == scores(8000, 1024, cpu)


def test_a_models_own_dropout_is_off_where_answers_are_compared() -> None:
    noisy = msgspec.structs.replace(SHAPE, dropout=0.1, attention_dropout=0.1)
    for stage in ("sft", "rm", "dpo", "kto", "ppo"):
        with_it = estimate(profile(stage), noisy, A100).moments["backward"]
        without = estimate(profile(stage), SHAPE, A100).moments["backward"]
        assert (with_it > without) == (stage == "sft")


def test_a_reward_model_has_no_output_head_and_no_scores_over_the_vocabulary() -> None:
    reward, answers = forecast("rm"), forecast("sft", train__per_device_train_batch_size=8)
    assert answers.parts["weights"] - reward.parts["weights"] == pytest.approx(2 * HEAD, rel=0.01)
    assert answers.parts["logits"] > 4 * 8 * 1024 * 32000
    assert reward.parts.get("logits", 0) < 2**20


def test_what_is_drawn_takes_room_behind_the_prompt() -> None:
    short = forecast("ppo", generation__max_new_tokens=64)
    long = forecast("ppo", generation__max_new_tokens=1024)
    assert long.parts["activations"] > 1.7 * short.parts["activations"]
    regime = decide(profile("ppo"), SHAPE, A100)
    # Keys and values, 16 layers, 8 heads of 128 numbers in bf16, 4 rows of 1,100 tokens.
    assert cache_of_answers(SHAPE, regime, 4, 1100) == 2 * 16 * 8 * 128 * 1100 * 4 * 2


def test_ppo_holds_a_reward_model_and_full_fine_tuning_a_reference_besides() -> None:
    assert (needs_of(profile("ppo")).references, needs_of(profile("ppo")).rewards) == (0, 1)
    full = needs_of(profile("ppo", "full"))
    assert (full.references, full.rewards) == (1, 1)
    assert forecast("ppo").parts["weights"] > 1.9 * forecast("sft").parts["weights"]
