"""How many updates a trial makes, where it waits and when it evaluates."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data_size import rows_after
from core.params import TrainTable
from core.study.files import TrialTask
from core.train.data.batches import epoch_order
from core.train.errors import SettingsError
from core.train.plan import Plan, make_plan


def plan(
    rows: int = 100,
    evals: int = 10,
    kind: Any = "full",
    budget: float = 1.0,
    task: dict[str, Any] | None = None,
    lengths: Sequence[int] = (),
    **train: Any,
) -> Plan:
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 5,
        "num_train_epochs": 3.0,
    } | train
    asked = TrialTask(1, 1, kind, budget, "cpu", **(task or {}))
    return make_plan(TrainTable(**settings), asked, rows, evals, lengths)


def probe(budget: float = 0.2, **more: Any) -> Plan:
    return plan(kind="probe", budget=budget, **more)


def evaluations(made: Plan) -> list[int]:
    return [step for step in range(1, made.total_steps + 1) if made.evaluates(step)]


def looks(made: Plan) -> list[int]:
    return [step for step in range(1, made.total_steps + 1) if made.looks(step)]


def test_full_training_takes_the_epochs_or_the_steps() -> None:
    assert (plan().full_steps, plan().total_steps, plan().steps_per_epoch) == (30, 30, 10)
    assert plan(rows=101).full_steps == 33
    assert plan(num_train_epochs=0.5).full_steps == 5
    assert plan(max_steps=7).full_steps == 7
    assert plan(rows=1, num_train_epochs=0.01).full_steps == 1


@pytest.mark.parametrize(("budget", "steps"), [(0.1, 3), (0.11, 4), (0.001, 1), (1.0, 30)])
def test_a_probe_takes_its_share_rounded_up(budget: float, steps: int) -> None:
    assert (probe(budget).total_steps, probe(budget).full_steps) == (steps, 30)


def test_the_share_of_a_probe_does_not_depend_on_the_effective_batch() -> None:
    counts = [probe(rows=400, per_device_train_batch_size=b).total_steps * b * 5 for b in (1, 2, 4)]
    assert counts == [240, 240, 240]


def test_with_max_steps_all_batches_go_over_the_rows_of_the_profile_s_own() -> None:
    task = {"full_rows": 10 * 40}
    made = [
        probe(0.25, rows=1000, max_steps=40, task=task, per_device_train_batch_size=b)
        for b in (1, 2, 4, 8)
    ]
    assert [m.full_steps for m in made] == [80, 40, 20, 10]
    assert [m.total_steps for m in made] == [20, 10, 5, 3]
    whole = plan(rows=1000, max_steps=40, task=task, per_device_train_batch_size=4)
    assert whole.total_steps == 20


@given(
    rows=st.integers(1, 500),
    own=st.integers(1, 64),
    other=st.integers(1, 64),
    steps=st.integers(1, 400),
    budget=st.floats(0.01, 1),
)
def test_probes_of_all_batches_train_on_the_same_rows_to_an_update(
    rows: int, own: int, other: int, steps: int, budget: float
) -> None:
    def trained(batch: int) -> int:
        made = probe(
            budget, rows=rows, max_steps=steps, task={"full_rows": own * steps},
            per_device_train_batch_size=batch, gradient_accumulation_steps=1,
        )  # fmt: skip
        return rows_after(made.total_steps, rows, batch)

    wanted = budget * rows_after(steps, rows, own)
    assert wanted - 1e-3 <= trained(own) < wanted + own
    assert wanted - 1e-3 <= trained(other) < wanted + other


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    batch=st.integers(1, 16),
    wanted=st.integers(1, 6000),
    seed=st.integers(0, 5),
)
def test_a_budget_in_tokens_ends_with_the_first_update_that_reaches_it(
    lengths: list[int], batch: int, wanted: int, seed: int
) -> None:
    made = probe(
        rows=len(lengths), lengths=lengths, num_train_epochs=4.0, order_seed=seed,
        task={"budget_tokens": wanted}, per_device_train_batch_size=batch, gradient_accumulation_steps=1,
    )  # fmt: skip
    trained = []
    for epoch in range(4):
        order = epoch_order(len(lengths), seed, epoch)
        for start in range(0, len(order), batch):
            row_tokens = sum(lengths[i] for i in order[start : start + batch])
            trained.append((trained[-1] if trained else 0) + row_tokens)
    reached = [step for step, tokens in enumerate(trained, 1) if tokens >= wanted]
    assert made.total_steps == (reached[0] if reached else made.full_steps)
    assert made.full_steps == len(trained)


def test_a_full_training_ignores_the_budget() -> None:
    assert plan(budget=0.1).total_steps == 30
    assert plan(lengths=[5] * 100, task={"budget_tokens": 1, "until": 0.5}).end == 30


def test_warm_up_is_a_share_of_the_run_and_shrinks_with_a_probe() -> None:
    assert plan(warmup_ratio=0.1).warmup_steps == 3
    assert probe(warmup_ratio=0.1).warmup_steps == 1
    assert plan(warmup_steps=10).warmup_steps == 10
    assert probe(warmup_steps=10).warmup_steps == 2
    assert plan(warmup_steps=0, warmup_ratio=0.5).warmup_steps == 0
    assert plan(max_steps=1).warmup_steps == 0


@pytest.mark.parametrize("task", [{"full_rows": 400}, {"own_batch": 10}])
def test_counts_of_updates_are_for_the_profile_s_own_batch(task: dict[str, Any]) -> None:
    length = {"max_steps": 40} if "full_rows" in task else {"num_train_epochs": 4.0}
    made = [
        probe(
            0.5, task=task, warmup_steps=8, eval_steps=10, per_device_train_batch_size=b, **length
        )
        for b in (1, 2, 4)
    ]
    assert [m.total_steps for m in made] == [40, 20, 10]
    assert [m.warmup_steps for m in made] == [8, 4, 2]
    assert [evaluations(m) for m in made] == [[20, 40], [10, 20], [5, 10]]


def test_a_probe_may_be_the_first_part_of_the_full_training() -> None:
    made = probe(0.5, max_steps=100, warmup_ratio=0.1, task={"schedule": "full"})
    assert (made.total_steps, made.schedule_steps, made.warmup_steps) == (50, 100, 10)
    own = probe(0.5, max_steps=100, warmup_ratio=0.1)
    assert (own.total_steps, own.schedule_steps, own.warmup_steps) == (50, 50, 5)
    # It evaluates with the full training; what it looks at besides is not a part of the run.
    assert evaluations(made) == [10, 20, 30, 40, 50]
    assert looks(made) == [5, 15, 25, 35, 45]


def test_a_first_part_that_is_all_warm_up_is_refused_with_the_way_out() -> None:
    with pytest.raises(SettingsError, match=r"has 10 updates .* first 10 raise.*search.budget"):
        probe(0.1, max_steps=100, warmup_ratio=0.1, task={"schedule": "full"})
    assert probe(0.11, max_steps=100, warmup_ratio=0.1, task={"schedule": "full"}).total_steps == 11
    assert probe(1.0, max_steps=1, task={"schedule": "full"}).total_steps == 1


def test_evaluations_come_ten_times_unless_said() -> None:
    assert evaluations(plan()) == list(range(3, 31, 3))
    assert evaluations(plan(max_steps=4)) == [1, 2, 3, 4]
    assert evaluations(plan(eval_steps=7)) == [7, 14, 21, 28, 30]
    assert evaluations(plan(evals=0)) == looks(plan(evals=0)) == []


@given(st.integers(1, 3000))
def test_evaluations_come_at_the_same_shares_whatever_the_steps(steps: int) -> None:
    made = plan(max_steps=steps)
    assert evaluations(made) == sorted({-(-steps * tenth // 10) for tenth in range(1, 11)})


@pytest.mark.parametrize(
    ("until", "warmup", "rung"),
    [(0.1, 0.0, 10), (0.101, 0.0, 11), (0.1, 0.2, 21), (1.0, 0.0, None), (0.999, 0.0, None)],
)
def test_a_rung_is_a_share_of_the_probe_after_the_warm_up(
    until: float, warmup: float, rung: int | None
) -> None:
    made = probe(0.5, max_steps=200, warmup_ratio=warmup, task={"until": until})
    assert made.rung_step == rung and made.end == (rung or 100)


def test_a_rung_is_looked_at_unless_it_is_evaluated_anyway() -> None:
    assert looks(probe(1.0, max_steps=100, task={"until": 0.33})) == [33]
    assert looks(probe(1.0, max_steps=100, task={"until": 0.3})) == []


def test_looks_besides_come_at_shares_of_the_probe() -> None:
    task = {"until": 0.06, "looks": (0.02, 0.001)}
    assert looks(probe(0.5, max_steps=200, task=task, warmup_ratio=0.0)) == [1, 2, 6]
    assert looks(probe(0.5, max_steps=200, task=task, evals=0)) == []


def test_a_range_test_has_its_own_length_and_evaluates_nothing() -> None:
    made = plan(kind="range", task={"range_steps": 70, "until": 0.5}, max_steps=5)
    assert (made.total_steps, made.end, made.warmup_steps, made.full_steps) == (70, 70, 0, 5)
    assert evaluations(made) == looks(made) == []
