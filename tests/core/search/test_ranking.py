from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from core.search.metric import METRICS, Metric
from core.search.ranking import Candidate, Ranked, rank, seed_noise

ACCURACY = Metric("eval_accuracy", "max", "accuracy")


def candidate(
    trial: int, value: float | None, rate: float | None = 1e-4, noise: float | None = None
) -> Candidate:
    return Candidate(trial, True, value, rate, noise=noise)


def confirmation(trial: int, of: int, value: float | None, ending: str | None = None) -> Candidate:
    return Candidate(trial, ending is None, value, 1e-4, ending=ending, confirms=of)


def order(ranked: list[Ranked]) -> list[int]:
    return [entry.trial for entry in ranked]


def test_the_lowest_loss_comes_first() -> None:
    ranked = rank([candidate(1, 2.5), candidate(2, 2.0), candidate(3, 2.2)], "eval_loss")
    assert order(ranked) == [2, 3, 1]
    assert [entry.place for entry in ranked] == [1, 2, 3]
    assert not any(entry.tied for entry in ranked)


def test_a_large_value_comes_first_where_that_is_good() -> None:
    ranked = rank([candidate(1, 0.7), candidate(2, 0.9), candidate(3, 0.8)], ACCURACY)
    assert order(ranked) == [2, 3, 1]
    assert [entry.value for entry in ranked] == [0.9, 0.8, 0.7]


def test_ties_of_large_values_prefer_the_lower_rate_too() -> None:
    ranked = rank([candidate(1, 0.9, 1e-3), candidate(2, 0.899, 1e-4)], ACCURACY)
    assert order(ranked) == [2, 1]


def test_among_near_ties_the_lower_learning_rate_wins() -> None:
    ranked = rank([candidate(1, 2.000, 1e-3), candidate(2, 2.003, 1e-4)], "eval_loss")
    assert order(ranked) == [2, 1]
    assert [entry.place for entry in ranked] == [1, 2]
    assert all(entry.tied for entry in ranked)


def test_a_clear_difference_beats_a_lower_learning_rate() -> None:
    ranked = rank([candidate(1, 2.00, 1e-3), candidate(2, 2.01, 1e-4)], "eval_loss")
    assert order(ranked) == [1, 2]


def test_a_chain_of_near_ties_ends_where_the_first_is_too_far() -> None:
    chain = [candidate(n, 2.0 + 0.003 * n, 10.0**-n) for n in range(1, 5)]
    assert order(rank(chain, "eval_loss")) == [2, 1, 4, 3]


def test_an_unknown_learning_rate_loses_a_tie() -> None:
    assert order(rank([candidate(1, 2.0, None), candidate(2, 2.0, 1.0)], "eval_loss")) == [2, 1]


def test_those_without_a_place_come_last_and_say_why() -> None:
    ranked = rank(
        [
            Candidate(1, False, 0.1, None, ending="diverged"),
            candidate(2, math.nan),
            candidate(3, None),
            Candidate(4, False, 0.2, None),
            candidate(5, 9.0),
        ],
        "eval_loss",
    )
    assert order(ranked) == [5, 1, 2, 3, 4]
    assert [entry.place for entry in ranked] == [1, None, None, None, None]
    assert [entry.reason for entry in ranked] == [
        None,
        "diverged",
        "its evaluation loss is not a finite number (nan)",
        "has no evaluation loss",
        "did not finish",
    ]


def test_dropped_trials_follow_the_finishers_with_their_rung_and_value() -> None:
    ranked = rank(
        [
            Candidate(1, False, 3.0, 1e-4, ending="diverged"),
            Candidate(2, False, 2.4, 1e-4, ending="pruned", share=0.1),
            Candidate(3, False, 2.6, 1e-4, ending="pruned", share=0.3),
            Candidate(4, False, 2.3, 1e-4, ending="pruned", share=0.1),
            Candidate(5, False, 2.5, 1e-4, ending="rung", share=0.3),
            candidate(6, 9.0),
        ],
        "eval_loss",
    )
    assert order(ranked) == [6, 5, 3, 4, 2, 1]
    assert [entry.reason for entry in ranked] == [
        None, "waits at 30 %", "dropped at 30 %", "dropped at 10 %", "dropped at 10 %", "diverged",
    ]  # fmt: skip
    assert [(entry.value, entry.share) for entry in ranked[1:3]] == [(2.5, 0.3), (2.6, 0.3)]


def test_a_confirmed_trial_counts_by_the_mean_of_its_runs() -> None:
    first, second = rank(
        [candidate(1, 2.0), candidate(2, 2.2), confirmation(3, 1, 2.3), confirmation(4, 2, 2.0)],
        METRICS["eval_loss"],
    )
    assert {first.value, second.value} == {2.1, 2.15}
    assert (first.trial, first.runs, second.runs) == (2, 2, 2)
    assert first.spread is not None and abs(first.spread - 0.2 / math.sqrt(2)) < 1e-9


def test_the_spread_between_seeds_widens_ties() -> None:
    runs = [candidate(1, 2.0, 1e-3), candidate(2, 2.05, 1e-4)]
    assert not any(entry.tied for entry in rank(runs, "eval_loss"))
    again = [*runs, confirmation(3, 1, 2.1), confirmation(4, 2, 2.15)]
    ranked = rank(again, "eval_loss")
    assert order(ranked) == [2, 1] and all(entry.tied for entry in ranked)


def test_a_setting_that_another_seed_ruins_is_no_tie_for_its_lower_rate() -> None:
    runs = [candidate(1, 2.0, 1e-5), candidate(2, 2.05, 1e-3)]
    ranked = rank([*runs, confirmation(3, 1, 4.0), confirmation(4, 2, 2.06)], "eval_loss")
    assert order(ranked) == [2, 1] and not any(entry.tied for entry in ranked)


def test_confirmations_of_large_values_count_by_their_mean_too() -> None:
    runs = [candidate(1, 0.9), candidate(2, 0.8), confirmation(3, 1, 0.7), confirmation(4, 2, 0.88)]
    ranked = rank(runs, ACCURACY)
    assert {entry.trial: round(entry.value or 0, 3) for entry in ranked} == {1: 0.8, 2: 0.84}


def test_of_ties_the_confirmed_one_is_before_a_lower_rate() -> None:
    ranked = rank(
        [candidate(1, 2.0, 1e-3), candidate(2, 2.001, 1e-5), confirmation(3, 1, 2.0)], "eval_loss"
    )
    assert order(ranked) == [1, 2]


def test_a_confirmation_that_diverged_takes_the_place_away() -> None:
    ranked = rank(
        [candidate(1, 2.0), candidate(2, 2.5), confirmation(3, 1, None, "diverged")], "eval_loss"
    )
    assert order(ranked) == [2, 1]
    assert ranked[1].reason == "diverged with another seed (trial 3)"


def test_a_confirmation_that_failed_for_another_reason_changes_nothing() -> None:
    ranked = rank(
        [candidate(1, 2.0), candidate(2, 2.5), confirmation(3, 1, 7.0, "oom")], "eval_loss"
    )
    assert order(ranked) == [1, 2] and ranked[0].runs == 1


def test_a_curve_that_jitters_widens_its_tie_but_not_without_end() -> None:
    close = [candidate(1, 2.0, 1e-3, noise=0.01), candidate(2, 2.009, 1e-4)]
    assert order(rank(close, "eval_loss")) == [2, 1]
    calm = [candidate(1, 2.0, 1e-3, noise=0.001), candidate(2, 2.009, 1e-4)]
    assert order(rank(calm, "eval_loss")) == [1, 2]
    wild = [candidate(1, 2.0, 1e-3, noise=0.5), candidate(2, 2.03, 1e-4)]
    assert order(rank(wild, "eval_loss")) == [1, 2]


def test_what_seeds_measured_is_believed_over_a_curve() -> None:
    runs = [candidate(1, 2.0, 1e-3, noise=0.02), candidate(2, 2.015, 1e-4), confirmation(3, 1, 2.0)]
    assert order(rank(runs, "eval_loss")) == [1, 2]


def test_who_is_as_good_as_the_winner_is_in_its_group() -> None:
    ranked = rank([candidate(1, 2.0), candidate(2, 2.003), candidate(3, 2.5)], "eval_loss")
    assert [entry.trial for entry in ranked if entry.group == 1] == [1, 2]


def test_the_noise_between_seeds_is_pooled() -> None:
    assert seed_noise([[2.0], [3.0]]) is None
    assert seed_noise([[1.0, 3.0], [2.0, 4.0], [5.0]]) == math.sqrt(2)


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        trial=st.integers(0, 10_000),
        completed=st.booleans(),
        value=st.none() | st.floats(),
        learning_rate=st.none() | st.floats(1e-7, 1.0),
    ),
    unique_by=lambda entry: entry.trial,
)


@given(CANDIDATES)
def test_everyone_is_ranked_once_whatever_the_order_given(
    candidates: list[Candidate],
) -> None:
    ranked = rank(candidates, "eval_loss")
    assert sorted(order(ranked)) == sorted(entry.trial for entry in candidates)
    places = [entry.place for entry in ranked if entry.place is not None]
    assert places == list(range(1, len(places) + 1))
    assert order(rank(candidates[::-1], "eval_loss")) == order(ranked)


@given(CANDIDATES)
def test_no_place_is_clearly_worse_than_one_below_it(candidates: list[Candidate]) -> None:
    values = [entry.value for entry in rank(candidates, "eval_loss") if entry.place is not None]
    for above, below in pairwise(values):
        assert above is not None and below is not None
        assert above <= below + 0.002 * abs(below) * 1.01


def test_equals_by_a_share_of_rows_are_told_apart_by_their_loss_and_not_by_the_lower_rate() -> None:
    idle = Candidate(1, True, 0.83, 3e-6, noise=0.05, eval_loss=0.6930)
    learnt = Candidate(2, True, 0.81, 2e-5, noise=0.05, eval_loss=0.6866)
    worse = Candidate(3, True, 0.60, 1e-6, noise=0.05, eval_loss=0.6000)
    ranked = rank([idle, learnt, worse], "eval_reward_accuracy")
    assert [r.trial for r in ranked] == [2, 1, 3]
    assert ranked[0].tied and ranked[1].tied and not ranked[2].tied
    by_loss = [
        Candidate(1, True, 2.001, 1e-5, eval_loss=2.001),
        Candidate(2, True, 2.0, 1e-4, eval_loss=2.0),
    ]
    assert [r.trial for r in rank(by_loss, "eval_loss")] == [1, 2]


def test_a_share_of_few_rows_differs_by_chance_as_their_number_says() -> None:
    def of_twenty(trial: int, right: int) -> Candidate:
        share = right / 20
        noise = math.sqrt(share * (1 - share) / 20)
        return Candidate(trial, True, share, 1e-4, noise=noise)

    ranked = rank([of_twenty(1, 12), of_twenty(2, 11), of_twenty(3, 9)], "eval_reward_accuracy")
    assert [(r.trial, r.group) for r in ranked] == [(1, 1), (2, 1), (3, 2)]
    one_curve = Candidate(1, True, 2.0, 1e-4, noise=0.5), Candidate(2, True, 2.05, 1e-4)
    assert [r.group for r in rank(one_curve, "eval_loss")] == [1, 2]
