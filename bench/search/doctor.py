"""What the doctor says of recorded learning curves: `python -m bench doctor DIR`.

DIR holds tasks as *.json.gz: lists of runs with the losses `train`, `valid` and `test` at equal distances, null where a
run had diverged. It should be silent about runs that learn well, say "diverging" of those that diverged, and not change
its mind while a run goes on.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from core.doctor import Finding, RunFacts, diagnose
from core.study.metrics import Point

LEARNT = 0.95
"""A run has learnt where its last validation loss is below this share of its first and of the loss of guessing."""

GUESSING = math.log(2)
"""Of the recorded tasks, which decide between two classes."""

BEST = 0.2
PREFIXES = 25
"""Every so many-th run is judged at each of its points, to see whether the doctor changes its mind."""


@dataclass(frozen=True, slots=True)
class Run:
    points: list[Point]
    facts: RunFacts
    valid: float
    """The last validation loss; infinite where the run diverged."""
    learnt: bool
    diverged: bool


def load(path: Path) -> list[Run]:
    """The runs of a task.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [_run(entry) for entry in json.load(file)]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m bench doctor DIR (a folder of recorded curves)", file=sys.stderr)
        return 2
    paths = sorted(Path(arguments[0]).glob("*.json.gz"))
    if not paths:
        print(f"no curves (*.json.gz) in {arguments[0]}", file=sys.stderr)
        return 2
    print(
        f"{'task':44s} {'best 20 %':>9s} {'learnt':>7s} {'false alarms':>13s} {'diverged':>9s} {'said so':>8s} "
        f"{'changes of mind':>16s} {'ms':>6s}"
    )
    total = _Tally()
    for path in paths:
        tally = _judge(load(path))
        print(tally.line(path.name.removesuffix(".json.gz")), flush=True)
        total.add(tally)
    print(total.line("all"))
    print("what was said of the best that learnt: " + _words(total.alarms))
    print("what was said of the other best ones:  " + _words(total.flat))
    print("what was said of those that diverged:  " + _words(total.lost))
    print("what was said of all others:           " + _words(total.others))
    return 0


class _Tally:
    """What the doctor said of some runs."""

    def __init__(self) -> None:
        self.best = 0
        self.learnt = 0
        self.diverged = 0
        self.runs = 0
        self.seconds = 0.0
        self.followed = 0
        self.changes = 0
        self.alarms: Counter[str] = Counter()
        self.flat: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def add(self, other: _Tally) -> None:
        for name in ("best", "learnt", "diverged", "runs", "followed", "changes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        for name in ("alarms", "flat", "lost", "others"):
            getattr(self, name).update(getattr(other, name))

    def line(self, name: str) -> str:
        false = sum(n for kind, n in self.alarms.items() if kind != "silent")
        said = self.lost["diverging"] + self.lost["not_learning"]
        return (
            f"{name:44s} {self.best:9d} {self.learnt:7d} {_share(false, self.learnt):>13s} {self.diverged:9d} "
            f"{_share(said, self.diverged):>8s} {f'{self.changes} of {self.followed}':>16s} "
            f"{1000 * self.seconds / max(1, self.runs):6.1f}"
        )


def _judge(runs: list[Run]) -> _Tally:
    tally = _Tally()
    ordered = sorted(runs, key=lambda run: run.valid)
    for place, run in enumerate(ordered):
        began = time.perf_counter()
        said = _kind(diagnose(run.points, run.facts))
        tally.seconds += time.perf_counter() - began
        tally.runs += 1
        best = place < BEST * len(ordered)
        tally.best += best
        if run.diverged:
            tally.diverged += 1
            tally.lost[said] += 1
        elif best and run.learnt:
            tally.learnt += 1
            tally.alarms[said] += 1
        elif best:
            tally.flat[said] += 1
        else:
            tally.others[said] += 1
        if place % PREFIXES == 0:
            tally.followed += 1
            tally.changes += _changes(run)
    return tally


def _changes(run: Run) -> int:
    """How often the doctor takes back a finding for another or for none while the run goes on, or ends a silence with
    what it said before."""
    facts = RunFacts(total_steps=run.facts.total_steps, learning_rate=run.facts.learning_rate)
    told = [_kind(diagnose(run.points[:n], facts)) for n in range(1, len(run.points) + 1)]
    return sum(a not in ("silent", b) for a, b in pairwise(told))


def _run(entry: dict[str, Any]) -> Run:
    train, valid = (
        [math.nan if v is None else float(v) for v in entry[split]["loss"]]
        for split in ("train", "valid")
    )
    points = []
    for step, (loss, seen) in enumerate(zip(train, valid, strict=True), 1):
        points.append(Point(t=float(step), step=step, loss=loss))
        points.append(Point(t=float(step), step=step, eval_loss=seen))
        if not math.isfinite(loss):
            break
    finite = all(map(math.isfinite, train)) and all(map(math.isfinite, valid))
    exploded = not finite or train[-1] > 2 * train[0]
    last = math.inf if exploded else valid[-1]
    return Run(
        points,
        RunFacts(
            total_steps=len(train),
            learning_rate=float(entry["hp"]["learning_rate"]),
            finetuning_type="full",
            ended=True,
        ),
        last,
        learnt=last < LEARNT * min(valid[0], GUESSING),
        diverged=exploded,
    )


def _kind(finding: Finding | None) -> str:
    return finding.kind if finding is not None else "silent"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in counts.most_common()) or "nothing"
