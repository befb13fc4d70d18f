"""How many updates a trial makes."""

from typing import Any

import pytest

from core.params import TrainTable
from core.study.files import TrialTask
from core.train.plan import Plan, make_plan


def plan(
    rows: int = 100, evals: int = 10, kind: Any = "full", budget: float = 1.0, **train: Any
) -> Plan:
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 5,
        "num_train_epochs": 3.0,
    } | train
    return make_plan(TrainTable(**settings), TrialTask(1, 1, kind, budget, "cpu"), rows, evals)


def test_full_training_takes_the_epochs_or_the_steps() -> None:
    assert (plan().full_steps, plan().total_steps, plan().steps_per_epoch) == (30, 30, 10)
    assert plan(rows=101).full_steps == 33
    assert plan(num_train_epochs=0.5).full_steps == 5
    assert plan(max_steps=7).full_steps == 7
    assert plan(rows=1, num_train_epochs=0.01).full_steps == 1


@pytest.mark.parametrize(("budget", "steps"), [(0.1, 3), (0.11, 4), (0.001, 1), (1.0, 30)])
def test_a_probe_takes_its_share_rounded_up(budget: float, steps: int) -> None:
    probe = plan(kind="probe", budget=budget)
    assert (probe.total_steps, probe.full_steps) == (steps, 30)


def test_the_share_of_a_probe_does_not_depend_on_the_effective_batch() -> None:
    counts = [
        plan(kind="probe", budget=0.2, rows=400, per_device_train_batch_size=b).total_steps * b * 5
        for b in (1, 2, 4)
    ]
    assert counts == [240, 240, 240]


def test_a_full_training_ignores_the_budget() -> None:
    assert plan(budget=0.1).total_steps == 30


def test_warm_up_is_a_share_of_the_run_and_shrinks_with_a_probe() -> None:
    assert plan(warmup_ratio=0.1).warmup_steps == 3
    assert plan(warmup_ratio=0.1, kind="probe", budget=0.2).warmup_steps == 1
    assert plan(warmup_steps=10).warmup_steps == 10
    assert plan(warmup_steps=10, kind="probe", budget=0.2).warmup_steps == 2
    assert plan(warmup_steps=0, warmup_ratio=0.5).warmup_steps == 0
    assert plan(max_steps=1).warmup_steps == 0


def test_evaluations_come_ten_times_unless_said() -> None:
    assert plan().eval_steps == 3
    assert plan(max_steps=4).eval_steps == 1
    assert plan(eval_steps=7).eval_steps == 7
    assert plan(evals=0).eval_steps is None
