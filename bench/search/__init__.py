"""How well searches stop early, on recorded learning curves: python -m bench search DIR_OR_FILES [--variants]

Each draw takes N runs of a task as the trials of a search; 5 % of them diverge at a random checkpoint and 5 % run out
of memory at once. Validation loss selects, and the test loss of the trial that a strategy names judges it. Our
strategies run through the decisions that the engine carries out (core.search.halving), baselines beside them; pruners
are Optuna's own.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.search.curves import CurvesError, Drawn, Task, read
from bench.search.left_out import left_out
from bench.search.measure import CLOSE, Row, Strategy, draws_of, fixed, measure, nearest

CURVES = "TUNEDECK_CURVES"
"""Names folders or files of curves where the command line names none."""
COUNTS = (8, 16, 32)
DRAWS = 200
GOALS: Mapping[int, tuple[float, float]] = {32: (0.96, 0.20), 16: (0.93, 0.24)}
"""Trials → the share of draws that end close to the best at least, and the cost at most."""
SIGMAS = (0.002, 0.005, 0.01)
"""Nats of noise put on evaluations."""

Draws = Sequence[Sequence[Sequence[Drawn]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 1 where a goal is missed, 2 where there are no curves."""
    parser = argparse.ArgumentParser(prog="python -m bench search", description=__doc__)
    parser.add_argument("curves", nargs="*", type=Path, help=f"folders or files; else ${CURVES}")
    parser.add_argument("--draws", type=int, default=DRAWS, help="draws a task (%(default)s)")
    parser.add_argument("--trials", type=int, nargs="+", default=list(COUNTS), help="sizes")
    parser.add_argument("--variants", action="store_true", help="what was tried for the rule")
    parser.add_argument(
        "--left-out", action="store_true", help="the rule's constants chosen on all other tasks"
    )
    given = parser.parse_args(argv)
    named = [Path(p) for p in os.environ.get(CURVES, "").split(os.pathsep) if p]
    places: list[Path] = given.curves or named
    if not places:
        print(f"name a folder with recorded learning curves, or set {CURVES}", file=sys.stderr)
        return 2
    try:
        tasks = read(places)
    except CurvesError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{len(tasks)} tasks, {given.draws} draws each; costs are shares of training all trials whole"
    )
    print(
        f"regret: nats of test loss above the lowest drawn; best: how often within {CLOSE} of it;"
    )
    print(
        f"all: how often within {CLOSE} of the trial that running all would name, judged on test;"
    )
    print("validation loss selects; on the right, each figure of the task where it is worst")
    if given.left_out:
        return left_out(tasks, given.draws)
    run: Callable[[Sequence[Task], int, int], bool] = _variants if given.variants else _compare
    good = [run(tasks, count, given.draws) for count in given.trials]
    return 0 if all(good) else 1


def _compare(tasks: Sequence[Task], count: int, times: int) -> bool:
    from bench.search import baselines, strategies
    from core.search.cost import expected_share
    from core.search.halving import HalvingSettings

    draws = [draws_of(task, count, times) for task in tasks]
    print(_head(count))
    ours = [
        _shown(measure("halving", strategies.halving, draws)),
        _shown(measure(f"asha, {strategies.GPUS} GPUs", strategies.asha, draws)),
    ]
    _shown(measure("textbook halving", baselines.textbook_halving, draws))
    everything = _shown(measure("run all", baselines.run_all, draws))
    _shown(measure("median stopping (Optuna)", baselines.median_stopping, draws))
    _shown(measure("stopping-ASHA (Optuna)", baselines.stopping_asha, draws))
    top = [_shown(_top(3, draws))]
    rates, chosen = baselines.fixed_rates(tasks), baselines.fixed_settings(tasks)
    if len(rates) == len(tasks):
        _shown(nearest("one fixed rate: the nearest drawn", [rates[t.name] for t in tasks], draws))
    if len(chosen) == len(tasks):
        _shown(fixed("one fixed setting of all", [chosen[t.name] for t in tasks], draws))
    expected = expected_share(HalvingSettings(), "halving", count)
    print(f"  expected cost of halving, failures left out: {expected:.1%}")
    return _goals(count, ours, top, draws, everything)


def _goals(count: int, ours: Sequence[Row], top: list[Row], draws: Draws, everything: Row) -> bool:
    """Print which goals are reached; whether all are.

    "Close" is to the lowest test loss of all that were drawn. Who selects by validation cannot always tell which trial
    that is, not even after running all: what that comes to stands beside the goal.
    """
    good = []
    if count in GOALS:
        close, cost = GOALS[count]
        mean = ours[0].mean
        said = f"close to the best drawn: {mean.best:.1%}, wanted {close:.0%}"
        good.append(_said(mean.best >= close, f"{said}; running all: {everything.mean.best:.1%}"))
        good.append(_said(mean.cost <= cost, f"cost: {mean.cost:.1%}, wanted at most {cost:.0%}"))
    for row in ours:
        while top[-1].mean.cost < row.mean.cost and len(top) + 2 < count:
            top.append(_top(len(top) + 3, draws))
        at_its_cost = next((t for t in top if t.mean.cost >= row.mean.cost), top[-1])
        rivals = [top[0]] if at_its_cost is top[0] else [top[0], at_its_cost]
        good += [_no_worse(row, rival) for rival in rivals]
    return all(good)


def _no_worse(row: Row, rival: Row) -> bool:
    mine, other = row.mean, rival.mean
    return _said(
        mine.best >= other.best and mine.regret <= other.regret,
        f"{row.name}: {mine.best:.1%} close, regret {mine.regret:.4f} at a cost of {mine.cost:.1%}; "
        f"{rival.name}: {other.best:.1%}, {other.regret:.4f}, {other.cost:.1%}",
    )


def _variants(tasks: Sequence[Task], count: int, times: int) -> bool:
    from bench.search import baselines, strategies

    draws = [draws_of(task, count, times) for task in tasks]
    print(_head(count))
    tried: dict[str, Strategy] = {
        **strategies.variants(),
        "textbook halving": baselines.textbook_halving,
        "run all": baselines.run_all,
        "run all, named by its last three evaluations": strategies.all_by_last_three,
    }
    for name, strategy in tried.items():
        _shown(measure(name, strategy, draws))
    for sigma in SIGMAS:
        for name in ("the rule", "textbook halving", "run all"):
            noisy = strategies.noised(tried[name], sigma)
            _shown(measure(f"{name}, noise of {sigma:g}", noisy, draws))
    return True


def _top(keep: int, draws: Draws) -> Row:
    from bench.search.baselines import top_at_a_tenth

    return measure(f"top-{keep} at 10 %", partial(top_at_a_tenth, keep=keep), draws)


def _head(count: int) -> str:
    names = "".join(f"{name:>8}" for name in ("cost", "regret", "best", "all"))
    return f"\n{f'{count} trials':<50}{names}   worst: {names}"


def _shown(row: Row) -> Row:
    figures = [
        f"{100 * r.cost:>6.1f} %{r.regret:>8.4f}{100 * r.best:>6.1f} %{100 * r.all:>6.1f} %"
        for r in (row.mean, row.worst)
    ]
    print(f"  {row.name:<48}{figures[0]}          {figures[1]}", flush=True)
    return row


def _said(good: bool, text: str) -> bool:
    print(f"  {'reached' if good else 'MISSED '}  {text}")
    return good
