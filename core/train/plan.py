"""How many updates a trial makes, and when it evaluates."""

import math
from dataclasses import dataclass

from core.data_size import probe_steps, round_up, steps_per_epoch, training_steps
from core.params import TrainTable
from core.study.files import TrialTask

_EVALUATIONS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of updates."""

    full_steps: int
    """Updates of the full training."""
    total_steps: int
    """Updates of this trial: the full training's, or a probe's share of them."""
    steps_per_epoch: int
    warmup_steps: int
    eval_steps: int | None
    """Updates from one evaluation to the next; None where there is nothing to evaluate on."""

    @property
    def share(self) -> float:
        """This trial's length against the full training's, in (0, 1]."""
        return self.total_steps / self.full_steps


def make_plan(train: TrainTable, task: TrialTask, rows: int, eval_rows: int) -> Plan:
    """The plan for `rows` sequences to train on.

    A probe has a learning-rate schedule of its own length. Warm-up given in updates is for the full training: a probe
    takes its share, since one that ends before the rate has risen says nothing about the rate.
    """
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    per_epoch = steps_per_epoch(rows, batch)
    full = training_steps(per_epoch, train.num_train_epochs, train.max_steps)
    total = full if task.kind == "full" else probe_steps(full, task.budget)
    if train.warmup_steps is None:
        warmup = round_up(train.warmup_ratio * total)
    else:
        warmup = round_up(train.warmup_steps * total / full)
    # The first update of a warm-up has a rate of zero: one that is nothing but warm-up would learn nothing.
    warmup = min(warmup, total - 1)
    every = train.eval_steps or max(1, math.ceil(total / _EVALUATIONS))
    return Plan(full, total, per_epoch, warmup, every if eval_rows else None)
