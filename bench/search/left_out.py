"""How the rule does on tasks that had no say in its constants."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from bench.search.curves import Task
from bench.search.measure import Result, draws_of, measure
from core.search.halving import HalvingSettings

PACES = (0.15, 0.2, 0.25, 0.3, 0.35)
PACE_GROWTHS = (0.0, 0.5, 1.0)
MOST = {16: 0.235, 32: 0.195}
"""Trials → the most that the constants may cost on the tasks that choose them: half a point below the goals."""

Table = Mapping[HalvingSettings, Mapping[int, Sequence[Result]]]
"""Constants → trials → results by task."""


def left_out(tasks: Sequence[Task], times: int) -> int:
    """For each task, choose the constants on all others, and print what they come to on it; 2 with fewer than two."""
    if len(tasks) < 2:
        print("one task cannot be left out of one: name more", file=sys.stderr)
        return 2
    table = _table(tasks, times)
    found: dict[int, list[Result]] = {count: [] for count in MOST}
    for place, task in enumerate(tasks):
        chosen = _choose(table, [p for p in range(len(tasks)) if p != place])
        print(f"  {task.name}: pace {chosen.pace:g}, growing with trials^{chosen.pace_growth:g}")
        for count, results in found.items():
            results.append(table[chosen][count][place])
            print(f"    {_line(count, results[-1:])}")
    print("  mean over the tasks left out")
    for count, results in found.items():
        print(f"    {_line(count, results)}")
    return 0


def _table(tasks: Sequence[Task], times: int) -> Table:
    from bench.search.strategies import halving

    draws = {count: [draws_of(task, count, times) for task in tasks] for count in MOST}
    every = [HalvingSettings(pace=p, pace_growth=g) for p, g in product(PACES, PACE_GROWTHS)]
    return {
        settings: {
            count: measure("", partial(halving, settings=settings), drawn).tasks
            for count, drawn in draws.items()
        }
        for settings in every
    }


def _choose(table: Table, places: Sequence[int]) -> HalvingSettings:
    """What is closest to the best on some tasks of all that is cheap enough there, else what is cheapest."""

    def means(settings: HalvingSettings, figure: str) -> dict[int, float]:
        return {
            count: statistics.fmean(getattr(results[p], figure) for p in places)
            for count, results in table[settings].items()
        }

    cheap = [s for s in table if all(c <= MOST[n] for n, c in means(s, "cost").items())]
    if not cheap:
        return min(table, key=lambda s: sum(means(s, "cost").values()))
    return max(cheap, key=lambda s: sum(means(s, "best").values()))


def _line(count: int, results: Sequence[Result]) -> str:
    cost, best, by_all = (
        statistics.fmean(f) for f in zip(*((r.cost, r.best, r.all) for r in results), strict=True)
    )
    close = f"close to the best drawn {best:.1%}, to what running all would name {by_all:.1%}"
    return f"{count} trials: cost {cost:.1%}, {close}"
