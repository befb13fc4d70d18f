from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.catalogue import find
from core.profile import Profile, ProfileError, from_document
from core.search.samplers import Planned, fewer_notice, plan, plan_notices, startup
from core.search.space import space_of, space_size

LISTS: dict[str, Any] = {
    "lora_rank": [4, 8, 16],
    "use_rslora": [True, False],
    "optim": ["adamw_torch"],
}
RATES: dict[str, Any] = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}


def searching(space: dict[str, Any], **search: Any) -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": "d"},
            "search": {"space": space, "portfolio": False, **search},
        }
    )


def settings_of(planned: list[Planned]) -> list[dict[str, Any]]:
    return [dict(one.settings) for one in planned]


def keys(planned: list[Planned]) -> set[tuple[Any, ...]]:
    return {tuple(sorted(one.settings.items())) for one in planned}


def test_without_a_space_there_is_one_trial_as_the_profile_says() -> None:
    assert plan(searching({})) == [Planned({}, {}, "search")]
    assert plan(searching({}, strategy="grid")) == [Planned({}, {}, "search")]


# -- grid ---------------------------------------------------------------------------------------


def test_a_grid_tries_every_combination_once_in_order() -> None:
    chosen = plan(searching(LISTS, strategy="grid", trials=100))
    assert [c.settings["lora_rank"] for c in chosen] == [4, 4, 8, 8, 16, 16]
    assert len(keys(chosen)) == 6


def test_a_grid_that_is_too_large_is_thinned_out_evenly_and_says_so() -> None:
    profile = searching({"lora_rank": list(range(1, 101))}, strategy="grid", trials=10)
    ranks = [int(c.settings["lora_rank"]) for c in plan(profile)]
    assert [(rank - 1) // 10 for rank in ranks] == list(range(10))
    (notice,) = plan_notices(profile)
    assert "100 combinations" in notice


def test_a_grid_begins_with_what_is_known_to_be_good() -> None:
    space = {"learning_rate": [1e-5, 1e-4, 3e-4, 5e-3]}
    plain = settings_of(plan(searching(space, strategy="grid")))
    known = plan(searching(space, strategy="grid", portfolio=True))
    assert [c.source for c in known] == ["portfolio", "portfolio", "search", "search"]
    assert [c.settings["learning_rate"] for c in known] == [3e-4, 1e-4, 1e-5, 5e-3]
    assert len(plain) == len(known)


def test_a_grid_leaves_out_what_cannot_run_and_says_so() -> None:
    space = {"optim": ["adamw_torch", "adamw_8bit"], "offload_optimizer": [True, False]}
    profile = searching(space, strategy="grid", trials=3)
    assert len(plan(profile)) == 3
    (notice,) = plan_notices(profile)
    assert "left out" in notice
    assert "offload_optimizer" in notice


def test_a_huge_grid_is_thinned_without_being_listed() -> None:
    space = {
        "lora_rank": {"low": 1, "high": 1000},
        "seed": {"low": 1, "high": 1000},
        "optim": ["adamw_torch", "adamw_8bit"],
        "offload_optimizer": [True, False],
    }
    profile = searching(space, strategy="grid", trials=20)
    chosen = plan(profile)
    assert len(keys(chosen)) == len(chosen) == 20
    assert all(space_of(profile).obstacle(c.sampled) is None for c in chosen)


def test_a_grid_that_fits_needs_no_notice() -> None:
    assert plan_notices(searching(LISTS, strategy="grid", trials=6)) == []
    assert plan_notices(searching(RATES)) == []


def test_more_trials_than_a_grid_has_are_told_and_no_reason_to_warn() -> None:
    profile = searching(LISTS, strategy="grid", trials=20)
    assert plan_notices(profile) == []
    assert (
        fewer_notice(profile)
        == "search.trials asks for 20, the grid has 6 combinations: the search ends after them"
    )
    assert fewer_notice(searching(LISTS, strategy="grid", trials=6)) is None
    assert fewer_notice(searching(RATES)) is None


def test_what_is_searched_without_effect_is_told() -> None:
    document: dict[str, Any] = {
        "model": {"model_name_or_path": "m"},
        "method": {"finetuning_type": "full"},
        "data": {"dataset": "d"},
        "search": {"space": {**RATES, "lora_rank": [8, 16]}},
    }
    (notice,) = plan_notices(from_document(document))
    assert notice == 'lora_rank has no effect with finetuning_type = "full": it is not searched'


def test_what_changes_by_what_trials_are_judged_is_told() -> None:
    space = {"val_size": [0.1, 0.2], "train_on_prompt": [True, False], "data_seed": [1]}
    told = plan_notices(searching(space, trials=4))
    assert [notice.split()[0] for notice in told] == ["val_size", "train_on_prompt"]
    assert "eval_loss of trials that differ in it cannot be compared" in told[0]
    assert plan_notices(searching(space, trials=4, rank_by="loss")) == []


# -- random -------------------------------------------------------------------------------------


def test_random_search_ends_when_a_finite_space_is_used_up() -> None:
    chosen = plan(searching(LISTS, strategy="random", trials=50))
    assert len(chosen) == len(keys(chosen)) == 6


def test_a_longer_random_search_begins_with_the_shorter_one() -> None:
    short = plan(searching({**RATES, **LISTS}, strategy="random", trials=5, seed=3))
    longer = plan(searching({**RATES, **LISTS}, strategy="random", trials=30, seed=3))
    assert longer[:5] == short


def test_another_seed_draws_other_settings() -> None:
    for strategy in ("random", "portfolio", "bayesian"):
        one = searching(RATES, strategy=strategy, seed=1)
        assert plan(one) != plan(searching(RATES, strategy=strategy, seed=2))


def test_a_range_with_hardly_any_values_ends_the_drawing() -> None:
    low = 1e-4
    high = low * (1 + 1e-15) + 1e-19
    space = {"learning_rate": {"low": low, "high": high}}
    chosen = plan(searching(space, strategy="random", trials=1000))
    assert 1 <= len(chosen) == len(keys(chosen)) < 1000


def test_random_search_draws_only_what_can_run_and_has_an_effect() -> None:
    space = {
        **RATES,
        "finetuning_type": ["lora", "full"],
        "lora_rank": [8, 16],
        "optim": ["adamw_torch", "adamw_8bit"],
        "offload_optimizer": [True, False],
    }
    chosen = settings_of(plan(searching(space, strategy="random", trials=40)))
    assert all(("lora_rank" in c) is (c["finetuning_type"] == "lora") for c in chosen)
    assert not any(c["optim"] == "adamw_8bit" and c["offload_optimizer"] for c in chosen)
    assert {c["finetuning_type"] for c in chosen} == {"lora", "full"}


def test_a_space_in_which_nothing_can_run_is_told_when_it_was_too_large_to_look_through() -> None:
    space = {"per_device_train_batch_size": list(range(101, 201)), "val_size": list(range(1, 100))}
    profile = searching(space, hold_effective_batch=True, trials=5)
    with pytest.raises(ProfileError, match="no combination that can run was found"):
        plan(profile)


@pytest.mark.parametrize("strategy", ["random", "portfolio"])
def test_a_held_batch_in_wide_ranges_does_not_cut_a_search_short(strategy: str) -> None:
    wide = {"low": 1, "high": 4096}
    space = {**RATES, "per_device_train_batch_size": wide, "gradient_accumulation_steps": wide}
    profile = searching(space, strategy=strategy, hold_effective_batch=True, trials=12)
    chosen = plan(profile)
    assert len(chosen) == 12
    assert all(space_of(profile).obstacle(one.sampled) is None for one in chosen)


# -- known-good settings first ------------------------------------------------------------------


def test_a_search_that_draws_begins_with_known_good_settings() -> None:
    for strategy in ("random", "bayesian"):
        profile = searching(RATES, strategy=strategy, trials=12, portfolio=True)
        sources = [one.source for one in plan(profile)]
        assert sources[:3] == ["portfolio"] * 3
        assert set(sources[3:]) == {"search"}


def test_without_the_portfolio_nothing_known_is_tried_first() -> None:
    chosen = plan(searching(RATES, strategy="random", trials=12))
    assert {one.source for one in chosen} == {"search"}


def test_the_portfolio_strategy_tries_its_list_and_then_spreads_around() -> None:
    profile = searching(RATES, strategy="portfolio", trials=12)
    chosen = plan(profile)
    assert [c.settings["learning_rate"] for c in chosen[:3]] == [3e-4, 1e-3, 1e-4]
    rates = sorted(float(c.settings["learning_rate"]) for c in chosen)
    assert len(set(rates)) == 12
    near = [r for r in rates if 1e-4 <= r <= 1e-3]
    assert len(near) >= 7
    assert any(r < 5e-5 for r in rates)
    # No two are so close that they say the same.
    assert min(b / a for a, b in pairwise(rates)) > 1.02


def test_bayesian_search_plans_only_what_it_learns_from() -> None:
    profile = searching({**RATES, **LISTS}, strategy="bayesian", trials=24)
    assert len(plan(profile)) == startup(24) == 8
    assert len(plan(searching(RATES, strategy="bayesian", trials=2))) == 2


def test_what_is_held_beside_the_point_is_among_the_settings() -> None:
    profile = searching(
        {"per_device_train_batch_size": [1, 2, 3]}, strategy="grid", hold_effective_batch=True
    )
    assert [(c.sampled, c.settings["gradient_accumulation_steps"]) for c in plan(profile)] == [
        ({"per_device_train_batch_size": 1}, 16),
        ({"per_device_train_batch_size": 2}, 8),
    ]


space_strategy = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": st.sampled_from(
            [RATES["learning_rate"], [1e-4, 3e-4], {"low": 1e-5, "high": 1e-4}]
        ),
        "lora_rank": st.sampled_from([{"low": 1, "high": 9}, {"low": 2, "high": 64, "scale": "log"}, [8, 16]]),
        "warmup_ratio": st.sampled_from([{"low": 0, "high": 0.2, "step": 0.05}, [0.0, 0.1]]),
        "lr_scheduler_type": st.just(["linear", "cosine"]),
        "use_dora": st.just([True, False]),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    space=space_strategy,
    trials=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    strategy=st.sampled_from(["random", "portfolio"]),
)
def test_a_plan_is_valid_repeatable_and_has_no_doubles(
    space: dict[str, Any], trials: int, seed: int, strategy: str
) -> None:
    profile = searching(space, strategy=strategy, trials=trials, seed=seed, portfolio=True)
    chosen = plan(profile)
    size = space_size(profile)
    assert len(chosen) == (trials if size is None else min(trials, size))
    assert len(keys(chosen)) == len(chosen)
    assert chosen == plan(profile)
    for one in chosen:
        assert set(one.sampled) == set(profile.search.space)
        for name, value in one.sampled.items():
            assert type(find(name).validate(value)) is type(value)
            entry = profile.search.space[name]
            if isinstance(entry, list):
                assert value in entry
            else:
                assert entry.low <= float(value) <= entry.high


@settings(deadline=None, max_examples=40)
@given(trials=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_grid_plan_has_no_doubles_and_is_as_long_as_it_may(trials: int, seed: int) -> None:
    space = {"lora_rank": [4, 8, 16, 32], "cutoff_len": {"low": 128, "high": 512, "step": 128}}
    profile = searching(space, strategy="grid", trials=trials, seed=seed)
    chosen = plan(profile)
    assert len(keys(chosen)) == len(chosen) == min(trials, 16)
    assert chosen == plan(profile)
