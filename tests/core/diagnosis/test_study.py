from __future__ import annotations

import math
import random
from typing import Any

import pytest

from core.doctor import Examination, TrialFacts, examine
from core.search.metric import METRICS, Metric, find

LOSS = METRICS["eval_loss"]
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 1e-2, "scale": "log"},
    "lora_rank": [8, 16, 32],
}


def trial(
    number: int, rate: float, value: float | None, status: str = "completed", **more: Any
) -> TrialFacts:
    settings = {"learning_rate": rate, "lora_rank": more.pop("rank", 16)}
    return TrialFacts(number, settings, status, value, **more)


def ranked(*trials: TrialFacts, ties: int = 1) -> list[TrialFacts]:
    """The same with places by their values."""
    order = sorted((t for t in trials if t.status == "completed"), key=lambda t: t.value or 0.0)
    places = {t.trial: n for n, t in enumerate(order, 1)}
    return [
        TrialFacts(
            t.trial, t.settings, t.status, t.value, t.share, places.get(t.trial),
            places.get(t.trial, ties + 1) <= ties, t.runs, t.rungs,
        )
        for t in trials
    ]  # fmt: skip


def steps(found: Examination) -> str:
    return " ".join(step.text for step in found.next_steps)


def study(count: int = 16, seed: int = 0) -> list[TrialFacts]:
    """Rates around 3e-4 are best, those above 3e-3 diverge, the rank hardly matters."""
    source = random.Random(seed)
    made = []
    for n in range(1, count + 1):
        rate = 10 ** source.uniform(-5, -2)
        if rate > 3e-3:
            made.append(trial(n, rate, None, "diverged", rank=source.choice([8, 16, 32])))
            continue
        value = (
            2.0
            + 0.1 * abs(random.Random(n).gauss(0, 0.02))
            + (0.2 * abs(math.log10(rate / 3e-4))) ** 2
        )
        made.append(trial(n, rate, value, rank=source.choice([8, 16, 32])))
    return ranked(*made)


def test_the_rate_that_decides_is_the_most_important_parameter() -> None:
    first, second = examine(study(24), SPACE, LOSS).importances
    assert first.name == "learning_rate" and first.clear
    assert second.share is not None and first.share is not None and second.share < first.share


def test_the_safe_band_ends_twice_below_the_lowest_rate_that_diverged() -> None:
    found = examine(study(24), SPACE, LOSS)
    assert found.band is not None
    assert found.band.high == pytest.approx(found.band.diverged / 2, rel=0.05)
    assert f"trials diverged, at {found.band.diverged:.3g}"[:15] in found.band.text


def test_a_single_divergence_is_named() -> None:
    found = examine(
        ranked(trial(1, 1e-4, 2.0), trial(2, 3e-4, 1.9), trial(3, 2e-3, None, "diverged")),
        SPACE,
        LOSS,
    )
    assert found.band is not None and found.band.high == 1e-3
    assert "Rates up to 1e-3 are safe: trial 3 diverged at 2e-3" in found.band.text


def test_where_higher_rates_survived_no_band_is_claimed() -> None:
    found = examine(
        ranked(trial(1, 1e-3, None, "diverged"), trial(2, 3e-3, 1.9), trial(3, 1e-4, 2.0)),
        SPACE,
        LOSS,
    )
    assert found.band is None
    (remark, _) = found.remarks
    assert "1 diverged and 1 did not" in remark
    assert remark.endswith("Rates up to 5e-4 are safe with all.")


def test_after_a_divergence_no_higher_rates_are_asked_for() -> None:
    """The best, of the highest rate, had another batch than the one that diverged below it."""
    found = examine(
        ranked(trial(1, 1e-3, None, "diverged"), trial(2, 9e-3, 1.9), trial(3, 1e-4, 2.0)),
        SPACE,
        LOSS,
    )
    assert not found.edges and not any(s.space for s in found.next_steps)


def test_the_winner_is_named_and_not_who_is_as_good() -> None:
    """Trial 2 stands first: it is the one that is named, although trial 1 comes before it in the study."""
    trials = [
        trial(1, 9e-3, 2.001, place=2, best=True),
        trial(2, 9e-3, 2.0, place=1, best=True, rank=8),
        trial(3, 1e-4, 2.4, place=3),
    ]
    found = examine(trials, SPACE, LOSS)
    assert [e.trial for e in found.edges] == [2]
    assert "or take the first, trial 2." in steps(found)


def test_a_narrower_range_of_rates_is_a_safe_one() -> None:
    made = [
        *(trial(n, 10 ** (-5 + n / 8), 3.0 - n / 10) for n in range(1, 16)),
        *(trial(n, 1.6e-3, None, "diverged", rank=8) for n in range(16, 20)),
    ]
    found = examine(ranked(*made), SPACE, LOSS)
    assert found.band is not None and found.band.high == 8e-4
    for step in found.next_steps:
        entry = step.space.get("learning_rate", {"high": 0.0})
        assert isinstance(entry, dict) and entry["high"] <= 8e-4


def test_a_winner_close_to_the_divergence_is_warned_of() -> None:
    found = examine(
        ranked(trial(1, 1e-4, 2.0), trial(2, 8e-4, 1.8), trial(3, 1e-3, None, "diverged")),
        SPACE,
        LOSS,
    )
    assert found.band is not None and "The best, trial 2, is closer to it" in found.band.text


def test_where_nothing_diverged_nothing_is_said_of_safety() -> None:
    found = examine(ranked(trial(1, 1e-4, 2.0), trial(2, 3e-4, 1.9)), SPACE, LOSS)
    assert found.band is None and not any("diverged" in remark for remark in found.remarks)


def test_a_winner_at_the_edge_asks_for_a_wider_space_that_can_be_taken_over() -> None:
    found = examine(
        ranked(trial(1, 1e-4, 2.1), trial(2, 1e-3, 2.05), trial(3, 9e-3, 2.0)), SPACE, LOSS
    )
    (edge,) = found.edges
    assert edge.side == "high" and edge.name == "learning_rate"
    step = found.next_steps[0]
    assert step.space == {"learning_rate": {"low": 1e-5, "high": 3e-2, "scale": "log"}}
    assert step.text.startswith("The best, trial 3, has the highest learning_rate tried")


def test_a_list_is_widened_by_a_value() -> None:
    found = examine(
        ranked(trial(1, 1e-4, 2.1, rank=8), trial(2, 1e-4, 2.05, rank=16), trial(3, 1e-4, 2.0, rank=32)),
        {"lora_rank": [8, 16, 32]}, LOSS,
    )  # fmt: skip
    assert found.next_steps[0].space == {"lora_rank": [8, 16, 32, 64]}


def test_ties_ask_for_more_seeds() -> None:
    found = examine(
        ranked(trial(1, 1e-4, 2.0), trial(2, 3e-4, 2.001), trial(3, 1e-3, 2.3), ties=2), SPACE, LOSS
    )
    step = found.next_steps[0]
    assert step.search == {"confirm": 2}
    assert (
        "2 trials cannot be told apart (1, 2)" in step.text and "lowest rate, trial 1" in step.text
    )


def test_of_ties_the_confirmed_one_is_taken_for_what_it_is() -> None:
    """It stands first although its rate is the higher: it is not said to have the lowest."""
    ties = ranked(
        trial(1, 3e-4, 2.0, runs=2), trial(2, 1e-4, 2.001), trial(3, 1e-3, 2.3), ties=2
    )  # fmt: skip
    (text,) = [s.text for s in examine(ties, SPACE, LOSS).next_steps if s.search]
    assert "or take trial 1, which ran 2 times" in text and "lowest" not in text


def test_confirmed_ties_are_left_alone() -> None:
    found = examine(
        ranked(trial(1, 1e-4, 2.0, runs=2), trial(2, 3e-4, 2.001, runs=2), ties=2), SPACE, LOSS
    )
    assert "told apart" not in steps(found)


def test_a_best_part_that_is_narrow_is_proposed() -> None:
    found = examine(study(24), SPACE, LOSS)
    step = next(s for s in found.next_steps if "narrow it to" in s.text)
    entry = step.space["learning_rate"]
    assert isinstance(entry, dict) and entry["low"] < 3e-4 < entry["high"]
    assert entry["high"] / entry["low"] < 300


def test_a_parameter_that_does_nothing_is_told_beside_one_that_does() -> None:
    made = [
        trial(n, 10 ** (-4.5 + n / 12), 2.0 + abs(n - 10) / 10, rank=(8, 16, 32)[n % 3])
        for n in range(1, 25)
    ]
    found = examine(ranked(*made), SPACE, LOSS)
    assert "lora_rank made no difference that chance does not explain" in steps(found)


def test_all_that_does_nothing_is_told_in_one_sentence_and_not_widened() -> None:
    made = []
    for n in range(1, 25):
        rate = 10 ** (-4.5 + n / 12)
        settings = {
            "learning_rate": rate,
            "lora_rank": (8, 32, 16)[n % 3],
            "warmup_ratio": (0.0, 0.1)[n // 2 % 2],
        }
        made.append(TrialFacts(n, settings, "completed", 2.0 + abs(n - 10) / 10))
    space = {**SPACE, "warmup_ratio": [0.0, 0.1]}
    found = examine(ranked(*made), space, LOSS)
    (text,) = [s.text for s in found.next_steps if "made no difference" in s.text]
    assert "lora_rank" in text and " and " in text and "warmup_ratio" in text
    assert text.endswith("leave them as the profile has them.")
    assert not found.edges


def test_an_order_that_still_changes_asks_for_a_longer_probe() -> None:
    made = [
        trial(n, 10 ** (-4 + n / 10), 2.0 + n / 10, rungs=((0.1, 3.0), (0.3, 2.9 - n / 10)))
        for n in range(1, 7)
    ]
    assert "15 of 15 pairs changed their order after 30 % of the probe" in steps(
        examine(ranked(*made), SPACE, LOSS)
    )


def test_where_all_diverged_lower_rates_are_proposed() -> None:
    made = [trial(n, rate, None, "diverged") for n, rate in enumerate((3e-3, 1e-2, 5e-3), 1)]
    (step,) = examine(made, SPACE, LOSS).next_steps
    assert step.text.startswith(
        "All 3 trials that trained diverged, the lowest rate among them 3e-3"
    )
    entry = step.space["learning_rate"]
    assert isinstance(entry, dict) and entry["high"] < 3e-3 and entry["low"] < entry["high"]


def test_dropped_trials_count_for_importance_but_not_for_edges() -> None:
    made = [
        *(trial(n, 10 ** (-5 + n / 8), 2.0 + n / 100) for n in range(1, 6)),
        *(trial(n, 10 ** (-5 + n / 8), 3.0, "pruned", share=0.1) for n in range(6, 13)),
    ]
    found = examine(ranked(*made), SPACE, LOSS)
    assert found.importances[0].name == "learning_rate" and found.importances[0].trials == 12
    assert all(e.side == "low" for e in found.edges)


def test_where_more_is_better_the_best_is_the_largest() -> None:
    accuracy = Metric("eval_accuracy", "max", "accuracy")
    made = [
        trial(1, 1e-4, 0.5, place=3),
        trial(2, 1e-3, 0.6, place=2),
        trial(3, 9e-3, 0.7, place=1, best=True),
    ]
    (edge,) = examine(made, SPACE, accuracy).edges
    assert edge.trial == 3 and "0.1 worse" in edge.text


def test_too_few_trials_say_so_and_none_say_nothing() -> None:
    found = examine(ranked(trial(1, 1e-4, 2.0), trial(2, 3e-4, 2.3)), SPACE, LOSS)
    assert all(i.share is None for i in found.importances)
    assert "2 trials are too few" in " ".join(found.remarks)
    assert examine([], SPACE, LOSS) == Examination((), None, (), ())


def test_a_rate_that_was_dropped_with_a_ruined_loss_is_not_called_safe() -> None:
    trials = ranked(
        trial(1, 1e-4, 2.0),
        trial(2, 3e-4, 1.9),
        trial(3, 1e-3, 2.1),
        trial(4, 2e-2, 12.7, "pruned", share=0.1),
        trial(5, 1e-1, None, "diverged"),
        trial(6, 3e-3, 2.6, "pruned", share=0.1),
    )
    band = examine(trials, SPACE, LOSS).band
    assert band is not None and band.high == 0.01
    assert "diverged or were ruined, at 0.02 and above" in band.text


def test_rates_that_are_all_close_to_one_that_diverged_are_told_as_such() -> None:
    trials = ranked(
        *(trial(n, rate, 2.0 + n / 100) for n, rate in enumerate((3e-3, 4e-3, 5e-3), 1)),
        trial(4, 5.5e-3, None, "diverged"),
    )
    found = examine(trials, SPACE, LOSS)
    assert found.band is None
    assert any("within a factor of two of it or above" in remark for remark in found.remarks)


@pytest.mark.parametrize("name", ["ppo_kl_coef", "ppo_target"])
def test_a_search_that_may_let_go_of_the_reference_is_told_so(name: str) -> None:
    space = {"learning_rate": SPACE["learning_rate"], name: [0.05, 0.2]}
    (told,) = examine([], space, find("eval_reward")).remarks
    assert told.startswith(f"{name} is searched and eval_reward decides") and "eval_kl" in told
    assert examine([], space, find("eval_kl")).remarks == ()
    assert examine([], SPACE, find("eval_reward")).remarks == ()
