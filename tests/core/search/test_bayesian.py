"""Points proposed where earlier trials did well."""

import math
from collections import Counter
from itertools import islice
from typing import Any

import optuna
import pytest

from core.profile import Profile, from_document
from core.search.bayesian import LEARNS_FROM, coded, propose, rebuilt
from core.search.proposals import Seen
from core.search.space import key_of, space_of
from core.search.spread import draws, spread

RATE: dict[str, Any] = {"low": 1e-5, "high": 1e-2, "scale": "log"}
SPACE: dict[str, Any] = {
    "learning_rate": RATE,
    "lora_rank": [4, 8, 16, 32],
    "warmup_ratio": {"low": 0.0, "high": 0.3},
}


def searching(space: dict[str, Any], **tables: Any) -> Profile:
    search = {"space": space, **tables.pop("search", {})}
    document: dict[str, Any] = {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}}
    return from_document({**document, **tables, "search": search})


def loss(point: dict[str, Any], best: float = 3e-4) -> float:
    """A bowl over the logarithm of the rate, with a gentle slope over the others."""
    rate = float(point["learning_rate"])
    return 2 + 0.2 * math.log(rate / best) ** 2 + 0.1 * float(point.get("warmup_ratio", 0))


def done(point: dict[str, Any], value: float | None = None, **more: Any) -> Seen:
    told = loss(point) if value is None else value
    return Seen(sampled=point, value=told, **{"state": "completed", "share": 1.0, **more})


def begun(profile: Profile, count: int, seed: int = 0) -> list[Seen]:
    return [done(p) for p in islice(spread(space_of(profile), seed, []), count)]


def searched(profile: Profile, trials: int, seed: int) -> list[Seen]:
    seen = begun(profile, 6, seed)
    while len(seen) < trials:
        seen += [done(p) for p in propose(profile, seen, 1, seed)]
    return seen


def test_it_finds_better_settings_than_as_many_random_draws() -> None:
    profile = searching(SPACE)
    learnt = [min(s.value or 0 for s in searched(profile, 24, seed)) for seed in range(4)]
    drawn = [min(map(loss, islice(draws(space_of(profile), seed), 24))) for seed in range(4)]
    assert sum(learnt) < sum(drawn)
    late = [s for seed in range(2) for s in searched(profile, 24, seed)[14:]]
    near = sum(abs(math.log10(float(s.sampled["learning_rate"]) / 3e-4)) < 0.5 for s in late)
    assert near > len(late) / 2


def test_the_same_request_gets_the_same_points() -> None:
    profile = searching(SPACE)
    seen = begun(profile, 8)
    assert propose(profile, seen, 3, 5) == propose(profile, seen, 3, 5)
    assert propose(profile, seen, 3, 5) != propose(profile, seen, 3, 6)


def test_before_there_is_anything_to_learn_from_points_are_spread() -> None:
    profile = searching(SPACE)
    seen = begun(profile, LEARNS_FROM - 1)
    running = [Seen(sampled=p) for p in islice(draws(space_of(profile), 1), 20)]
    points = propose(profile, [*seen, *running], 2, 0)
    assert points == list(
        islice(spread(space_of(profile), 0, [s.sampled for s in [*seen, *running]]), 2)
    )


def test_what_was_tried_is_never_proposed_and_a_used_up_space_ends_it() -> None:
    profile = searching({"lora_rank": [4, 8, 16], "learning_rate": [1e-4, 3e-4]})
    seen: list[Seen] = []
    for _ in range(6):
        (point,) = propose(profile, seen, 1, 0)
        seen.append(done(point))
    assert len({key_of(s.sampled) for s in seen}) == 6
    assert propose(profile, seen, 3, 0) == []


def test_points_asked_for_together_differ() -> None:
    profile = searching(SPACE)
    points = propose(profile, begun(profile, 8), 6, 0)
    assert len({key_of(p) for p in points}) == 6


def test_settings_that_follow_from_a_point_are_not_tried_twice() -> None:
    """Two points of one space may stand for the same training; only the settings tell."""
    profile = searching({"finetuning_type": ["lora", "full"], "lora_rank": [4, 8]})
    seen = [done({"finetuning_type": "full", "lora_rank": rank}, 1.0) for rank in (4, 8)]
    rest = propose(profile, seen, 9, 0)
    assert {key_of(p) for p in rest} == {
        key_of({"finetuning_type": "lora", "lora_rank": rank}) for rank in (4, 8)
    }


def test_conditions_hold_in_what_is_proposed_and_both_sides_are_looked_at() -> None:
    space = {"learning_rate": RATE, "finetuning_type": ["lora", "full"], "lora_rank": [4, 8, 16]}
    profile = searching(space)
    points = propose(profile, begun(profile, 8), 12, 0)
    kinds = Counter(p["finetuning_type"] for p in points)
    assert all(("lora_rank" in p) is (p["finetuning_type"] == "lora") for p in points)
    assert set(kinds) == {"lora", "full"}


def test_what_cannot_run_is_not_proposed() -> None:
    space = {"learning_rate": RATE, "per_device_train_batch_size": {"low": 1, "high": 32}}
    profile = searching(space, search={"hold_effective_batch": True})
    points = propose(profile, begun(profile, 6), 8, 0)
    assert len(points) == 8
    assert all(16 % int(p["per_device_train_batch_size"]) == 0 for p in points)


def test_values_lie_in_the_space_and_are_readable() -> None:
    space = {
        "learning_rate": RATE,
        "lora_rank": {"low": 2, "high": 64, "scale": "log"},
        "warmup_steps": {"low": 0, "high": 100},
        "lora_dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
        "lr_scheduler_type": ["linear", "cosine"],
        "use_dora": [True, False],
        "weight_decay": [0.0],
    }
    profile = searching(space)
    for point in propose(profile, begun(profile, 8), 8, 0):
        assert set(point) == set(space)
        rate, rank, steps = point["learning_rate"], point["lora_rank"], point["warmup_steps"]
        assert isinstance(rate, float)
        assert float(f"{rate:.2e}") == rate
        assert 1e-5 <= rate <= 1e-2
        assert type(rank) is int
        assert 2 <= rank <= 64
        assert type(steps) is int
        assert point["lora_dropout"] in (0.0, 0.1, 0.2, 0.3)
        assert type(point["use_dora"]) is bool
        assert point["weight_decay"] == 0.0


def test_surroundings_of_what_diverged_are_avoided() -> None:
    profile = searching({"learning_rate": RATE, "warmup_ratio": SPACE["warmup_ratio"]})
    edge = 1e-3

    def tried(point: dict[str, Any]) -> Seen:
        # The loss falls with the rate up to where training diverges.
        if float(point["learning_rate"]) > edge:
            return Seen(sampled=point, state="diverged")
        return done(point, loss(point, best=1e-2))

    seen = [tried(p) for p in islice(spread(space_of(profile), 0, []), 8)]
    while len(seen) < 24:
        seen += [tried(p) for p in propose(profile, seen, 1, 0)]
    late = seen[14:]
    assert sum(s.state == "diverged" for s in late) <= len(late) / 2
    assert max(float(s.sampled["learning_rate"]) for s in late if s.state == "completed") > 5e-4


def test_what_ran_out_of_memory_is_avoided() -> None:
    profile = searching(
        {"learning_rate": RATE, "per_device_train_batch_size": [1, 2, 4, 8, 16, 32]}
    )

    def tried(point: dict[str, Any]) -> Seen:
        if int(point["per_device_train_batch_size"]) > 4:
            return Seen(sampled=point, state="oom")
        return done(point)

    seen = [tried(p) for p in islice(spread(space_of(profile), 0, []), 10)]
    assert Counter(s.state for s in seen)["oom"] >= 3
    while len(seen) < 26:
        seen += [tried(p) for p in propose(profile, seen, 1, 0)]
    assert sum(s.state == "oom" for s in seen[10:]) <= 5


def test_a_search_of_which_everything_failed_goes_on() -> None:
    profile = searching(SPACE)
    points = list(islice(draws(space_of(profile), 0), 9))
    for state in ("diverged", "oom", "failed"):
        seen = [Seen(sampled=p, state=state) for p in points]
        (point,) = propose(profile, seen, 1, 0)
        assert key_of(point) not in {key_of(p) for p in points}


def test_trials_of_other_spaces_are_passed_over() -> None:
    profile = searching(SPACE)
    strange = [
        done({"learning_rate": 5.0, "lora_rank": 8, "warmup_ratio": 0.1}, 0.1),
        done({"learning_rate": 1e-4, "lora_rank": 7, "warmup_ratio": 0.1}, 0.1),
        done({}, 0.1),
    ]
    assert len(propose(profile, [*strange, *begun(profile, 6)], 2, 0)) == 2


# -- rungs --------------------------------------------------------------------------------------


def told(profile: Profile, seen: list[Seen]) -> list[optuna.trial.FrozenTrial]:
    """What the sampler was told."""
    axes = {axis.name: coded(axis) for axis in space_of(profile).axes}
    study = rebuilt(axes, seen, 0)
    assert study is not None
    return study.trials


def rates(count: int) -> list[dict[str, Any]]:
    return [{"learning_rate": 1e-5 * 2**i} for i in range(count)]


def test_only_values_of_one_rung_are_compared() -> None:
    profile = searching({"learning_rate": RATE})
    points = rates(6)
    seen = [
        done(p, 1.0 + i, rungs=((0.1, 3.0 + i), (1.0, 1.0 + i))) for i, p in enumerate(points[:2])
    ]
    seen += [done(p, 5.0 + i, share=0.1, rungs=((0.1, 5.0 + i),)) for i, p in enumerate(points[2:])]
    assert [t.value for t in told(profile, seen)] == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def test_a_higher_rung_counts_when_enough_came_to_it_and_the_rest_stands_behind() -> None:
    profile = searching({"learning_rate": RATE})
    points = rates(8)
    seen = [
        done(p, 2.0 + i, rungs=((0.1, 4.0 + i), (1.0, 2.0 + i))) for i, p in enumerate(points[:4])
    ]
    seen += [done(p, 1.0, share=0.1, rungs=((0.1, 1.0),)) for p in points[4:]]
    trials = told(profile, seen)
    assert [t.value for t in trials[:4]] == [2.0, 3.0, 4.0, 5.0]
    assert [t.state.name for t in trials[4:]] == ["PRUNED"] * 4
    assert trials[4].intermediate_values == {100_000: 1.0}


def test_who_waits_at_the_rung_counts_and_who_runs_is_only_kept_away_from() -> None:
    profile = searching({"learning_rate": RATE})
    points = rates(6)
    seen = [Seen(sampled=p, rungs=((0.1, 2.0),), share=0.1, value=2.0) for p in points[:4]]
    seen += [Seen(sampled=p) for p in points[4:]]
    assert [t.state.name for t in told(profile, seen)] == ["COMPLETE"] * 4 + ["RUNNING"] * 2


def test_a_diverged_trial_is_worse_than_all_by_their_spread() -> None:
    profile = searching({"learning_rate": RATE})
    points = rates(6)
    seen = [done(p, v) for p, v in zip(points, [2.0, 2.5, 3.0, 2.2, math.inf], strict=False)]
    seen += [Seen(sampled=points[5], state="diverged"), Seen(sampled=points[5], state="failed")]
    values = [t.value for t in told(profile, seen) if t.state.name == "COMPLETE"]
    assert values == [2.0, 2.5, 3.0, 2.2, pytest.approx(4.0)]


def test_negative_values_keep_their_order() -> None:
    """A metric that is to be high comes negated."""
    profile = searching({"learning_rate": RATE})
    seen = [done(p, -float(i)) for i, p in enumerate(rates(5))]
    seen.append(Seen(sampled={"learning_rate": 5e-3}, state="diverged"))
    values = [t.value for t in told(profile, seen)]
    assert max(v for v in values if v is not None) == values[-1] == pytest.approx(4.0)
