"""What a user could run instead of our search: each takes a draw and says what it cost and which trial it names."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import optuna

from bench.search.curves import Drawn, Task
from bench.search.simulate import Engine, Outcome
from core.search.halving import Decision, Entrant, value_at

optuna.logging.set_verbosity(optuna.logging.WARNING)

TENTH = 0.1
ETA = 3
FINALISTS = 2
TEXTBOOK_RUNGS = (0.1, 0.3, 0.9)


def best_of(drawn: Sequence[Drawn], finished: Sequence[int]) -> int | None:
    """The trial with the lowest validation loss at the end, of equal ones the one with the lower rate."""

    def order(number: int) -> tuple[float, float]:
        rate = drawn[number].run.learning_rate
        return drawn[number].valid[-1], math.inf if rate is None else rate

    return min(finished, key=order, default=None)


def run_all(drawn: Sequence[Drawn]) -> Outcome:
    """Every trial to its end."""
    finished = [n for n, d in enumerate(drawn) if d.finishes]
    return Outcome(sum(d.cost for d in drawn) / drawn[0].whole, best_of(drawn, finished))


def top_at_a_tenth(drawn: Sequence[Drawn], keep: int) -> Outcome:
    """All to a tenth, the best `keep` of them to the end."""
    at = math.ceil(TENTH * drawn[0].whole - 1e-6)
    alive = sorted(
        (n for n, d in enumerate(drawn) if len(d.valid) >= at), key=lambda n: drawn[n].valid[at - 1]
    )
    kept = alive[:keep]
    cost = sum(d.cost if n in kept else min(at, d.cost) for n, d in enumerate(drawn))
    return Outcome(cost / drawn[0].whole, best_of(drawn, [n for n in kept if drawn[n].finishes]))


def textbook_halving(drawn: Sequence[Drawn]) -> Outcome:
    """Synchronous successive halving: rungs at 10, 30 and 90 %, the best third goes on, at least two."""
    return Engine(drawn, _textbook, TEXTBOOK_RUNGS[0]).run()


def _textbook(entrants: Sequence[Entrant], _expected: int) -> Decision | None:
    waiting = [e for e in entrants if e.state == "rung"]
    if not waiting or any(e.state == "open" for e in entrants):
        return None
    at = waiting[0].until
    ranked = sorted(waiting, key=partial(value_at, at=at))
    keep = max(FINALISTS, math.ceil(len(ranked) / ETA))
    until = next((r for r in TEXTBOOK_RUNGS if r > at), 1.0)
    kept, dropped = ranked[:keep], ranked[keep:]
    return Decision(1, at, {e.trial: until for e in kept}, {e.trial: "" for e in dropped}, "")


def pruned_by(pruner: optuna.pruners.BasePruner, drawn: Sequence[Drawn]) -> Outcome:
    """The trials one after another, each asked about at the tenths of its training, as Optuna's pruners are used.

    A diverged trial reports NaN, which Optuna never prunes for by itself; it ends there all the same.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    whole, cost, finished = drawn[0].whole, 0, []
    places = [math.ceil(k * whole / 10) for k in range(1, 11)]
    for number, trial in enumerate(drawn):
        asked = study.ask()
        spent = trial.cost
        for at in places:
            if len(trial.valid) < at:
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
                break
            asked.report(trial.valid[at - 1], at)
            if at < whole and asked.should_prune():
                spent = at
                study.tell(asked, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            finished.append(number)
            study.tell(asked, trial.valid[-1])
        cost += spent
    return Outcome(cost / whole, best_of(drawn, finished))


def stopping_asha(drawn: Sequence[Drawn]) -> Outcome:
    """Optuna's own SuccessiveHalvingPruner, from a tenth on, η 3."""
    first = math.ceil(TENTH * drawn[0].whole)
    return pruned_by(optuna.pruners.SuccessiveHalvingPruner(first, ETA, 0), drawn)


def median_stopping(drawn: Sequence[Drawn]) -> Outcome:
    """Optuna's own MedianPruner, from a tenth on, as it comes otherwise."""
    first = math.ceil(TENTH * drawn[0].whole)
    return pruned_by(optuna.pruners.MedianPruner(n_warmup_steps=first - 1), drawn)


def fixed_rates(tasks: Sequence[Task]) -> Mapping[str, float]:
    """Task → the geometric mean of the learning rates of the best twentieth of the runs of the other tasks.

    Empty for fewer than two tasks, or where runs say no learning rate.
    """
    found: dict[str, float] = {}
    for task in tasks:
        logs: list[float] = []
        for other in (t for t in tasks if t.name != task.name):
            ended = [r for r in other.runs if len(r.valid) == other.checkpoints and r.learning_rate]
            ended.sort(key=lambda r: r.valid[-1])
            best = ended[: max(1, len(ended) // 20)]
            logs += [math.log(r.learning_rate) for r in best if r.learning_rate]
        if logs:
            found[task.name] = math.exp(math.fsum(logs) / len(logs))
    return found


def fixed_settings(tasks: Sequence[Task]) -> Mapping[str, float | None]:
    """Task → the test loss of the one setting that was best on average over the other tasks; None where it diverged.

    Best: the lowest mean place by validation loss at the end. Empty for fewer than two tasks, or where tasks share no
    settings.
    """
    places = {task.name: _places(task) for task in tasks}
    found: dict[str, float | None] = {}
    for task in tasks:
        others = [places[t.name] for t in tasks if t.name != task.name]
        shared = set(places[task.name]).intersection(*others)
        if others and shared:
            best = min(sorted(shared), key=lambda s: sum(p[s] for p in others))
            found[task.name] = next(r.test for r in task.runs if r.setting == best)
    return found


def _places(task: Task) -> Mapping[str, int]:
    def final(number: int) -> float:
        run = task.runs[number]
        return run.valid[-1] if len(run.valid) == task.checkpoints else math.inf

    order = sorted(range(len(task.runs)), key=final)
    return {task.runs[number].setting: place for place, number in enumerate(order)}
