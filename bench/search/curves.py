"""Recorded learning curves, and draws of trials from them with failures put in.

A file holds the runs of one task: a list of {"hp": {"learning_rate": …}, "valid": {"loss": […]}, "test": {"loss": […]}}
with checkpoints at equal distances over one training, the first of them before it. A number that is null or NaN: the
run has diverged there, and what comes after it counts for nothing.
"""

import gzip
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAN_SHARE = 0.05
"""So many of the drawn trials diverge at a random checkpoint."""
OOM_SHARE = 0.05
"""So many run out of memory at once and cost nothing."""


class CurvesError(Exception):
    """There are no curves where they were said to be."""


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded training.

    `setting`: says which settings it ran, the same in every task that ran them. `valid`: validation loss at the
    checkpoints after the start, nats, up to the one before it diverged. `test`: loss at the end, nats; None where it
    did not come to it.
    """

    setting: str
    learning_rate: float | None
    valid: tuple[float, ...]
    test: float | None


@dataclass(frozen=True, slots=True)
class Task:
    """`checkpoints`: how many a whole training has, without the one before it."""

    name: str
    checkpoints: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A trial of a draw: `run` as far as its `valid` goes; `cost`: checkpoints that it trains for before it ends."""

    run: Run
    valid: tuple[float, ...]
    cost: int
    whole: int
    """Checkpoints of a whole training."""

    @property
    def finishes(self) -> bool:
        """Whether it runs to the end."""
        return len(self.valid) == self.whole


def read(places: Sequence[Path]) -> list[Task]:
    """The tasks in files, or in all `*.json` and `*.json.gz` of folders, in the order of their names.

    Raises:
        CurvesError: nothing is there, or it is something else.
    """
    files: list[Path] = []
    for place in places:
        found = [place] if not place.is_dir() else [*place.glob("*.json"), *place.glob("*.json.gz")]
        if not found:
            raise CurvesError(f"{place} has no files *.json or *.json.gz with learning curves")
        files += found
    return [_task(file) for file in sorted(files, key=lambda f: f.name)]


def _task(file: Path) -> Task:
    try:
        raw = file.read_bytes()
        document = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
        runs = tuple(_run(entry) for entry in document)
        checkpoints = max(len(entry["valid"]["loss"]) for entry in document) - 1
    except OSError as error:
        raise CurvesError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise CurvesError(f"{file} holds no learning curves: {error!r}") from None
    return Task(file.name.removesuffix(".gz").removesuffix(".json"), checkpoints, runs)


def _run(entry: dict[str, Any]) -> Run:
    settings, test = entry["hp"], _number(entry["test"]["loss"][-1])
    rate = settings.get("learning_rate")
    valid: list[float] = []
    for value in map(_number, entry["valid"]["loss"][1:]):
        if value is None:
            break
        valid.append(value)
    return Run(json.dumps(settings, sort_keys=True), rate, tuple(valid), test)


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def draw(task: Task, count: int, seed: str) -> list[Drawn]:
    """`count` different runs of a task, some of which diverge early or run out of memory."""
    chance = random.Random(seed)
    drawn = chance.sample(task.runs, min(count, len(task.runs)))
    return [_spoiled(run, task.checkpoints, chance) for run in drawn]


def _spoiled(run: Run, whole: int, chance: random.Random) -> Drawn:
    fate = chance.random()
    last = len(run.valid) if run.test is not None else min(len(run.valid), whole - 1)
    if fate < NAN_SHARE:
        last = min(last, chance.randrange(whole))
    elif fate < NAN_SHARE + OOM_SHARE:
        return Drawn(run, (), 0, whole)
    return Drawn(run, run.valid[:last], min(last + 1, whole), whole)


def noisy(drawn: Iterable[Drawn], sigma: float, seed: str) -> list[Drawn]:
    """The same with Gaussian noise of `sigma` nats on every evaluation, as of a small evaluation set."""
    chance = random.Random(seed)
    return [
        Drawn(d.run, tuple(v + chance.gauss(0, sigma) for v in d.valid), d.cost, d.whole)
        for d in drawn
    ]
