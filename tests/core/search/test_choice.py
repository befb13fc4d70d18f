"""What `auto` means: which strategy, whether trials are stopped early, and why."""

from dataclasses import replace
from typing import Any

import pytest

from core.profile import Profile, from_document
from core.search.choice import choose

RATES: dict[str, Any] = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}
TWO: dict[str, Any] = {**RATES, "lora_rank": [8, 16, 32]}


def searching(space: dict[str, Any], max_steps: int | None = None, **search: Any) -> Profile:
    train = {"warmup_ratio": 0.0} | ({} if max_steps is None else {"max_steps": max_steps})
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": "d"},
            "train": train,
            "search": {"space": space, **search},
        }
    )


@pytest.mark.parametrize(
    ("space", "trials", "gpus", "strategy"),
    [
        ({"lora_rank": [8, 16], "seed": [1, 2, 3]}, 6, 1, "grid"),
        ({"lora_rank": [8, 16], "seed": [1, 2, 3]}, 5, 1, "portfolio"),
        ({"seed": [1, 2, 3, 4, 5, 6]}, 5, 1, "random"),
        (RATES, 24, 1, "portfolio"),
        ({**RATES, "lora_rank": [8]}, 24, 1, "portfolio"),
        (TWO, 9, 1, "portfolio"),
        (TWO, 10, 1, "bayesian"),
        (TWO, 10, None, "bayesian"),
        (TWO, 16, 7, "bayesian"),
        (TWO, 16, 8, "portfolio"),
    ],
)
def test_the_strategy_follows_from_the_space_the_trials_and_the_gpus(
    space: dict[str, Any], trials: int, gpus: int | None, strategy: str
) -> None:
    assert choose(searching(space, trials=trials), gpus=gpus).strategy == strategy


def test_nothing_known_comes_first_where_it_is_not_wanted() -> None:
    chosen = choose(searching(RATES, trials=6, portfolio=False), gpus=1)
    assert chosen.strategy == "random"
    assert "nothing known is to come first" in chosen.why


def test_a_rung_too_early_to_tell_anything_is_told() -> None:
    why = choose(searching(TWO, trials=12, max_steps=100, first_rung=0.1), gpus=1).why
    assert "about 2 of 20 updates: hardly enough to tell them apart" in why


@pytest.mark.parametrize(
    ("trials", "gpus", "stopping"),
    [
        (3, 1, "none"),
        (4, 1, "halving"),
        (32, None, "halving"),
        (31, 8, "halving"),
        (32, 8, "asha"),
        (32, 7, "halving"),
    ],
)
def test_stopping_follows_from_the_trials_and_the_gpus(
    trials: int, gpus: int | None, stopping: str
) -> None:
    assert choose(searching(TWO, trials=trials), gpus=gpus).stopping == stopping


def test_gpus_count_by_the_trials_that_they_run_at_once() -> None:
    profile = searching(TWO, trials=32)
    several = profile.resources.model_copy(update={"gpus_per_trial": 4})
    shared = replace(profile, resources=several)
    assert choose(shared, gpus=8).stopping == "halving"
    chosen = choose(shared, gpus=32)
    assert chosen.stopping == "asha"
    assert "8 × 4 GPUs need not wait" in chosen.why


def test_stopping_looks_at_the_trials_that_there_are() -> None:
    assert choose(searching({"lora_rank": [8, 16, 32]}, trials=50), gpus=1).stopping == "none"


def test_what_the_profile_says_is_kept() -> None:
    chosen = choose(searching(TWO, trials=2, strategy="random", stopping="asha"), gpus=1)
    assert (chosen.strategy, chosen.stopping) == ("random", "asha")
    assert chosen.why == "random: as the profile says; stopping asha as the profile says"


def test_trials_are_no_more_than_the_space_has() -> None:
    assert choose(searching({"lora_rank": [8, 16]}, trials=50), gpus=1).trials == 2
    assert choose(searching(RATES, trials=50), gpus=1).trials == 50


def test_nothing_searched_is_one_training() -> None:
    chosen = choose(searching({}), gpus=4)
    assert (chosen.stopping, chosen.trials) == ("none", 1)
    assert chosen.why == "nothing is searched: one full training"


def test_the_reason_is_a_line_with_the_numbers() -> None:
    chosen = choose(searching(TWO, trials=24, max_steps=1000, budget=0.2, first_rung=0.1), gpus=2)
    assert chosen.why == (
        "bayesian: 24 trials over 2 parameters, later ones learn from earlier ones; "
        "halving: 24 trials are compared at 10 % of the probe (about 20 of 200 updates)"
    )
    wide = choose(searching(TWO, trials=32), gpus=8).why
    assert "asha: 8 GPUs need not wait for the slowest of 32" in wide
    for trials, gpus in ((1, None), (3, 1), (9, 1), (12, 8), (64, 16)):
        why = choose(searching(TWO, trials=trials), gpus=gpus).why
        assert "\n" not in why
        assert len(why) < 200
