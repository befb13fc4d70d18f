"""The log of allocations, over real tensors."""

import torch

from core.dryrun.summary import peak
from core.dryrun.tracker import Tracker
from core.memory.allocator import ALLOC, FREE


def kinds(tracker: Tracker) -> list[tuple[int, int]]:
    return [(kind, size) for kind, _, size in tracker.events]


def test_what_is_allocated_is_logged_until_it_is_freed() -> None:
    tracker = Tracker()
    with tracker:
        held = torch.empty(100)
        del held
    assert kinds(tracker) == [(ALLOC, 400), (FREE, 0)]


def test_views_and_updates_in_place_allocate_nothing() -> None:
    tracker = Tracker()
    with tracker:
        held = torch.zeros(4, 4)
        row = held[1].add_(1).view(2, 2).t()
    assert kinds(tracker) == [(ALLOC, 64)]
    del held
    assert len(tracker.events) == 1
    del row
    assert kinds(tracker)[-1] == (FREE, 0)


def test_tensors_from_before_are_named_or_added() -> None:
    before, tracker = torch.empty(8), Tracker()
    with tracker:
        inside = torch.empty(8)
    tracker.adopt((before, inside, before[:2]), "weights")
    assert len(tracker.events) == 2
    assert set(tracker.categories.values()) == {"weights"}


def test_sizes_are_rounded_up() -> None:
    tracker = Tracker(rounding=512)
    with tracker:
        held = torch.empty(129)
    assert kinds(tracker) == [(ALLOC, 1024)]
    del held


def test_what_a_kernel_takes_for_itself_comes_and_goes_with_it() -> None:
    operation = torch.ops.aten.mm.default
    tracker = Tracker({operation: lambda left, right: [1000 * left.shape[0]]})
    tracker.begin("forward", 1)
    with tracker:
        product = torch.ones(2, 3) @ torch.ones(3, 4)
    sizes = [size for kind, size in kinds(tracker) if kind == ALLOC]
    assert sizes == [24, 48, 2000, 32]
    assert peak(tracker).parts["workspace"] == 2000
    del product


def test_logits_are_told_by_their_width() -> None:
    tracker = Tracker(vocabulary=7)
    tracker.begin("forward", 1)
    with tracker:
        held = torch.empty(5, 7), torch.empty(7), torch.empty(5, 6)
    assert list(tracker.categories.values()) == ["logits", "activations", "activations"]
    del held


def test_the_peak_is_found_with_its_moment_and_its_parts() -> None:
    tracker = Tracker()
    tracker.begin("load", 0)
    tracker.allocate(10, "weights")
    tracker.begin("forward", 1)
    first = tracker.allocate(100, "activations")
    tracker.begin("optimizer", 1)
    tracker.free(first)
    tracker.allocate(30, "optimizer")
    found = peak(tracker)
    assert (found.size, found.moment, found.update) == (110, "forward", 1)
    assert found.moments == {"load": 10, "forward": 110, "optimizer": 110}
    assert found.parts["weights"] == 10 and found.parts["activations"] == 100
    assert found.parts["optimizer"] == 0
