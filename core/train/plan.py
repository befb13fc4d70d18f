"""How many updates a trial makes, when it evaluates, and where it waits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from core.data_size import (
    probe_steps,
    round_up,
    rows_after,
    steps_per_epoch,
    training_steps,
    updates_for,
)
from core.params import TrainTable
from core.study.files import TrialTask
from core.train.data.order import epoch_order
from core.train.errors import SettingsError

_EVALUATIONS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of updates."""

    full_steps: int
    """Updates of the full training."""
    total_steps: int
    """Updates of this trial: the full training's, a probe's share of them, or a range test's."""
    steps_per_epoch: int
    warmup_steps: int
    schedule_steps: int
    """Updates that the learning-rate schedule spans: this trial's, or the full training's."""
    reference_steps: int
    """Updates of the full training with the batch that the profile's own counts of updates were written for."""
    rung_step: int | None = None
    """The update after which this attempt waits at its rung; None where it runs to its end."""
    evaluate_every: Fraction | None = None
    """Updates from one evaluation to the next, of which early stopping and the schedule are told; None where there is
    nothing to evaluate on."""
    look_every: Fraction | None = None
    """The same of evaluations that are only reported. They leave no trace in the run."""
    look_steps: frozenset[int] = frozenset()
    """Updates after which there is such a look besides."""

    @property
    def end(self) -> int:
        """The update that this attempt ends with."""
        return self.total_steps if self.rung_step is None else self.rung_step

    @property
    def schedule_share(self) -> Fraction:
        """What the profile's own counts of updates are to be multiplied by, so that they fit the schedule."""
        return Fraction(self.schedule_steps, self.reference_steps)

    def evaluates(self, step: int) -> bool:
        """Whether the run evaluates after the update `step` (from 1)."""
        if self.evaluate_every is None:
            return False
        last = step == self.total_steps and self.look_every is None
        return last or _is_due(step, self.evaluate_every)

    def looks(self, step: int) -> bool:
        """Whether the evaluation rows are looked at after the update `step` for the report alone."""
        if self.evaluate_every is None or self.evaluates(step):
            return False
        due = self.look_every is not None and _is_due(step, self.look_every)
        return due or step in self.look_steps or step in (self.rung_step, self.total_steps)


def make_plan(
    train: TrainTable,
    task: TrialTask,
    rows: int,
    eval_rows: int,
    lengths: Sequence[int] | NDArray[np.int64] = (),
    sizes: NDArray[np.int64] | None = None,
) -> Plan:
    """The plan for `rows` sequences to train on; `lengths` are their tokens, which a budget in tokens needs, and
    `sizes` what their order is grouped by, where it is (`epoch_order`).

    Probes of all effective batches train on the same rows (to an update), and their schedules have the same shape:
    warm-up and decay take the same shares, and evaluations come at the same shares. A schedule spans the probe, or
    the probe is the first part of the full training's. Counts of updates in the profile are for its own effective
    batch and its full training: a probe takes its share of them.

    A probe that ends before the rate has risen says nothing about the rate. A schedule of the probe's own length
    leaves one update at least after the warm-up; one of the full training's length is not changed, and a probe within
    its warm-up is refused.

    Raises:
        SettingsError: the probe would end before the warm-up.
    """
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps * task.processes
    own = _own_batch(train, task) or batch
    reference = _training_steps(train, rows, own)
    full = _full_steps(train, task, rows, batch)
    per_epoch = steps_per_epoch(rows, batch)
    if task.kind == "range":
        steps = task.range_steps
        return Plan(full, steps, per_epoch, 0, steps, reference)
    total = full
    if task.kind == "probe":
        total = min(full, _probe_steps(train, task, rows, batch, full, lengths, sizes))
    parted = task.kind == "probe" and task.schedule == "full"
    span = full if parted else total
    warmup = warmup_updates(train, span, reference)
    if parted and warmup >= total < full:
        raise SettingsError(
            f"the probe ends within the warm-up: it has {total} updates of the full training's {full}, of which the "
            f"first {warmup} raise the rate. Raise search.budget, shorten the warm-up (train.warmup_ratio), or take "
            'search.probe_schedule = "own"'
        )
    plan = Plan(
        full_steps=full,
        total_steps=total,
        steps_per_epoch=per_epoch,
        warmup_steps=warmup,
        schedule_steps=span,
        reference_steps=reference,
        rung_step=_rung_step(task, total, warmup),
        look_steps=frozenset(max(1, round_up(share * total)) for share in task.looks),
    )
    if not eval_rows:
        return plan
    return _with_evaluations(plan, train)


def _with_evaluations(plan: Plan, train: TrainTable) -> Plan:
    """Ten evaluations a run, or as train.eval_steps says.

    A probe that is the first part of a full training evaluates with it, so that what depends on evaluations (early
    stopping, some schedules) goes on as if it had never ended; its own ten are looks.
    """

    def every(steps: int) -> Fraction:
        if train.eval_steps is None:
            return Fraction(steps, _EVALUATIONS)
        return train.eval_steps * Fraction(plan.full_steps, plan.reference_steps)

    parted = plan.schedule_steps > plan.total_steps
    return replace(
        plan,
        evaluate_every=every(plan.schedule_steps),
        look_every=every(plan.total_steps) if parted else None,
    )


def _is_due(step: int, every: Fraction) -> bool:
    """Whether a multiple of `every` lies in (step - 1, step]: what is due between two updates is done after it."""
    return math.floor(step / every) > math.floor((step - 1) / every)


def _own_batch(train: TrainTable, task: TrialTask) -> int | None:
    """The effective batch of the study's own profile; None where it is not known."""
    if task.own_batch is not None:
        return task.own_batch
    if task.full_rows is None or train.max_steps is None:
        return None
    return max(1, task.full_rows // train.max_steps)


def _training_steps(train: TrainTable, rows: int, batch: int) -> int:
    return training_steps(steps_per_epoch(rows, batch), train.num_train_epochs, train.max_steps)


def _full_steps(train: TrainTable, task: TrialTask, rows: int, batch: int) -> int:
    """Updates of the full training: with max_steps, those that go over the rows that the profile's own batch would."""
    if task.full_rows is None or train.max_steps is None:
        return _training_steps(train, rows, batch)
    return updates_for(_rows_of_full(train, task, rows, batch), rows, batch)


def _rows_of_full(train: TrainTable, task: TrialTask, rows: int, batch: int) -> int:
    """Rows that a full training of max_steps updates goes over. The last update of an epoch may have fewer."""
    return rows_after(train.max_steps or 0, rows, _own_batch(train, task) or batch)


def _probe_steps(
    train: TrainTable,
    task: TrialTask,
    rows: int,
    batch: int,
    full: int,
    lengths: Sequence[int] | NDArray[np.int64],
    sizes: NDArray[np.int64] | None,
) -> int:
    if task.budget_tokens is not None and len(lengths):
        tokens = np.asarray(lengths, dtype=np.int64)
        return _steps_of_tokens(task.budget_tokens, tokens, sizes, order_seed(train), batch, full)
    if task.full_rows is not None and train.max_steps is not None:
        wanted = round_up(task.budget * _rows_of_full(train, task, rows, batch))
        return max(1, updates_for(wanted, rows, batch))
    return probe_steps(full, task.budget)


def _steps_of_tokens(
    wanted: int,
    tokens: NDArray[np.int64],
    sizes: NDArray[np.int64] | None,
    seed: int,
    batch: int,
    most: int,
) -> int:
    """The first update (from 1) with which `wanted` tokens were trained on, rows in the order of their epochs; at most
    `most`."""
    per_epoch = steps_per_epoch(len(tokens), batch)
    epochs, rest = divmod(wanted, int(tokens.sum()))
    if rest == 0:
        return max(1, min(most, epochs * per_epoch))
    if epochs * per_epoch >= most:
        return most
    trained = np.cumsum(tokens[epoch_order(len(tokens), seed, epochs, sizes)])
    row = int(np.searchsorted(trained, rest))
    return min(most, epochs * per_epoch + row // batch + 1)


def order_seed(train: TrainTable) -> int:
    """What decides the order of the rows to train on."""
    return train.data_seed if train.order_seed is None else train.order_seed


def warmup_updates(train: TrainTable, span: int, reference: int) -> int:
    """Updates of the warm-up of a schedule over `span` of them, where the profile's own counts are for `reference`."""
    if train.warmup_steps is None:
        warmup = round_up(train.warmup_ratio * span)
    else:
        warmup = round_up(train.warmup_steps * span / reference)
    # The first update of a warm-up has a rate of zero: one that is nothing but warm-up would learn nothing.
    return min(warmup, span - 1)


def _rung_step(task: TrialTask, total: int, warmup: int) -> int | None:
    """Where the trial waits: at its share of the probe, but not before it has trained at its rate."""
    if task.kind != "probe" or task.until >= 1:
        return None
    step = max(1, round_up(task.until * total), warmup + 1)
    return step if step < total else None
