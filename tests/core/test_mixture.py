"""How many rows of each data set are trained on and set aside, and in which order they come."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.mixture import (
    CONCAT,
    OVER,
    UNDER,
    SetSize,
    exact_shares,
    interleaved,
    order,
    set_size,
    totals,
)


def sizes(*rows: int) -> list[SetSize]:
    return [SetSize(n, n) for n in rows]


def test_rows_come_in_the_proportions_that_are_asked_for() -> None:
    drawn = list(islice(order(exact_shares(2, [0.7, 0.3])), 1000))
    assert drawn.count(0) == 700
    for start in range(0, 1000, 10):
        assert drawn[start : start + 10].count(0) == 7


def test_without_weights_sets_take_turns() -> None:
    assert list(islice(order(exact_shares(3, None)), 6)) == [0, 1, 2, 0, 1, 2]


def test_under_ends_with_the_first_set_and_over_with_the_last() -> None:
    assert interleaved(sizes(100, 10), 0, UNDER, None).train == (10, 10)
    assert interleaved(sizes(100, 10), 0, OVER, None).train == (100, 100)
    assert interleaved(sizes(100, 10), 0, UNDER, [0.9, 0.1]).train == (90, 10)
    assert interleaved(sizes(100, 10), 0, OVER, [0.5, 0.5]).train == (100, 100)
    assert interleaved(sizes(30, 90), 0, UNDER, [3, 1]).train == (30, 10)


def test_rows_set_aside_have_the_same_proportions_and_are_not_repeated() -> None:
    portions = interleaved(sizes(1000, 100), 0.1, OVER, [0.5, 0.5])
    assert portions.aside == (10, 10)
    assert portions.train == (990, 990)
    assert interleaved(sizes(1000, 1000), 8, UNDER, [0.75, 0.25]).aside == (6, 2)


def test_a_set_that_is_set_aside_whole_leaves_nothing_to_train_on() -> None:
    assert sum(interleaved(sizes(1000, 3), 10, UNDER, None).train) == 0
    assert totals(sizes(4), 4, CONCAT, None) == (0, 4)
    assert totals(sizes(4), 40, CONCAT, None) == (0, 4)


def test_rows_that_are_wanted_beyond_those_there_are_count() -> None:
    assert set_size(10, 25, None) == SetSize(10, 25)
    assert set_size(10, 25, 20) == SetSize(10, 20)
    assert set_size(10, 4, None) == SetSize(4, 4)
    assert set_size(10, None, 3) == SetSize(3, 3)
    assert totals([SetSize(10, 25), SetSize(10, 10)], 0.1, CONCAT, None) == (33, 2)


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.floats(0.01, 10, allow_nan=False)), min_size=2, max_size=4
    ),
    st.sampled_from([UNDER, OVER]),
)
def test_counts_are_those_of_drawing_row_by_row(
    given_sets: list[tuple[int, float]], strategy: str
) -> None:
    rows, weights = [n for n, _ in given_sets], [w for _, w in given_sets]
    portions = interleaved(sizes(*rows), 0, strategy, weights)
    drawn = [0] * len(rows)
    for index in islice(order(exact_shares(len(rows), weights)), sum(portions.train)):
        drawn[index] += 1
    # Rows of the same place may come in either order at the very end.
    assert all(abs(a - b) <= 1 for a, b in zip(drawn, portions.train, strict=True))
    used_up = [a >= n for a, n in zip(portions.train, rows, strict=True)]
    assert any(used_up) if strategy == UNDER else all(used_up)
    if strategy == UNDER:
        assert all(a <= n for a, n in zip(portions.train, rows, strict=True))


@given(
    st.lists(st.tuples(st.integers(2, 300), st.floats(0.05, 5)), min_size=2, max_size=4),
    st.integers(1, 50),
)
def test_as_many_rows_are_set_aside_as_were_asked_for(
    given_sets: list[tuple[int, float]], count: int
) -> None:
    rows, weights = [n for n, _ in given_sets], [w for _, w in given_sets]
    assert sum(interleaved(sizes(*rows), count, UNDER, weights).aside) == (
        count if count > 1 else 1
    )


@pytest.mark.parametrize("strategy", [UNDER, OVER])
def test_one_set_alone_is_taken_whole(strategy: str) -> None:
    assert totals(sizes(10), 0.1, strategy, [0.3]) == (9, 1)
