"""What the portfolio's first learning rates cost against one fixed rate, on a published sweep of LoRA runs.

    python -m bench rates lora-lr-sweep.csv

A cell is a model at one LoRA rank. Its *regret* at some rates is how much higher the test loss of the best of them is
than that of the best run of the cell, in nats. A rate that a cell did not run is read between its neighbours, linearly
in the logarithm of the rate, and not at all outside of them. Cells with fewer than three runs are left out.

The second table is made without the model that it is measured on: for each model the rates are ranked anew from the
others of its size, greedily by their mean regret.
"""

import argparse
import csv
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.params import DataTable, ModelTable
from core.profile import Profile
from core.search.portfolio import LARGE, SMALL, known_good, size_in_name

FEWEST_RUNS = 3
FIXED = (1e-4, 3e-4)
CANDIDATES = (4e-5, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 1e-3)
"""The rates that a ranking is made of: those that the sweep ran below 2e-3, and the cap of large models."""
CAP = 5e-4
"""No rate above it is ranked for large models."""
MOST = 3
KNOWN_IN = 0.75
"""A rate is ranked only where it can be read in this share of the cells."""

Cell = Mapping[float, float]
"""Learning rate → test loss, nats."""


@dataclass(frozen=True, slots=True)
class Regrets:
    """Regrets of one way to choose rates, over cells."""

    label: str
    values: tuple[float, ...]

    def line(self) -> str:
        """Mean and 90th percentile as a row of a table."""
        ordered = sorted(self.values)
        p90 = ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)) - 1)]
        return f"  {self.label:<44}{statistics.fmean(ordered):>9.4f}{p90:>9.4f}{len(ordered):>7}"


def main(argv: Sequence[str]) -> int:
    """Print the tables for the sweep named on the command line; 2 where the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m bench rates", description=__doc__)
    parser.add_argument("csv", type=Path, help="the sweep: model, LR, LoRA Rank, Test NLL")
    path: Path = parser.parse_args(argv).csv
    try:
        cells = read_cells(path)
    except (OSError, KeyError, ValueError) as error:
        print(f"{path} is no sweep of learning rates: {error}")
        return 2
    print(f"{len(cells)} cells of {len({model for model, _ in cells})} models, regret in nats")
    print(f"  {'':<44}{'mean':>9}{'p90':>9}{'cells':>7}")
    for row in (*fixed(cells), *shipped(cells)):
        print(row.line())
    print("ranked without the model that it is measured on, by size of model")
    rows, lists = left_out(cells, size_class)
    for row in rows:
        print(row.line())
    for (group, rates), count in sorted(lists.items(), key=lambda item: (item[0][0], -item[1])):
        print(f"    {group}: {', '.join(f'{r:g}' for r in rates)} in {count} cells")
    print("the same, all sizes in one")
    for row in left_out(cells, lambda _: "any")[0]:
        print(row.line())
    return 0


def read_cells(path: Path) -> dict[tuple[str, int], Cell]:
    """(model, rank) → its runs, where there are enough of them.

    Raises:
        OSError: the file cannot be read.
        KeyError, ValueError: it is another kind of file.
    """
    cells: dict[tuple[str, int], dict[float, float]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            loss = float(row["Test NLL"])
            if math.isfinite(loss):
                cells[row["model"], int(row["LoRA Rank"])][float(row["LR"])] = loss
    return {key: cell for key, cell in cells.items() if len(cell) >= FEWEST_RUNS}


def loss_at(cell: Cell, rate: float) -> float | None:
    """The loss of a cell at `rate`, read between its neighbours; None outside of what it ran."""
    if rate in cell:
        return cell[rate]
    below = max((r for r in cell if r < rate), default=None)
    above = min((r for r in cell if r > rate), default=None)
    if below is None or above is None:
        return None
    share = math.log(rate / below) / math.log(above / below)
    return cell[below] * (1 - share) + cell[above] * share


def regret(cell: Cell, rates: Sequence[float]) -> float | None:
    """How far the best of `rates` is from the best run of the cell; None where none of them can be read."""
    losses = [loss for rate in rates if (loss := loss_at(cell, rate)) is not None]
    return min(losses) - min(cell.values()) if losses else None


def fixed(cells: Mapping[tuple[str, int], Cell]) -> list[Regrets]:
    """One rate for everything."""
    models = {model for model, _ in cells}
    return [_over(cells, f"always {rate:g}", dict.fromkeys(models, (rate,))) for rate in FIXED]


def shipped(cells: Mapping[tuple[str, int], Cell]) -> list[Regrets]:
    """The first rates of the list that tunedeck knows for each model by its name."""
    lists = {model: _known(model) for model, _ in cells}
    return _firsts(cells, "the portfolio's first", lists)


def left_out(
    cells: Mapping[tuple[str, int], Cell], group: Callable[[str], str]
) -> tuple[list[Regrets], Counter[tuple[str, tuple[float, ...]]]]:
    """Rates ranked for each model from the others of its group, and how often which list came out."""
    models = {model for model, _ in cells}
    lists = {}
    for model in models:
        others = [c for (m, _), c in cells.items() if m != model and group(m) == group(model)]
        lists[model] = ranked(others, CAP if size_class(model) == "large" else math.inf)
    rows = _firsts(cells, "first", lists)
    return rows, Counter((group(model), lists[model]) for model, _ in cells)


def _firsts(
    cells: Mapping[tuple[str, int], Cell], label: str, lists: Mapping[str, tuple[float, ...]]
) -> list[Regrets]:
    return [
        _over(cells, f"{label} {n}", {model: rates[:n] for model, rates in lists.items()})
        for n in range(1, MOST + 1)
    ]


def ranked(cells: Sequence[Cell], cap: float = math.inf) -> tuple[float, ...]:
    """Each rate is the one that lowers the mean regret most beside those before it."""
    chosen: tuple[float, ...] = ()
    for _ in range(MOST):
        scores = {}
        for rate in CANDIDATES:
            found = [r for c in cells if (r := regret(c, (*chosen, rate))) is not None]
            known = sum(loss_at(c, rate) is not None for c in cells)
            if rate <= cap and rate not in chosen and known >= KNOWN_IN * len(cells):
                scores[rate] = statistics.fmean(found)
        if not scores:
            break
        chosen = (*chosen, min(scores, key=lambda rate: scores[rate]))
    return chosen


def size_class(model: str) -> str:
    """The class of sizes that the portfolio puts a model into."""
    size = size_in_name(model)
    if size is None or SMALL <= size <= LARGE:
        return "middle or unknown"
    return "small" if size < SMALL else "large"


def _known(model: str) -> tuple[float, ...]:
    profile = Profile(model=ModelTable(model_name_or_path=model), data=DataTable(dataset="demo"))
    return tuple(float(good.values["learning_rate"]) for good in known_good(profile))


def _over(
    cells: Mapping[tuple[str, int], Cell], label: str, rates: Mapping[str, Sequence[float]]
) -> Regrets:
    found = [regret(cell, rates[model]) for (model, _), cell in cells.items()]
    return Regrets(label, tuple(value for value in found if value is not None))
