"""Filter and order of trials."""

import pytest

from tests.tui.fake import NOW, FakeSource
from tui.filtering import Order, arrange
from tui.snapshot import TrialRow, study_view
from tui.source import Wanted


@pytest.fixture
def rows() -> tuple[TrialRow, ...]:
    return study_view(FakeSource().feed.read(Wanted(frozenset({1, 2, 3}))), NOW).rows


def numbers(rows: list[TrialRow]) -> list[int]:
    return [row.number for row in rows]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("diverged", [3]),
        ("state:queued", [7, 8]),
        ("STATE:OOM", [4]),
        ("status:comp rank:16", [2]),
        ("learning_rate>=3e-4", [2, 3, 7]),
        ("lr<1e-4", [6]),
        ("rank=8", [1, 3, 7]),
        ("eval_loss<1.95", [2]),
        ("memory>11", [1, 2, 3, 4, 5, 6]),
        ("place:1", [2]),
        ("source:search kind:probe state:running", [5, 6]),
        ("nan at", [3]),
        ("no_such_key:1", []),
        ("rank>many", []),
        ("state:", [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_a_query_leaves_what_matches(
    rows: tuple[TrialRow, ...], query: str, left: list[int]
) -> None:
    assert numbers(arrange(rows, query, Order())) == left


@pytest.mark.parametrize(
    ("order", "first"),
    [
        (Order("number", True), [8, 7]),
        (Order("loss"), [2, 5]),
        (Order("loss", True), [6, 1]),
        (Order("lora_rank"), [1, 3, 7]),
        (Order("learning_rate", True), [3, 7]),
        (Order("state"), [5, 6, 7, 8]),
        (Order("progress"), [4, 6]),
        (Order("settings"), [8, 4, 1]),
    ],
)
def test_an_order_sorts(rows: tuple[TrialRow, ...], order: Order, first: list[int]) -> None:
    assert numbers(arrange(rows, "", order))[: len(first)] == first


def test_what_has_no_value_comes_last_either_way(rows: tuple[TrialRow, ...]) -> None:
    for descending in (False, True):
        assert set(numbers(arrange(rows, "", Order("loss", descending)))[-4:]) == {3, 4, 7, 8}
