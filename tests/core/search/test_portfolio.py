"""Settings that are known to be good, and what of them lies in a space."""

from dataclasses import replace
from typing import Any

import pytest

from core.profile import Profile, from_document
from core.search.portfolio import known_good, near, points, size_in_name
from core.search.space import axes, space_of

RATES: dict[str, Any] = {"learning_rate": {"low": 1e-6, "high": 1e-2, "scale": "log"}}


def searching(space: dict[str, Any], model: str = "m", **tables: Any) -> Profile:
    named: dict[str, Any] = {"model_name_or_path": model, **tables.pop("model_table", {})}
    document: dict[str, Any] = {"model": named, "data": {"dataset": "d"}, **tables}
    return from_document({**document, "search": {"space": space}})


def rates(profile: Profile, parameters: float | None = None) -> list[Any]:
    return [good.values["learning_rate"] for good in known_good(profile, parameters)]


def test_adapters_begin_with_three_in_ten_thousand() -> None:
    assert rates(searching(RATES))[0] == 3e-4
    assert rates(searching(RATES, "Qwen/Qwen2.5-72B"))[0] == 3e-4


def test_all_weights_bear_about_a_tenth_of_the_rate_of_adapters() -> None:
    full = rates(searching(RATES, method={"finetuning_type": "full"}))
    assert full[0] == 1e-5
    assert max(full) < min(rates(searching(RATES)))


def test_the_size_of_the_model_counts() -> None:
    small, large = searching(RATES, "org/tiny-1B"), searching(RATES, "org/huge-70B")
    assert rates(small)[0] == 1e-3
    assert max(rates(large)) == 5e-4
    assert rates(searching(RATES), parameters=7e10) == rates(large)
    assert rates(large, parameters=1e9) == rates(small)


def test_every_entry_says_where_it_comes_from() -> None:
    methods: list[dict[str, Any]] = [{"finetuning_type": f} for f in ("lora", "full", "freeze")]
    for method in methods:
        known = known_good(searching(RATES, method=method))
        assert len(known) == 3
        assert all(good.source for good in known)


@pytest.mark.parametrize(
    ("stage", "method", "low", "high"),
    [
        ("sft", "full", 2e-6, 5e-5),
        ("sft", "lora", 3e-5, 1e-3),
        ("pt", "lora", 3e-5, 1e-3),
        ("pt", "full", 2e-6, 5e-5),
        ("rm", "lora", 2e-5, 5e-4),
        ("dpo", "lora", 5e-7, 5e-5),
        ("dpo", "full", 1e-7, 2e-6),
        ("ppo", "lora", 1e-6, 2e-5),
        ("ppo", "full", 1e-6, 2e-5),
        ("ppo", "freeze", 1e-6, 2e-5),
        ("rm", "full", 5e-6, 2e-5),
        ("rm", "freeze", 5e-6, 5e-4),
        ("dpo", "freeze", 1e-7, 5e-5),
        ("kto", "lora", 5e-7, 5e-5),
        ("kto", "freeze", 5e-7, 5e-5),
        ("kto", "full", 5e-7, 5e-6),
    ],
)
def test_the_rates_of_each_stage_are_such_as_it_bears(
    stage: str, method: str, low: float, high: float
) -> None:
    profile = searching(RATES, method={"finetuning_type": method})
    staged = replace(profile, method=profile.method.model_copy(update={"stage": stage}))
    known = rates(staged)
    assert len(set(known)) == 3
    assert all(low <= rate <= high for rate in known)


@pytest.mark.parametrize("stage", ["pt", "sft", "rm", "dpo", "kto", "ppo"])
@pytest.mark.parametrize("method", ["lora", "qlora", "freeze", "full"])
def test_every_stage_and_method_has_rates_with_their_source(stage: str, method: str) -> None:
    bits = {"quantization_bit": 4} if method == "qlora" else {}
    kind = {"stage": stage, "finetuning_type": method.removeprefix("q")}
    more = {"alignment": {"reward_model": "judge"}} if stage == "ppo" else {}
    known = known_good(searching(RATES, method=kind, model_table=bits, **more))
    assert len({good.values["learning_rate"] for good in known}) == 3
    assert all(good.source for good in known)


def test_a_stage_that_nothing_is_known_of_has_no_list() -> None:
    profile = searching(RATES)
    staged = replace(profile, method=profile.method.model_copy(update={"stage": "other"}))
    assert known_good(staged) == []


def test_quantised_models_have_a_list_of_their_own() -> None:
    quantised = searching(RATES, "org/a-33B", model_table={"quantization_bit": 4})
    assert rates(quantised)[0] == 1e-4
    assert rates(searching(RATES, "org/a-13B", model_table={"quantization_bit": 4}))[0] == 2e-4
    assert "QLoRA" in known_good(quantised)[0].source


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7e9),
        ("HuggingFaceTB/SmolLM2-135M", 135e6),
        ("Qwen/Qwen2.5-0.5B", 0.5e9),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("Qwen/Qwen3-30B-A3B", 30e9),
        ("openai/gpt-oss-120b", 120e9),
        ("models/Llama-3.2-1B/snapshots/0123", 1e9),
        ("demo", None),
        ("gpt2-medium", None),
        ("model-b16", None),
    ],
)
def test_a_name_tells_the_size(name: str, size: float | None) -> None:
    assert size_in_name(name) == size


def test_only_what_is_searched_is_set() -> None:
    listed = list(points(space_of(searching(RATES))))
    assert listed == [{"learning_rate": 3e-4}, {"learning_rate": 1e-3}, {"learning_rate": 1e-4}]


def test_what_the_list_says_nothing_of_is_as_the_profile_has_it() -> None:
    space = {**RATES, "seed": [1, 42, 7], "lora_rank": [2, 16, 64]}
    first = next(points(space_of(searching(space))))
    assert first == {"learning_rate": 3e-4, "seed": 42, "lora_rank": 16}


def test_numbers_just_outside_of_a_range_come_to_its_end_and_others_are_passed_over() -> None:
    narrow = {"learning_rate": {"low": 1e-6, "high": 2e-4, "scale": "log"}}
    assert list(points(space_of(searching(narrow)))) == [
        {"learning_rate": 2e-4},
        {"learning_rate": 1e-4},
    ]
    far = {"learning_rate": {"low": 1e-6, "high": 4e-5, "scale": "log"}}
    assert list(points(space_of(searching(far)))) == []


def test_a_list_stands_for_what_is_near_its_values_each_once() -> None:
    listed = list(points(space_of(searching({"learning_rate": [5e-5, 2e-4, 2e-3]}))))
    assert listed == [{"learning_rate": 2e-4}, {"learning_rate": 2e-3}, {"learning_rate": 5e-5}]


def test_a_space_that_the_list_knows_nothing_of_has_none() -> None:
    assert list(points(space_of(searching({"seed": [1, 2]})))) == []
    assert list(points(space_of(searching({})))) == []


def test_where_the_method_is_searched_each_comes_with_its_own_rate() -> None:
    space = {**RATES, "finetuning_type": ["lora", "full"], "lora_rank": [8, 16]}
    listed = list(points(space_of(searching(space))))
    assert listed[0] == {"learning_rate": 3e-4, "finetuning_type": "lora", "lora_rank": 16}
    assert listed[1] == {"learning_rate": 1e-5, "finetuning_type": "full"}
    assert len(listed) == 6


def test_what_cannot_run_is_not_among_them() -> None:
    space = {**RATES, "finetuning_type": ["lora", "full"]}
    quantised = searching(space, model_table={"quantization_bit": 4})
    assert {p["finetuning_type"] for p in points(space_of(quantised))} == {"lora"}


def test_zero_is_near_to_nothing_but_itself() -> None:
    (dropout,) = axes(searching({"lora_dropout": [0.0, 0.05]}))
    assert near(dropout, 0.0) == 0.0
    (positive,) = axes(searching({"lora_dropout": [0.05, 0.1]}))
    assert near(positive, 0.0) is None
    assert near(positive, 0.07) == 0.05
