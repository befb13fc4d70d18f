"""The engine in small: trials that run, wait at rungs, and are sent on or dropped by the decisions of core.search.

Trials of a draw run on so many GPUs at once, all equally fast; a rung lies at the first checkpoint at or after its
share. A trial is evaluated where the worker of the engine does it: at the tenths of the probe, at every rung that it is
sent to, and a third of the way to the first rung. A rule sees no other checkpoint.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.search.curves import Drawn
from core.search.halving import Decision, Entrant, EntrantState
from core.search.metric import METRICS
from core.search.ranking import Candidate, rank
from core.search.smoothing import jitter

REGULAR = 10
"""How often a worker evaluates over a probe, besides at rungs."""
JITTERING = 7
"""The last evaluations whose jitter is a trial's noise, as in `core.search.metric.noise_of`."""

Rule = Callable[[Sequence[Entrant], int], Decision | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy came to on a draw: `cost` in whole trainings, and the place of the trial that it names."""

    cost: float
    named: int | None


class Engine:
    """One draw under one rule.

    `first`: where all are sent first. `looks`: shares at which trials are evaluated besides. `regular`: how often they
    are evaluated anyway. `gpus`: how many trials run at once; None for all of them. `last`: of the trials that finish,
    the one is named whose mean over so many last evaluations is lowest. `ties`: name it as the engine's ranking does:
    what a curve's own jitter explains is a tie, which the lower rate wins.
    """

    def __init__(
        self,
        drawn: Sequence[Drawn],
        rule: Rule,
        first: float,
        *,
        looks: Sequence[float] = (),
        regular: int = REGULAR,
        gpus: int | None = None,
        last: int = 1,
        ties: bool = False,
    ) -> None:
        self._last, self._ties = last, ties
        self._rule, self._gpus, self._whole = rule, gpus or len(drawn), drawn[0].whole
        always = {self._at(k / regular) for k in range(1, regular + 1)} | {self._whole}
        always |= {self._at(look) for look in looks}
        self._trials = [_Trial(d, n, first, set(always)) for n, d in enumerate(drawn)]
        self._cost = 0

    def run(self) -> Outcome:
        """Run until nothing is left to run or to decide.

        Raises:
            RuntimeError: the rule leaves trials waiting for nothing.
        """
        queue = list(self._trials)
        running: list[tuple[int, int, _Trial]] = []
        clock = 0
        while True:
            while queue and len(running) < self._gpus:
                trial = queue.pop(0)
                heapq.heappush(running, (clock + self._steps(trial), trial.number, trial))
            if running:
                clock = running[0][0]
            while running and running[0][0] == clock:
                self._arrive(heapq.heappop(running)[2])
            decision = self._rule([t.entrant() for t in self._trials], 0)
            if decision is not None:
                queue = [*self._apply(decision), *queue]
            elif not running and not queue:
                break
        if any(t.state == "rung" for t in self._trials):
            raise RuntimeError("trials wait at a rung, none is on the way, and nothing is decided")
        done = [t for t in self._trials if t.state == "done"]
        return Outcome(self._cost / self._whole, self._named(done) if done else None)

    def _at(self, share: float) -> int:
        """The first checkpoint at or after a share of the probe."""
        return max(1, math.ceil(share * self._whole - 1e-6))

    def _steps(self, trial: _Trial) -> int:
        """How many checkpoints a trial trains for on its way to where it is sent."""
        target = self._at(trial.until)
        trial.evaluated.add(target)
        return (target if len(trial.drawn.valid) >= target else trial.drawn.cost) - trial.passed

    def _arrive(self, trial: _Trial) -> None:
        target = self._at(trial.until)
        self._cost += self._steps(trial)
        survived = len(trial.drawn.valid) >= target
        now = target if survived else len(trial.drawn.valid)
        trial.curve += [
            (c / self._whole, trial.drawn.valid[c - 1])
            for c in sorted(trial.evaluated)
            if trial.passed < c <= now
        ]
        trial.passed = target if survived else trial.drawn.cost
        trial.state = ("done" if target == self._whole else "rung") if survived else "out"

    def _apply(self, decision: Decision) -> list[_Trial]:
        for number in decision.dropped:
            self._trials[number].state = "pruned"
        for number, until in decision.kept.items():
            self._trials[number].state, self._trials[number].until = "open", until
        return [self._trials[number] for number in sorted(decision.kept)]

    def _named(self, done: Sequence[_Trial]) -> int:
        if not self._ties:
            return min(done, key=self._final).number
        return rank([trial.candidate() for trial in done], METRICS["eval_loss"])[0].trial

    def _final(self, trial: _Trial) -> tuple[float, float]:
        rate = trial.drawn.run.learning_rate
        value = statistics.fmean(value for _, value in trial.curve[-self._last :])
        return value, math.inf if rate is None else rate


@dataclass(slots=True)
class _Trial:
    drawn: Drawn
    number: int
    until: float
    evaluated: set[int]
    state: EntrantState = "open"
    passed: int = 0
    curve: list[tuple[float, float]] = field(default_factory=list)

    def entrant(self) -> Entrant:
        rate = self.drawn.run.learning_rate
        return Entrant(self.number, self.until, self.state, tuple(self.curve), rate)

    def candidate(self) -> Candidate:
        """The trial as ranking sees it, of one that finished."""
        values = [value for _, value in self.curve]
        rate = self.drawn.run.learning_rate
        return Candidate(self.number, True, values[-1], rate, noise=jitter(values[-JITTERING:]))
