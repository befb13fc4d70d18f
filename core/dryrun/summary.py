"""What a log of allocations says: peaks, what holds them, and what the allocator makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.dryrun.tracker import Tracker
from core.memory.allocator import ALLOC, FREE, Event, replay, smallest_capacity
from core.memory.forecast import CATEGORIES, Category, Moment


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest sum of what was allocated at once, in bytes."""

    size: int
    parts: dict[Category, int]
    moment: Moment
    update: int
    moments: dict[Moment, int]
    """The largest sum within each moment of the run."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the caching allocator needs, in bytes."""

    allocated: int
    reserved: int
    needed: int


def peak(tracker: Tracker) -> Peak:
    """The peak of a run that has been logged."""
    events = tracker.events
    sizes: dict[int, int] = {}
    live = largest = at = 0
    moments: dict[Moment, int] = {}
    where: tuple[Moment, int] = ("load", 0)
    for (start, moment, update), end in _spans(tracker.marks, len(events)):
        high = live
        for index in range(start, end):
            kind, number, size = events[index]
            if kind == ALLOC:
                sizes[number] = size
                live += size
                if live > high:
                    high = live
                    if live > largest:
                        largest, at, where = live, index, (moment, update)
            elif kind == FREE:
                live -= sizes.get(number, 0)
        moments[moment] = max(moments.get(moment, 0), high)
    parts = _parts(events[: at + 1], tracker.categories)
    return Peak(largest, parts, *where, moments)


def _spans(
    marks: Sequence[tuple[int, Moment, int]], end: int
) -> list[tuple[tuple[int, Moment, int], int]]:
    ends = [mark[0] for mark in marks[1:]] + [end]
    return list(zip(marks, ends, strict=True))


def _parts(events: Sequence[Event], categories: Mapping[int, Category]) -> dict[Category, int]:
    live: dict[int, int] = {}
    for kind, number, size in events:
        if kind == ALLOC:
            live[number] = size
        elif kind == FREE:
            live.pop(number, None)
    parts = dict.fromkeys(CATEGORIES, 0)
    for number, size in live.items():
        parts[categories[number]] += size
    return parts


def demand(tracker: Tracker, *, expandable: bool) -> Demand:
    """What a run that has been logged takes of a device."""
    usage = replay(tracker.events, expandable=expandable)
    return Demand(
        usage.peak_allocated,
        usage.peak_reserved,
        smallest_capacity(tracker.events, expandable=expandable),
    )
