from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from core.search.ranking import Candidate, Ranked, rank


def candidate(trial: int, value: float | None, rate: float | None = 1e-4) -> Candidate:
    return Candidate(trial, True, value, None, rate)


def order(ranked: list[Ranked]) -> list[int]:
    return [entry.trial for entry in ranked]


def test_the_lowest_loss_comes_first() -> None:
    ranked = rank([candidate(1, 2.5), candidate(2, 2.0), candidate(3, 2.2)], "eval_loss")
    assert order(ranked) == [2, 3, 1]
    assert [entry.place for entry in ranked] == [1, 2, 3]
    assert not any(entry.tied for entry in ranked)


def test_the_training_loss_ranks_when_asked_to() -> None:
    one = Candidate(1, True, eval_loss=1.0, loss=3.0, learning_rate=None)
    two = Candidate(2, True, eval_loss=2.0, loss=2.0, learning_rate=None)
    assert order(rank([one, two], "loss")) == [2, 1]
    assert order(rank([one, two], "eval_loss")) == [1, 2]


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
            Candidate(1, False, 0.1, None, None, ending="diverged"),
            candidate(2, math.nan),
            candidate(3, None),
            Candidate(4, False, 0.2, None, None),
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


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        trial=st.integers(0, 10_000),
        completed=st.booleans(),
        eval_loss=st.none() | st.floats(),
        loss=st.none(),
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
