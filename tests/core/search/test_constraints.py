"""What follows from a combination beside what was drawn."""

import math
from typing import Any

import pytest

from core.profile import Profile, from_document
from core.search.constraints import derive

RANKS: dict[str, Any] = {"lora_rank": [4, 8, 16]}
BATCHES: dict[str, Any] = {"per_device_train_batch_size": [1, 4, 16], "learning_rate": [1e-4, 2e-4]}


def searching(space: dict[str, Any], search: dict[str, Any], **tables: Any) -> Profile:
    document: dict[str, Any] = {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}}
    return from_document({**document, **tables, "search": {"space": space, **search}})


def test_what_has_no_effect_is_no_setting() -> None:
    profile = searching({"finetuning_type": ["lora", "full"], **RANKS}, {})
    assert derive(profile, {"finetuning_type": "full", "lora_rank": 16}) == {
        "finetuning_type": "full"
    }


def test_alpha_follows_the_rank() -> None:
    profile = searching(RANKS, {}, method={"lora_rank": 8, "lora_alpha": 12.0})
    assert derive(profile, {"lora_rank": 16}) == {"lora_rank": 16, "lora_alpha": 24.0}
    assert derive(profile, {"lora_rank": 4}) == {"lora_rank": 4, "lora_alpha": 6.0}


def test_alpha_is_left_alone_where_it_follows_by_itself_or_is_searched_or_not_held() -> None:
    assert derive(searching(RANKS, {}), {"lora_rank": 16}) == {"lora_rank": 16}
    alpha = {"lora_alpha": 12.0}
    loose = searching(RANKS, {"hold_lora_ratio": False}, method=alpha)
    assert derive(loose, {"lora_rank": 16}) == {"lora_rank": 16}
    searched = searching({**RANKS, "lora_alpha": [8.0, 64.0]}, {}, method=alpha)
    point: dict[str, Any] = {"lora_rank": 16, "lora_alpha": 64.0}
    assert derive(searched, point) == point


def test_accumulation_holds_the_effective_batch() -> None:
    train = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    profile = searching(BATCHES, {"hold_effective_batch": True}, train=train)
    for batch in (1, 4, 16):
        settings = derive(profile, {"per_device_train_batch_size": batch})
        accumulation = settings["gradient_accumulation_steps"]
        assert isinstance(accumulation, int)
        assert batch * accumulation == 16


def test_the_batch_follows_where_accumulation_is_searched() -> None:
    train = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    profile = searching(
        {"gradient_accumulation_steps": [2, 8]}, {"hold_effective_batch": True}, train=train
    )
    assert derive(profile, {"gradient_accumulation_steps": 8})["per_device_train_batch_size"] == 2


def test_the_rate_grows_with_the_root_of_the_effective_batch() -> None:
    profile = searching(
        BATCHES, {"scale_rate_with_batch": True}, train={"per_device_train_batch_size": 4}
    )
    base = derive(profile, {"per_device_train_batch_size": 4, "learning_rate": 1e-4})
    assert base["learning_rate"] == 1e-4
    larger = derive(profile, {"per_device_train_batch_size": 16, "learning_rate": 1e-4})
    assert larger["learning_rate"] == pytest.approx(2e-4)
    smaller = derive(profile, {"per_device_train_batch_size": 1, "learning_rate": 2e-4})
    assert smaller["learning_rate"] == pytest.approx(1e-4)


def test_a_rate_that_is_not_searched_is_scaled_too() -> None:
    profile = searching(
        {"per_device_train_batch_size": [8]},
        {"scale_rate_with_batch": True},
        train={"learning_rate": 1e-4, "per_device_train_batch_size": 4},
    )
    rate = derive(profile, {"per_device_train_batch_size": 8})["learning_rate"]
    assert rate == pytest.approx(math.sqrt(2) * 1e-4, rel=1e-3)


def test_a_held_effective_batch_leaves_the_rate_as_it_is() -> None:
    profile = searching(BATCHES, {"scale_rate_with_batch": True, "hold_effective_batch": True})
    settings = derive(profile, {"per_device_train_batch_size": 16, "learning_rate": 1e-4})
    assert settings["learning_rate"] == 1e-4
