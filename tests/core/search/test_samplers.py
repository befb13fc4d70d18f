from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.catalogue import find
from core.profile import Profile, from_document
from core.search.samplers import plan, plan_notice
from core.search.space import space_size

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
            "search": {"space": space, **search},
        }
    )


def keys(chosen: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {tuple(one.values()) for one in chosen}


def test_without_a_space_there_is_one_trial_as_the_profile_says() -> None:
    assert plan(searching({})) == [{}]
    assert plan(searching({}, strategy="grid")) == [{}]


def test_a_grid_tries_every_combination_once_in_order() -> None:
    chosen = plan(searching(LISTS, strategy="grid", trials=100))
    assert [c["lora_rank"] for c in chosen] == [4, 4, 8, 8, 16, 16]
    assert len(keys(chosen)) == 6


def test_a_grid_that_is_too_large_is_thinned_out_evenly_and_says_so() -> None:
    profile = searching({"lora_rank": list(range(1, 101))}, strategy="grid", trials=10)
    ranks = [int(c["lora_rank"]) for c in plan(profile)]
    assert [(rank - 1) // 10 for rank in ranks] == list(range(10))
    notice = plan_notice(profile)
    assert notice is not None
    assert "100 combinations" in notice


def test_a_grid_that_fits_needs_no_notice() -> None:
    assert plan_notice(searching(LISTS, strategy="grid", trials=6)) is None
    assert plan_notice(searching(RATES)) is None


def test_random_search_ends_when_a_finite_space_is_used_up() -> None:
    chosen = plan(searching(LISTS, strategy="random", trials=50))
    assert len(chosen) == len(keys(chosen)) == 6


def test_a_longer_random_search_begins_with_the_shorter_one() -> None:
    short = plan(searching({**RATES, **LISTS}, trials=5, seed=3))
    assert plan(searching({**RATES, **LISTS}, trials=30, seed=3))[:5] == short


def test_another_seed_draws_other_settings() -> None:
    assert plan(searching(RATES, seed=1)) != plan(searching(RATES, seed=2))


def test_a_range_with_hardly_any_values_ends_the_drawing() -> None:
    low = 1e-4
    high = low * (1 + 1e-15) + 1e-19
    chosen = plan(searching({"learning_rate": {"low": low, "high": high}}, trials=1000))
    assert 1 <= len(chosen) == len(keys(chosen)) < 1000


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
@given(space=space_strategy, trials=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_a_random_plan_is_valid_repeatable_and_has_no_doubles(
    space: dict[str, Any], trials: int, seed: int
) -> None:
    profile = searching(space, trials=trials, seed=seed)
    chosen = plan(profile)
    size = space_size(profile)
    assert len(chosen) == (trials if size is None else min(trials, size))
    assert len(keys(chosen)) == len(chosen)
    assert chosen == plan(profile)
    for one in chosen:
        assert list(one) == list(profile.search.space)
        for name, value in one.items():
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
