import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.catalogue import find
from core.profile import Profile, from_document
from core.search.space import axes, combination, key_of, space_of, space_size


def searching(space: dict[str, Any], **tables: Any) -> Profile:
    search = {"space": space, **tables.pop("search", {})}
    document = {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}, "search": search}
    return from_document({**document, **tables})


def test_an_empty_space_has_one_combination() -> None:
    assert space_size(searching({})) == 1


def test_lists_and_stepped_ranges_multiply() -> None:
    profile = searching(
        {"lora_rank": [8, 16, 32], "warmup_ratio": {"low": 0, "high": 0.1, "step": 0.05}}
    )
    assert space_size(profile) == 9


def test_whole_numbers_of_a_range_are_counted_with_both_ends() -> None:
    assert space_size(searching({"lora_rank": {"low": 1, "high": 64}})) == 64
    assert space_size(searching({"lora_rank": {"low": 1, "high": 64, "scale": "log"}})) == 64


def test_a_range_of_fractions_has_no_size() -> None:
    assert (
        space_size(searching({"learning_rate": {"low": 1e-5, "high": 1e-3}, "lora_rank": [8]}))
        is None
    )


def test_combinations_come_in_order_the_last_parameter_first() -> None:
    space = axes(searching({"lora_rank": [8, 16], "use_rslora": [True, False]}))
    assert [combination(space, i) for i in range(4)] == [
        {"lora_rank": 8, "use_rslora": True},
        {"lora_rank": 8, "use_rslora": False},
        {"lora_rank": 16, "use_rslora": True},
        {"lora_rank": 16, "use_rslora": False},
    ]


def test_an_endless_space_cannot_be_counted_through() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        combination(axes(searching({"learning_rate": {"low": 1e-5, "high": 1e-3}})), 0)


def test_steps_of_decimal_fractions_are_exact_and_reach_the_end() -> None:
    (axis,) = axes(searching({"lora_dropout": {"low": 0, "high": 0.3, "step": 0.1}}))
    assert axis.values == (0.0, 0.1, 0.2, 0.3)


def test_a_step_that_misses_the_end_stays_below_it() -> None:
    (axis,) = axes(searching({"lora_rank": {"low": 4, "high": 15, "step": 4}}))
    assert axis.values == (4, 8, 12)


def test_a_log_range_draws_each_order_of_magnitude_alike() -> None:
    (axis,) = axes(searching({"learning_rate": {"low": 1e-5, "high": 1e-2, "scale": "log"}}))
    drawn = [float(axis.draw((i + 0.5) / 3000)) for i in range(3000)]
    for decade in (1e-5, 1e-4, 1e-3):
        assert sum(decade <= value < 10 * decade for value in drawn) == pytest.approx(1000, abs=20)


def test_a_log_range_of_whole_numbers_reaches_both_ends() -> None:
    (axis,) = axes(searching({"lora_rank": {"low": 1, "high": 8, "scale": "log"}}))
    assert {axis.draw(i / 1000) for i in range(1000)} == set(range(1, 9))


def test_drawn_fractions_are_readable() -> None:
    (axis,) = axes(searching({"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}))
    assert all(float(f"{v:.2e}") == v for v in (float(axis.draw(i / 997)) for i in range(997)))


@given(
    low=st.floats(1e-6, 1.0),
    factor=st.floats(1.0001, 1e4),
    scale=st.sampled_from(["linear", "log"]),
    u=st.floats(0, 1, exclude_max=True),
)
def test_drawn_fractions_lie_in_the_range(low: float, factor: float, scale: str, u: float) -> None:
    high = min(low * factor, 100.0)
    if not low < high:
        return
    (axis,) = axes(searching({"learning_rate": {"low": low, "high": high, "scale": scale}}))
    value = axis.draw(u)
    assert isinstance(value, float)
    assert low <= value <= high
    assert find("learning_rate").validate(value) == value


@given(low=st.floats(1e-6, 0.05), factor=st.floats(1.01, 1e3))
def test_a_range_however_narrow_has_many_values(low: float, factor: float) -> None:
    (axis,) = axes(searching({"learning_rate": {"low": low, "high": low * factor, "scale": "log"}}))
    assert len({axis.draw(i / 2000) for i in range(2000)}) > 100


@given(
    low=st.integers(1, 500), width=st.integers(1, 500), scale=st.sampled_from(["linear", "log"]),
    u=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_drawn_whole_numbers_lie_in_the_range(low: int, width: int, scale: str, u: float) -> None:
    (axis,) = axes(searching({"lora_rank": {"low": low, "high": low + width, "scale": scale}}))
    value = axis.draw(u)
    assert type(value) is int
    assert low <= value <= low + width


@given(low=st.floats(0, 0.4), width=st.floats(0.01, 0.5), part=st.floats(0.002, 1))
def test_steps_lie_in_the_range_and_begin_at_its_start(
    low: float, width: float, part: float
) -> None:
    high = min(low + width, 0.99)
    step = (high - low) * part
    (axis,) = axes(searching({"lora_dropout": {"low": low, "high": high, "step": step}}))
    assert axis.values is not None
    assert math.isclose(float(axis.values[0]), low, abs_tol=1e-11)
    assert all(low - 1e-11 <= float(v) <= high for v in axis.values)
    assert len(set(axis.values)) == len(axis.values)


# -- what has no effect, and what cannot run -------------------------------------------------------

METHODS: dict[str, Any] = {"finetuning_type": ["lora", "full"], "lora_rank": [8, 16, 32]}


def test_a_parameter_without_effect_is_left_out_of_a_combination() -> None:
    space = space_of(searching(METHODS))
    assert space.active({"finetuning_type": "full", "lora_rank": 8}) == {"finetuning_type": "full"}
    assert space.active({"finetuning_type": "lora", "lora_rank": 8}) == {
        "finetuning_type": "lora",
        "lora_rank": 8,
    }


def test_combinations_that_train_alike_count_once() -> None:
    profile = searching({**METHODS, "learning_rate": [1e-5, 1e-4]})
    assert space_size(profile) == (3 + 1) * 2
    points = space_of(profile).points()
    assert len(points) == len({key_of(p) for p in points}) == 8


def test_what_has_no_effect_by_the_profile_is_not_counted() -> None:
    profile = searching(
        {"lora_rank": [8, 16], "learning_rate": [1e-5, 1e-4]}, method={"finetuning_type": "full"}
    )
    assert space_size(profile) == 2


def test_a_condition_of_a_condition_counts() -> None:
    space = {
        "finetuning_type": ["lora", "full"],
        "quantization_bit": [4, 8],
        "quantization_type": ["nf4", "fp4"],
    }
    # Adapters: 4 bits in two types, 8 bits, and none of that with all weights.
    assert space_size(searching(space)) == 2 + 1 + 1


def test_an_endless_parameter_that_never_has_an_effect_does_not_make_a_space_endless() -> None:
    space = {"lora_dropout": {"low": 0.0, "high": 0.5}, "learning_rate": [1e-5, 1e-4]}
    assert space_size(searching(space, method={"finetuning_type": "full"})) == 2
    assert space_size(searching(space)) is None


def test_epochs_have_no_effect_while_the_steps_are_set() -> None:
    space = space_of(
        searching({"num_train_epochs": [1, 2], "seed": [1, 2]}, train={"max_steps": 5})
    )
    assert space.active({"num_train_epochs": 1.0, "seed": 2}) == {"seed": 2}
    assert space.size() == 2


def test_combinations_that_cannot_run_are_not_counted() -> None:
    space = {"optim": ["adamw_torch", "adamw_8bit"], "offload_optimizer": [True, False]}
    profile = searching(space)
    assert space_size(profile) == 3
    why = space_of(profile).obstacle({"optim": "adamw_8bit", "offload_optimizer": True})
    assert why is not None
    assert "does not go with" in why


def test_a_held_effective_batch_leaves_what_divides_it() -> None:
    profile = searching(
        {"per_device_train_batch_size": {"low": 1, "high": 20}},
        train={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        search={"hold_effective_batch": True},
    )
    batches = [p["per_device_train_batch_size"] for p in space_of(profile).points()]
    assert batches == [1, 2, 4, 8, 16]
    assert space_size(profile) == 5


def test_of_several_gpus_each_holds_its_own_part_of_the_batch() -> None:
    profile = searching(
        {"per_device_train_batch_size": {"low": 1, "high": 20}},
        train={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        search={"hold_effective_batch": True},
        resources={"gpus_per_trial": 4},
    )
    batches = [p["per_device_train_batch_size"] for p in space_of(profile).points()]
    assert batches == [1, 2, 4]


def test_of_a_held_batch_only_its_factors_are_drawn() -> None:
    wide = {"low": 1, "high": 4096}
    profile = searching(
        {"per_device_train_batch_size": wide, "gradient_accumulation_steps": wide},
        search={"hold_effective_batch": True},
    )
    for axis in axes(profile):
        assert axis.values == (1, 2, 4, 8, 16)
    assert space_size(profile) == 5


def test_a_parameter_is_drawn_after_those_that_decide_about_it() -> None:
    space = space_of(searching({**METHODS, "quantization_type": ["nf4"], "quantization_bit": [4]}))
    assert space.controls("lora_rank") == {"finetuning_type"}
    assert space.controls("quantization_type") == {"quantization_bit", "finetuning_type"}
    assert space.controls("finetuning_type") == frozenset()


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"finetuning_type": st.sampled_from([["lora"], ["lora", "full"], ["lora", "freeze"]])},
        optional={
            "lora_rank": st.just([8, 16]),
            "freeze_trainable_layers": st.just([2, 0, -2]),
            "quantization_bit": st.just([4, 8]),
            "double_quantization": st.just([True, False]),
            "precision": st.just(["fp16", "bf16"]),
            "adapter_precision": st.just(["auto", "bf16"]),
            "per_device_train_batch_size": st.just([1, 3, 4]),
            "learning_rate": st.just([1e-5, 1e-4]),
        },
    ),
    st.booleans(),
)
def test_the_size_is_the_number_of_different_combinations_that_can_run(
    space: dict[str, Any], held: bool
) -> None:
    profile = searching(space, search={"hold_effective_batch": held})
    whole = space_of(profile)
    points = whole.points()
    assert space_size(profile) == len(points)
    everything = (whole.active(combination(whole.axes, i)) for i in range(whole.raw_size()))
    able = {key_of(p): p for p in everything if whole.obstacle(p) is None}
    assert [list(p.items()) for p in points] == [list(p.items()) for p in able.values()]


def test_combinations_without_effect_cost_nothing_to_list() -> None:
    profile = searching(
        {
            "finetuning_type": ["full", "freeze"],
            "lora_rank": {"low": 1, "high": 1000},
            "lora_dropout": {"low": 0, "high": 0.9, "step": 0.0001},
            "learning_rate": [1e-5, 2e-5],
        }
    )
    assert space_of(profile).raw_size() > 30_000_000
    assert space_size(profile) == len(space_of(profile).points()) == 4
