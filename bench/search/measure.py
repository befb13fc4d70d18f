"""What strategies come to on draws of recorded trials: cost, regret, how often the best or nearly the best is named."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.search.baselines import best_of
from bench.search.curves import Drawn, Task, draw
from bench.search.simulate import Outcome

CLOSE = 0.01
"""Nats that hardly matter."""
RUINED = 1.0
"""No regret counts for more nats: a trial that exploded without becoming NaN would drown all others in the mean."""

Strategy = Callable[[Sequence[Drawn]], Outcome]


@dataclass(frozen=True, slots=True)
class Result:
    """Means over draws, all but `regret` as shares in [0, 1].

    `cost`: of training all trials whole. `regret`: test loss of the named trial above the lowest one drawn, nats, at
    most `RUINED` a draw.
    `best`: how often that is within `CLOSE`. `all`: how often its test loss is within `CLOSE` of that of the trial that
    running all would name, which is the best that anyone can tell by validation.
    """

    cost: float
    regret: float
    best: float
    all: float


@dataclass(frozen=True, slots=True)
class Row:
    """A strategy's results, by task."""

    name: str
    tasks: tuple[Result, ...]

    @property
    def mean(self) -> Result:
        """The mean over tasks."""
        return _mean(self.tasks)

    @property
    def worst(self) -> Result:
        """Each figure of the task where it is worst."""
        return Result(
            max(t.cost for t in self.tasks),
            max(t.regret for t in self.tasks),
            min(t.best for t in self.tasks),
            min(t.all for t in self.tasks),
        )


def draws_of(task: Task, count: int, times: int) -> list[list[Drawn]]:
    """The same draws each time that they are asked for; those of which no trial finishes are left out."""
    found = (draw(task, count, f"{task.name} {count} {n}") for n in range(times))
    return [drawn for drawn in found if any(d.finishes for d in drawn)]


def measure(name: str, strategy: Strategy, draws: Sequence[Sequence[Sequence[Drawn]]]) -> Row:
    """Run a strategy on the draws of each task."""
    return Row(name, tuple(_mean([judge(strategy(d), d) for d in task]) for task in draws))


def fixed(
    name: str, losses: Sequence[float | None], draws: Sequence[Sequence[Sequence[Drawn]]]
) -> Row:
    """One whole training with a setting chosen beforehand: its test loss for each task, None where it diverged."""
    return Row(
        name,
        tuple(
            _mean([_judged(1 / len(d), loss, d) for d in task])
            for loss, task in zip(losses, draws, strict=True)
        ),
    )


def nearest(name: str, rates: Sequence[float], draws: Sequence[Sequence[Sequence[Drawn]]]) -> Row:
    """The one drawn trial whose learning rate is nearest to a rate chosen beforehand for each task."""

    def run(rate: float, drawn: Sequence[Drawn]) -> Outcome:
        def away(number: int) -> float:
            own = drawn[number].run.learning_rate
            return abs(math.log(own / rate)) if own else math.inf

        number = min(range(len(drawn)), key=away)
        trial = drawn[number]
        return Outcome(trial.cost / trial.whole, number if trial.finishes else None)

    return Row(
        name,
        tuple(
            _mean([judge(run(rate, d), d) for d in task])
            for rate, task in zip(rates, draws, strict=True)
        ),
    )


def judge(outcome: Outcome, drawn: Sequence[Drawn]) -> Result:
    """An outcome against what running all would have found."""
    loss = None if outcome.named is None else drawn[outcome.named].run.test
    return _judged(outcome.cost / len(drawn), loss, drawn)


def _judged(cost: float, loss: float | None, drawn: Sequence[Drawn]) -> Result:
    losses = dict(_finals(drawn))
    lowest = min(losses.values())
    by_all = best_of(drawn, list(losses))
    reachable = lowest if by_all is None else losses[by_all]
    if loss is None:
        # Nothing to show for the money: as bad as the worst that finishes.
        return Result(cost, min(RUINED, max(losses.values()) - lowest), 0.0, 0.0)
    regret = loss - lowest
    return Result(
        cost, min(RUINED, regret), float(regret <= CLOSE), float(loss - reachable <= CLOSE)
    )


def _finals(drawn: Sequence[Drawn]) -> Iterator[tuple[int, float]]:
    for number, trial in enumerate(drawn):
        if trial.finishes and trial.run.test is not None:
            yield number, trial.run.test


def _mean(results: Sequence[Result]) -> Result:
    return Result(
        statistics.fmean(r.cost for r in results),
        statistics.fmean(r.regret for r in results),
        statistics.fmean(r.best for r in results),
        statistics.fmean(r.all for r in results),
    )
