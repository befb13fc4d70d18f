"""What is refused where a model learns from preferences, and what is not."""

from typing import Any

import pytest

from core.profile import ProfileError, loads

BASE = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "pairs.jsonl"\n'


def problems(**settings: Any) -> list[str]:
    """The keys that are refused with `settings` (dots replaced by two underscores)."""
    try:
        changes = {k.replace("__", "."): v for k, v in settings.items()}
        loads(BASE).with_changes(changes)
    except ProfileError as error:
        assert all(p.right for p in error.problems), "each says what to do"
        return [p.key for p in error.problems]
    return []


@pytest.mark.parametrize("stage", ["dpo", "kto"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.neftune_noise_alpha", 5.0),
        ("train.loss_chunk_tokens", 1024),
        ("data.train_on_prompt", True),
        ("data.packing", True),
        ("method.lora_target", "q_proj,lm_head"),
    ],
)
def test_what_does_not_reach_the_loss_is_refused_with_preferences_alone(
    stage: str, key: str, value: Any
) -> None:
    setting = {key.replace(".", "__"): value}
    assert problems(method__stage=stage, **setting) == [key]
    assert problems(method__stage="sft", **setting) == []


def test_kto_needs_two_rows_an_update() -> None:
    one = {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 1}
    assert problems(method__stage="kto", **one) == ["train.per_device_train_batch_size"]
    assert problems(method__stage="dpo", **one) == []
    assert problems(method__stage="kto", **one | {"train__gradient_accumulation_steps": 2}) == []
    assert problems(method__stage="kto", **one | {"resources__gpus_per_trial": 2}) == []


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_a_loss_without_a_reference_takes_none(loss: str) -> None:
    other = {"alignment__ref_model": "org/other"}
    assert problems(method__stage="dpo", alignment__pref_loss=loss, **other) == ["alignment.ref_model"]  # fmt: skip
    assert problems(method__stage="dpo", **other) == []
    assert problems(method__stage="kto", alignment__pref_loss=loss, **other) == []


def test_a_reference_is_another_model() -> None:
    same = {"model__model_name_or_path": "org/model", "alignment__ref_model": "org/model"}
    assert problems(method__stage="dpo", **same) == ["alignment.ref_model"]
    # With an adapter merged into it, the model that trains begins elsewhere.
    merged = same | {"model__adapter_name_or_path": "adapter"}
    assert problems(method__stage="dpo", **merged) == []


def test_settings_of_another_loss_are_refused() -> None:
    smoothed = {"method__stage": "dpo", "alignment__dpo_label_smoothing": 0.1}
    assert problems(**smoothed) == []
    assert problems(**smoothed, alignment__pref_loss="hinge") == ["alignment.dpo_label_smoothing"]
    added = {"method__stage": "dpo", "alignment__pref_ftx": 0.5}
    assert problems(**added, alignment__pref_loss="simpo") == []
    assert problems(**added, alignment__pref_loss="orpo") == ["alignment.pref_ftx"]


@pytest.mark.parametrize("shares", [[0.5, 0.0], [0.0, 0.5]])
def test_a_search_may_leave_out_what_a_loss_does_not_take(shares: list[float]) -> None:
    searched = f'[method]\nstage = "dpo"\n[alignment]\npref_loss = "orpo"\n[search.space]\npref_ftx = {shares}\n'
    assert loads(BASE + searched).search.space == {"pref_ftx": shares}


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = problems(
        method__stage="dpo", train__neftune_noise_alpha=5.0, data__train_on_prompt=True, alignment__pref_loss="orpo",
        alignment__pref_ftx=1.0,
    )  # fmt: skip
    assert sorted(wrong) == ["alignment.pref_ftx", "data.train_on_prompt", "train.neftune_noise_alpha"]  # fmt: skip


def test_a_refusal_names_both_values() -> None:
    with pytest.raises(ProfileError, match=r'5 does not go with stage = "dpo"'):
        loads(BASE).with_changes({"method.stage": "dpo", "train.neftune_noise_alpha": 5.0})
