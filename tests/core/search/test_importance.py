from __future__ import annotations

import math
import random

from core.search.importance import importances


def trials(count: int, seed: int = 0, noise: float = 0.05):
    """A study in which the rate decides, the rank helps a little and the scheduler does nothing."""
    source = random.Random(seed)
    made = []
    for _ in range(count):
        rate = 10 ** source.uniform(-5, -3)
        rank = source.choice([8, 16, 32])
        settings = {
            "learning_rate": rate,
            "lora_rank": rank,
            "lr_scheduler_type": source.choice(["cosine", "linear"]),
        }
        value = (math.log10(rate) + 3.7) ** 2 + 0.01 * (32 - rank) / 24 + source.gauss(0, noise)
        made.append((settings, value))
    return made


NAMES = ["lr_scheduler_type", "lora_rank", "learning_rate"]


def test_what_decides_comes_first_and_is_clear() -> None:
    for seed in range(10):
        first, *others = importances(trials(32, seed), NAMES)
        assert first.name == "learning_rate" and first.clear
        assert first.share is not None and first.share > 0.5
        assert all(o.share is not None and o.share < first.share for o in others)


def test_chance_is_seldom_taken_for_importance() -> None:
    clear = 0
    for seed in range(200):
        source = random.Random(seed)
        made = [
            ({"lora_rank": source.choice([8, 16, 32]), "x": source.random()}, source.random())
            for _ in range(24)
        ]
        clear += sum(i.clear for i in importances(made, ["lora_rank", "x"]))
    assert clear / 400 < 0.08


def test_an_optimum_in_the_middle_is_seen() -> None:
    made = [({"x": float(x)}, abs(x - 8)) for x in range(17)]
    (found,) = importances(made, ["x"])
    assert found.clear and found.share is not None and found.share > 0.5


def test_too_few_trials_or_one_value_are_unknown() -> None:
    assert [i.share for i in importances(trials(5), NAMES)] == [None] * 3
    (same,) = importances([({"x": 1}, float(n)) for n in range(20)], ["x"])
    assert same.share is None and not same.clear


def test_diverged_trials_are_the_worst_and_equal() -> None:
    made = [
        ({"x": x}, math.inf if x == "high" else float(n)) for n, x in enumerate(["low", "high"] * 8)
    ]
    (found,) = importances(made, ["x"])
    assert found.clear and found.share is not None and found.share > 0.7


def test_trials_without_the_parameter_do_not_count_for_it() -> None:
    made = [({"x": n % 2} if n < 8 else {}, float(n % 2)) for n in range(20)]
    (found,) = importances(made, ["x"])
    assert found.trials == 8 and found.share == 1.0


def test_equal_results_tell_nothing() -> None:
    (found,) = importances([({"x": n % 3}, 2.0) for n in range(12)], ["x"])
    assert found.share is None
