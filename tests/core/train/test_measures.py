"""Means over rows, between two logs."""

import json
import math

import pytest
import torch

from core.train.distributed.ranks import Ranks
from core.train.measures import Measures


def test_a_mean_is_over_rows_and_not_over_batches() -> None:
    measures = Measures()
    measures.add("margin", torch.tensor([1.0, 1.0, 1.0]))
    measures.add("margin", torch.tensor([5.0]))
    measures.add("empty", torch.tensor([]))
    assert measures.means() == {"margin": 2.0}
    assert measures.means() == {"margin": 2.0}, "asking changes nothing"
    measures.clear()
    assert measures.means() == {}


def test_what_a_checkpoint_keeps_goes_on_to_the_last_bit() -> None:
    torch.manual_seed(0)
    whole, first = Measures(), Measures()
    batches = [torch.rand(3) for _ in range(6)]
    for batch in batches:
        whole.add("x", batch)
    for batch in batches[:3]:
        first.add("x", batch)
    second = Measures()
    second.take_up(json.loads(json.dumps(first.kept())))
    for batch in batches[3:]:
        second.add("x", batch)
    assert second.means() == whole.means()


def test_what_is_no_number_stays_so_in_a_checkpoint() -> None:
    measures, again = Measures(), Measures()
    measures.add("x", torch.tensor([1.0, math.nan]))
    measures.add("y", torch.tensor([math.inf]))
    again.take_up(json.loads(json.dumps(measures.kept())))
    assert math.isnan(again.means()["x"]) and again.means()["y"] == math.inf


def test_ranks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = Measures()
    measures.add("x", torch.tensor([1.0, 3.0]))
    monkeypatch.setattr(Ranks, "gather", lambda self, numbers: [list(numbers), [8.0, 2]])
    measures.add_up(Ranks(0, 2))
    assert measures.means() == {"x": 3.0}


def test_values_hold_no_graph() -> None:
    measures = Measures()
    measures.add("x", torch.ones(2, requires_grad=True) * 2)
    assert measures.means() == {"x": 2.0} and measures.kept() == {"x": [4.0, 2]}


def test_what_ranks_keep_is_of_all_of_them_and_taken_up_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measures = Measures()
    measures.add("x", torch.tensor([1.0, 3.0]))
    measures.add("y", torch.tensor([]))
    monkeypatch.setattr(Ranks, "gather", lambda self, numbers: [list(numbers), [8.0, 2, 5.0, 1]])
    both = Ranks(0, 2)
    assert measures.means(both) == {"x": 3.0, "y": 5.0}
    kept = measures.kept(both)
    assert kept == {"x": [12.0, 4], "y": [5.0, 1]}
    assert measures.kept() == {"x": [4.0, 2], "y": [0.0, 0]}, "asking changes nothing"
    first, second = Measures(), Measures()
    first.take_up(kept, Ranks(0, 2))
    second.take_up(kept, Ranks(1, 2))
    assert first.kept() == kept
    assert second.kept() == {"x": [0.0, 0], "y": [0.0, 0]}
