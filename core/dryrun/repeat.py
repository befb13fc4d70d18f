"""A second update in a log that holds the first: its passes allocate and free what the first's did."""

from core.dryrun.tracker import Tracker
from core.memory.allocator import ALLOC, FREE, Event


def repeat_passes(tracker: Tracker, passes: tuple[int, int], step: int, release: int) -> None:
    """Write a second update's forward and backward passes into a log that has the steps of both updates.

    `passes` are where the events of the first update's begin and end, `step` where those of the second step begin, and
    `release` where, up to the log's end, gradients are freed. They are freed before the second passes then, and again
    after the second step. What the first passes left behind for good stays; all else is allocated anew.
    """
    start, end = passes
    events, marks = tracker.events, tracker.marks
    freed = {number for kind, number, _ in events[start:] if kind == FREE}
    allocated = [n for kind, n, _ in events[start:end] if kind == ALLOC and n in freed]
    anew = {number: tracker.next + place for place, number in enumerate(allocated)}
    tracker.next += len(anew)
    tracker.categories |= {new: tracker.categories[old] for old, new in anew.items()}

    def again(part: list[Event]) -> list[Event]:
        return [(kind, anew[number], size) for kind, number, size in part if number in anew]

    released = events[release:]
    begin = step + len(released)
    second = again(events[start:end])
    began = [
        (begin + len(again(events[start:at])), moment, 2)
        for at, moment, _ in marks
        if start <= at < end
    ]
    stepped = [(begin + len(second), moment, update) for at, moment, update in marks if at >= step]
    marks[:] = [mark for mark in marks if mark[0] < step] + began + stepped
    events[:] = [
        *events[:step], *released,
        *second,
        *events[step:release], *again(events[end:release]), *again(released),
    ]  # fmt: skip
