"""Every schedule runs; settings that do not suit one are refused in words."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from core.params import TrainTable

Run = Callable[..., Any]
SCHEDULES = get_args(TrainTable.model_fields["lr_scheduler_type"].annotation)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_trains(run_trial: Run, schedule: str) -> None:
    ran = run_trial(lr_scheduler_type=schedule, max_steps=6, warmup_ratio=0.2, eval_steps=2)
    assert ran.report.outcome == "completed", ran.report.error
    rates = [p.lr for p in ran.points if p.lr is not None]
    assert len(rates) == 6 and max(rates) <= 0.011 and max(rates) > 0


def test_the_known_schedules_are_the_catalogue_s() -> None:
    from transformers import SchedulerType

    assert {kind.value for kind in SchedulerType} <= set(SCHEDULES)


def test_a_schedule_that_transformers_lacks_names_the_version(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr(transformers, "SchedulerType", [transformers.SchedulerType.LINEAR])
    report = run_trial(lr_scheduler_type="greedy", eval_steps=2).report
    assert report.usage_error and transformers.__version__ in report.error
    assert '"greedy" needs a newer transformers' in report.error


@pytest.mark.parametrize(
    ("schedule", "kwargs"),
    [
        ("cosine_with_restarts", {"cycles": 2}),
        ("linear", {"power": 2.0}),
        ("polynomial", {"lr_end": 5.0}),
    ],
)
def test_settings_that_do_not_suit_the_schedule_are_named(
    run_trial: Run, schedule: str, kwargs: dict[str, Any]
) -> None:
    report = run_trial(lr_scheduler_type=schedule, lr_scheduler_kwargs=kwargs).report
    assert report.outcome == "failed" and report.usage_error
    assert schedule in report.error and next(iter(kwargs)) in report.error


def test_settings_of_a_schedule_are_used(run_trial: Run) -> None:
    ran = run_trial(
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs={"num_cycles": 2},
        max_steps=8,
        warmup_ratio=0.0,
    )
    rates = [p.lr for p in ran.points if p.lr is not None]
    assert rates[4] == pytest.approx(rates[0]) == pytest.approx(0.01)


def test_adam_s_settings_change_the_run(run_trial: Run) -> None:
    plain = run_trial("plain").losses
    for key, value in (
        ("adam_beta1", 0.5),
        ("adam_beta2", 0.9),
        ("adam_epsilon", 1e-2),
        ("weight_decay", 5.0),
    ):
        assert run_trial(key, **{key: value}).losses[:1] == plain[:1]
        assert run_trial(key, **{key: value}).losses != plain, key


def test_clipping_limits_the_step_and_zero_switches_it_off(run_trial: Run) -> None:
    settings = {"finetuning_type": "full", "adam_epsilon": 1.0}
    free, tight = (run_trial(str(n), max_grad_norm=n, **settings) for n in (0.0, 1e-6))
    assert free.points[0].grad_norm == tight.points[0].grad_norm > 1e-3
    assert abs(free.losses[-1][1] - free.losses[0][1]) > 0
    assert free.losses != tight.losses


def test_settings_that_matter_only_after_the_warm_up_are_refused_before_it(run_trial: Run) -> None:
    report = run_trial(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": "x"}).report
    assert report.usage_error and report.step == 0
    assert "(num_cycles) do not suit" in report.error


def test_a_decay_longer_than_the_training_is_refused(run_trial: Run) -> None:
    report = run_trial(
        lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs={"num_decay_steps": 5}
    ).report
    assert report.usage_error
    assert "num_decay_steps = 5 does not fit into the 4 updates" in report.error


def test_a_decay_that_takes_the_whole_training_leaves_room_for_the_warm_up(run_trial: Run) -> None:
    ran = run_trial(
        lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs={"num_decay_steps": 8}, max_steps=8,
        warmup_steps=4,
    )  # fmt: skip
    rates = [p.lr for p in ran.points if p.lr is not None]
    assert max(rates) == pytest.approx(0.01) and rates[-1] < 0.005


@pytest.mark.parametrize("given", [{"timescale": 40}, {}])
def test_an_inverse_square_root_has_the_same_shape_in_every_probe(
    run_trial: Run, given: dict[str, Any]
) -> None:
    settings = {
        "lr_scheduler_type": "inverse_sqrt",
        "lr_scheduler_kwargs": given,
        "warmup_ratio": 0.0,
        "max_steps": 10,
    }
    full = run_trial("full", **settings)
    task = {"kind": "probe", "budget": 0.5, "own_batch": 4, "full_rows": 40}
    probe = run_trial("probe", task=task, **settings)
    small = run_trial("small", task=task, gradient_accumulation_steps=1, **settings)
    rates = [[p.lr for p in ran.points if p.loss is not None] for ran in (full, probe, small)]
    assert [len(r) for r in rates] == [10, 5, 10]
    # Half of the probe is half of the training, whatever the batch.
    assert rates[0][::2] == pytest.approx(rates[1]) and rates[2] == pytest.approx(rates[0])
    assert rates[0][-1] < rates[0][0]


def test_greedy_stays_near_the_rate_that_is_asked_for(run_trial: Run) -> None:
    ran = run_trial(
        lr_scheduler_type="greedy", lr_scheduler_kwargs={"patience": 0}, learning_rate=1e-5, max_steps=8,
        eval_steps=1, val_size=4,
    )  # fmt: skip
    rates = [p.lr for p in ran.points if p.lr is not None]
    assert len(set(rates)) > 1 and all(1e-6 <= rate <= 1e-4 for rate in rates)
