"""Data sets become one list of rows."""

from collections import Counter

import pytest

from core.train.data.mixing import Part, draw, mix
from core.train.errors import DataError


def part(name: str, *rows: int, wanted: int | None = None) -> Part[int]:
    return Part(name, rows, len(rows) if wanted is None else wanted)


def test_a_draw_keeps_the_order_and_depends_on_the_seed() -> None:
    rows = list(range(100))
    drawn = draw(rows, 10, 3)
    assert drawn == sorted(drawn) == draw(rows, 10, 3) != draw(rows, 10, 4)
    assert draw(rows, 100, 3) == draw(rows, 1000, 3) == rows


def test_sets_come_one_after_the_other_or_in_turns() -> None:
    parts = [part("a", 0, 1, 2), part("b", 10, 11, 12)]
    assert mix(parts, 0, "concat", None, 0) == ([0, 1, 2, 10, 11, 12], [])
    assert mix(parts, 0, "interleave_under", None, 0) == ([0, 10, 1, 11, 2, 12], [])


def test_rows_that_are_wanted_again_come_as_evenly_as_can_be() -> None:
    train, held = mix([part("a", *range(10), wanted=35)], 2, "concat", None, 0)
    assert len(train) == 33 and len(held) == 2
    assert set(Counter(train).values()) == {4, 5} and not set(train) & set(held)


def test_what_a_set_asks_for_counts_where_sets_take_turns_too() -> None:
    parts = [part("a", *range(10), wanted=40), part("b", *range(100, 140))]
    train, _ = mix(parts, 0, "interleave_under", None, 0)
    assert len(train) == 80 and set(Counter(t for t in train if t < 100).values()) == {4}


def test_weights_that_repeat_rows_without_measure_are_refused() -> None:
    parts = [part("a", *range(100)), part("b", *range(100))]
    for small in (1e-7, 1e-300):
        with pytest.raises(DataError, match=r"interleave_probs and .*100,000,000 rows.*_under"):
            mix(parts, 0, "interleave_over", [1.0, small], 0)
        assert len(mix(parts, 0, "interleave_under", [1.0, small], 0)[0]) == 100


def test_a_set_of_which_nothing_would_be_left_is_named() -> None:
    parts = [part("large", *range(100)), part("small", 200, 201)]
    with pytest.raises(DataError, match="sets all 2 rows of small aside"):
        mix(parts, 8, "interleave_under", None, 0)
    with pytest.raises(DataError, match="sets 102 of 102 rows aside"):
        mix(parts, 102, "concat", None, 0)
