"""Combinations of a search space: what has no effect, what excludes each other, and what is told of it beforehand."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.catalogue import find, searchable
from core.checks import joint_problems
from core.problems import Problem
from core.profile import Profile, ProfileError, from_document
from core.space_checks import (
    ENTANGLED,
    active_part,
    all_controllers,
    combination_problems,
    deciding_values,
    without_effect,
)


def searching(
    space: dict[str, Any], search: dict[str, Any] | None = None, **tables: Any
) -> Profile:
    document = {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}}
    for name, table in tables.items():
        document.setdefault(name, {}).update(table)
    return from_document({**document, "search": {"space": space, **(search or {})}})


def problems(*args: Any, **tables: Any) -> list[Problem]:
    with pytest.raises(ProfileError) as error:
        searching(*args, **tables)
    return error.value.problems


def test_a_space_of_which_no_combination_can_run_is_told_with_the_reason() -> None:
    (problem,) = problems({"finetuning_type": ["full", "freeze"]}, model={"quantization_bit": 4})
    assert problem.key == "search.space"
    assert "no combination can run" in problem.wrong
    assert 'finetuning_type = "full"' in problem.wrong
    assert 'finetuning_type = "freeze"' in problem.wrong


def test_a_space_of_which_some_combinations_can_run_is_right() -> None:
    searching({"finetuning_type": ["full", "lora"]}, model={"quantization_bit": 4})


def test_a_combination_that_can_run_is_found_behind_many_that_cannot() -> None:
    space = {
        "per_device_train_batch_size": {"low": 2, "high": 37},
        "gradient_accumulation_steps": {"low": 1, "high": 40},
        "learning_rate": {"low": 1e-5, "high": 1e-3},
        "lora_rank": list(range(1, 500)),
    }
    train = {"per_device_train_batch_size": 37, "gradient_accumulation_steps": 1}
    searching(space, {"hold_effective_batch": True}, train=train)


def test_a_space_whose_parameters_have_no_effect_is_told() -> None:
    (problem,) = problems(
        {"lora_rank": [8, 16], "num_train_epochs": [1, 2]},
        method={"finetuning_type": "full"},
        train={"max_steps": 10},
    )
    assert problem.wrong == (
        'lora_rank has no effect with finetuning_type = "full"; '
        "num_train_epochs has no effect while max_steps is set"
    )


def test_a_batch_that_never_divides_the_held_one_is_told() -> None:
    (problem,) = problems({"per_device_train_batch_size": [3, 5]}, {"hold_effective_batch": True})
    assert (
        "per_device_train_batch_size = 3 does not divide the effective batch of 16" in problem.wrong
    )


def test_a_space_that_is_too_large_to_look_through_is_not_told_of() -> None:
    batches = {
        "per_device_train_batch_size": list(range(101, 201)),
        "val_size": [0.1, 0.2, *range(1, 99)],
    }
    searching(batches, {"hold_effective_batch": True})


@pytest.mark.parametrize("name", ["per_device_train_batch_size", "gradient_accumulation_steps"])
def test_a_wide_range_of_which_only_some_values_divide_the_held_batch_is_right(name: str) -> None:
    searching({name: {"low": 3, "high": 4095}}, {"hold_effective_batch": True})


def test_a_batch_whose_other_factor_may_not_be_so_large_cannot_run() -> None:
    train = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4096}
    space = {"per_device_train_batch_size": [4, 8]}
    profile = searching(space, {"hold_effective_batch": True}, train=train)
    tables = profile.tables()
    assert list(combination_problems(tables, {"per_device_train_batch_size": 8})) == []
    (problem,) = combination_problems(tables, {"per_device_train_batch_size": 4})
    assert "would need gradient_accumulation_steps = 8192" in problem.wrong


def test_trials_without_validation_do_not_go_with_a_ranking_by_it() -> None:
    tables = searching({"val_size": [0.0, 0.1]}).tables()
    (problem,) = combination_problems(tables, {"val_size": 0.0})
    assert problem.wrong == "eval_loss needs validation data"
    assert list(combination_problems(tables, {"val_size": 0.1})) == []
    by_loss = searching({"val_size": [0.0, 0.1]}, {"rank_by": "loss"}).tables()
    assert list(combination_problems(by_loss, {"val_size": 0.0})) == []


def test_both_factors_of_a_held_batch_must_make_it() -> None:
    space = {"per_device_train_batch_size": [2, 4], "gradient_accumulation_steps": [4, 16]}
    profile = searching(space, {"hold_effective_batch": True})
    tables = profile.tables()
    fits = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    assert list(combination_problems(tables, fits)) == []
    (problem,) = combination_problems(tables, {**fits, "gradient_accumulation_steps": 16})
    assert "4 × 16 is not the profile's effective batch of 16" in problem.wrong


def test_a_searched_parameter_that_never_has_an_effect_is_named() -> None:
    profile = searching(
        {"lora_rank": [8, 16], "learning_rate": [1e-5]}, method={"finetuning_type": "full"}
    )
    assert without_effect(profile.tables()) == [
        'lora_rank has no effect with finetuning_type = "full"'
    ]
    others = searching({"finetuning_type": ["full", "freeze"], "lora_rank": [8, 16]})
    assert without_effect(others.tables()) == [
        'lora_rank has no effect with finetuning_type = "full" or "freeze"'
    ]
    both = searching({"finetuning_type": ["lora", "full"], "lora_rank": [8], "seed": [1]})
    assert without_effect(both.tables()) == []


def test_changing_a_trial_may_leave_the_space() -> None:
    profile = searching({"lora_rank": [8, 16]})
    assert profile.with_changes({"finetuning_type": "full"}).method.finetuning_type == "full"
    with pytest.raises(ProfileError, match="has no effect"):
        profile.with_changes({"finetuning_type": "full", "search.trials": 4})


OTHERS = [
    p
    for p in searchable()
    if p.name not in ENTANGLED and p.key not in all_controllers() and p.kind != "text"
]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(OTHERS),
    st.fixed_dictionaries(
        {
            "quantization_bit": st.sampled_from([None, 4]),
            "finetuning_type": st.sampled_from(["lora", "full", "freeze"]),
            "freeze_trainable_layers": st.sampled_from([0, 2]),
            "optim": st.sampled_from(["adamw_torch", "adamw_8bit"]),
            "offload_optimizer": st.booleans(),
            "precision": st.sampled_from(["fp16", "bf16"]),
            "adapter_precision": st.sampled_from(["auto", "bf16"]),
            "early_stopping_patience": st.sampled_from([None, 3]),
            "lr_scheduler_type": st.sampled_from(["linear", "greedy"]),
            "val_size": st.sampled_from([0.0, 0.1, 1.5]),
        }
    ),
    st.data(),
)
def test_no_other_parameter_decides_what_goes_together(
    other: Any, entangled: dict[str, Any], data: st.DataObject
) -> None:
    """Were a check added that compares another parameter, spaces over it would be counted and checked wrongly."""
    tables = dict(searching({}).tables())
    for name, value in entangled.items():
        table = find(name).table
        tables[table] = tables[table].model_copy(update={name: value})
    if other.choices:
        values = st.sampled_from([c for c in other.choices if c is not None])
    elif other.kind == "bool":
        values = st.booleans()
    elif other.kind == "int":
        values = st.integers(
            int(other.low or 0), min(int(other.high or 9), 9 + int(other.low or 0))
        )
    else:
        low = other.low or 0.01
        values = st.floats(
            low, min(other.high or low + 1, low + 1), exclude_min=True, exclude_max=True
        )
    changed = tables[other.table].model_copy(update={other.name: data.draw(values)})
    before = [p.wrong for p in joint_problems(tables)]
    assert [p.wrong for p in joint_problems({**tables, other.table: changed})] == before


def test_a_value_of_the_profile_decides_where_nothing_is_drawn() -> None:
    base = deciding_values(searching({}, method={"finetuning_type": "full"}).tables())
    assert active_part(base, {"lora_rank": 8, "seed": 1}) == {"seed": 1}
    assert active_part(base, {"lora_rank": 8, "finetuning_type": "lora"}) == {
        "lora_rank": 8,
        "finetuning_type": "lora",
    }
