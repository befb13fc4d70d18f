"""The model of PyTorch's caching allocator, on logs whose outcome its source code settles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.allocator import (
    ALLOC,
    EMPTY_CACHE,
    FREE,
    MIB,
    Event,
    OutOfMemory,
    replay,
    smallest_capacity,
)

BOTH = pytest.mark.parametrize("expandable", [False, True])


def log(*steps: str) -> list[Event]:
    """Events written as `+a 3.5` (allocate a, MiB), `+a 100b` (bytes), `-a` (free) and `empty`."""
    events: list[Event] = []
    for step in steps:
        name, _, size = step.partition(" ")
        if step == "empty":
            events.append((EMPTY_CACHE, 0, 0))
        elif step.startswith("-"):
            events.append((FREE, ord(name[1]), 0))
        else:
            nbytes = int(size[:-1]) if size.endswith("b") else int(float(size) * MIB)
            events.append((ALLOC, ord(name[1]), nbytes))
    return events


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        ("1b", 512, 2 * MIB),
        ("513b", 1024, 2 * MIB),
        ("1", MIB, 2 * MIB),
        ("1048577b", MIB + 512, 20 * MIB),
        ("9.5", 9.5 * MIB, 20 * MIB),
        ("10", 10 * MIB, 10 * MIB),
        ("13", 14 * MIB, 14 * MIB),  # 1 MiB left over is not split off
        ("12.5", 12.5 * MIB, 14 * MIB),  # 1.5 MiB are
        ("0b", 0, 0),
    ],
)
def test_a_request_is_rounded_and_gets_a_segment_of_its_size(
    size: str, allocated: float, reserved: int
) -> None:
    usage = replay(log(f"+a {size}"))
    assert (usage.peak_allocated, usage.peak_reserved) == (allocated, reserved)


def test_small_and_large_requests_do_not_share_segments() -> None:
    assert replay(log("+a 4", "+b 0.5")).peak_reserved == 22 * MIB


def test_requests_below_ten_mib_share_a_segment() -> None:
    assert replay(log("+a 8", "+b 8", "+c 4")).peak_reserved == 20 * MIB
    assert replay(log("+a 8", "+b 8", "+c 5")).peak_reserved == 40 * MIB


def test_the_smallest_block_that_is_large_enough_is_taken() -> None:
    events = log("+a 40", "+b 30", "-a", "-b", "+c 29", "+d 40")
    assert replay(events).peak_reserved == 70 * MIB


def test_a_block_that_is_freed_joins_both_neighbours() -> None:
    events = log("+a 5", "+b 5", "+c 5", "+d 5", "-a", "-c", "-b", "+e 15")
    assert replay(events).peak_reserved == 20 * MIB
    apart = log("+a 5", "+b 5", "+c 5", "+d 5", "-a", "-c", "+e 10")
    assert replay(apart).peak_reserved == 30 * MIB


def test_free_segments_go_back_to_the_device_before_a_request_fails() -> None:
    events = log("+a 60", "-a", "+b 80")
    assert replay(events).peak_reserved == 140 * MIB
    usage = replay(events, capacity=100 * MIB)
    assert (usage.peak_reserved, usage.retries) == (80 * MIB, 1)


def test_a_segment_that_is_partly_in_use_cannot_go_back() -> None:
    events = log("+a 60", "-a", "+b 20", "+c 50")
    with pytest.raises(OutOfMemory) as caught:
        replay(events, capacity=100 * MIB)
    error = caught.value
    assert (error.event_index, error.asked) == (3, 50 * MIB)
    assert (error.allocated, error.reserved) == (20 * MIB, 60 * MIB)
    assert str(error) == "event 3 asks for 50 MiB; 20 MiB are allocated and 60 MiB reserved"


def test_expandable_segments_give_back_what_lies_free_within_one() -> None:
    events = log("+a 60", "-a", "+b 20", "+c 50")
    assert replay(events, capacity=100 * MIB, expandable=True).peak_reserved <= 100 * MIB


def test_an_expandable_segment_grows_by_what_is_missing() -> None:
    usage = replay(log("+a 40", "+b 30", "-b", "+c 60"), expandable=True)
    assert usage.peak_reserved == 100 * MIB
    assert replay(log("+a 40", "+b 30", "-b", "+c 60")).peak_reserved == 130 * MIB


def test_an_expandable_segment_takes_pages_of_twenty_and_of_two_mib() -> None:
    assert replay(log("+a 1.5"), expandable=True).peak_reserved == 20 * MIB
    assert replay(log("+a 41"), expandable=True).peak_reserved == 60 * MIB
    assert replay(log("+a 0.7", "+b 0.7", "+c 0.7"), expandable=True).peak_reserved == 4 * MIB


def test_pages_unmapped_in_the_middle_are_mapped_again_where_they_were() -> None:
    events = log("+a 40", "+b 40", "+c 40", "-b", "empty", "+d 40")
    assert replay(events, expandable=True).peak_reserved == 120 * MIB
    assert replay(events, expandable=True, capacity=120 * MIB).peak_allocated == 120 * MIB


@BOTH
def test_emptying_the_cache_gives_everything_back(expandable: bool) -> None:
    begin = ("+a 60", "+b 0.5", "+c 3", "-b", "-a", "-c")
    kept = replay(log(*begin, "+d 100"), expandable=expandable)
    emptied = replay(log(*begin, "empty", "+d 100"), expandable=expandable)
    assert emptied.peak_reserved == 100 * MIB
    assert kept.peak_reserved > 100 * MIB


@BOTH
def test_a_log_that_frees_what_is_not_there_is_refused(expandable: bool) -> None:
    with pytest.raises(ValueError, match="event 1 frees allocation 98, which is not there"):
        replay(log("+a 1", "-b"), expandable=expandable)
    with pytest.raises(ValueError, match="there already"):
        replay(log("+a 1", "+a 2"), expandable=expandable)


def test_the_smallest_capacity_counts_what_can_be_given_back() -> None:
    events = log("+a 60", "-a", "+b 80", "+c 40")
    assert smallest_capacity(events) == 120 * MIB
    assert replay(events).peak_reserved == 140 * MIB


def test_the_smallest_capacity_counts_fragmentation() -> None:
    # 60 MiB are reserved for the 20 MiB of b when c comes, which nothing can give back.
    assert smallest_capacity(log("+a 60", "-a", "+b 20", "+c 50")) == 110 * MIB


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Logs in which everything is freed in the end, in any order."""
    sizes = st.one_of(st.integers(0, 4096), st.integers(1, 3 * MIB), st.integers(MIB, 100 * MIB))
    events: list[Event] = []
    live: list[int] = []
    for number in range(draw(st.integers(1, 40))):
        if live and draw(st.booleans()):
            events.append((FREE, live.pop(draw(st.integers(0, len(live) - 1))), 0))
        if draw(st.integers(0, 15)) == 0:
            events.append((EMPTY_CACHE, 0, 0))
        events.append((ALLOC, number, draw(sizes)))
        live.append(number)
    while live:
        events.append((FREE, live.pop(draw(st.integers(0, len(live) - 1))), 0))
    return events


def live_peak(events: list[Event]) -> int:
    """The most bytes that are alive at once, each allocation rounded up to 512."""
    sizes: dict[int, int] = {}
    peak = 0
    for kind, name, nbytes in events:
        if kind == ALLOC:
            sizes[name] = -(-nbytes // 512) * 512
        elif kind == FREE:
            del sizes[name]
        peak = max(peak, sum(sizes.values()))
    return peak


@BOTH
@given(events=logs())
def test_what_is_reserved_covers_what_is_allocated(expandable: bool, events: list[Event]) -> None:
    usage = replay(events, expandable=expandable)
    assert live_peak(events) <= usage.peak_allocated <= usage.peak_reserved
    if expandable:  # blocks are always split there
        assert usage.peak_allocated == live_peak(events)


@BOTH
@given(events=logs())
def test_a_log_survives_at_its_smallest_capacity(expandable: bool, events: list[Event]) -> None:
    enough = smallest_capacity(events, expandable=expandable)
    usage = replay(events, capacity=enough, expandable=expandable)
    assert usage.peak_allocated <= usage.peak_reserved <= enough


@given(events=logs())
def test_a_log_survives_at_what_it_reserves_without_a_limit(events: list[Event]) -> None:
    unlimited = replay(events)
    assert replay(events, capacity=unlimited.peak_reserved) == unlimited
    assert unlimited.retries == 0


@BOTH
@given(events=logs())
def test_once_all_is_freed_and_the_cache_emptied_nothing_is_held(
    expandable: bool, events: list[Event]
) -> None:
    everything = smallest_capacity(events, expandable=expandable)
    whole = (ALLOC, 1000, everything // (20 * MIB) * 20 * MIB)
    again = [*events, (EMPTY_CACHE, 0, 0), whole]
    assert replay(again, capacity=everything, expandable=expandable).peak_reserved <= everything
