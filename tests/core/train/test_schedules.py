"""Every schedule's rates over a real run, held against its formula and against transformers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import get_scheduler

Run = Callable[..., Any]
RATE, STEPS, WARM = 0.01, 12, 3


def progress(step: int) -> float:
    """The share of what comes after the warm-up."""
    return (step - WARM) / (STEPS - WARM)


def wave(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


FORMULAS: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "linear": ({}, lambda step: 1 - progress(step)),
    "cosine": ({}, lambda step: wave(progress(step))),
    "cosine_with_restarts": ({"num_cycles": 3}, lambda step: wave((3 * progress(step)) % 1.0)),
    "polynomial": (
        {"power": 2.0, "lr_end": 0.001},
        lambda step: ((RATE - 0.001) * (1 - progress(step)) ** 2 + 0.001) / RATE,
    ),
    "constant_with_warmup": ({}, lambda step: 1.0),
    "inverse_sqrt": ({}, lambda step: 1 / math.sqrt(step / WARM)),
    "cosine_with_min_lr": ({"min_lr_rate": 0.2}, lambda step: 0.2 + 0.8 * wave(progress(step))),
    "warmup_stable_decay": (
        {"num_decay_steps": 4},
        lambda step: 1.0 if step < STEPS - 4 else wave((step - (STEPS - 4)) / 4),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_is_its_formula(run_trial: Run, name: str) -> None:
    settings, formula = FORMULAS[name]
    ran = run_trial(
        lr_scheduler_type=name, lr_scheduler_kwargs=settings, warmup_steps=WARM, max_steps=STEPS,
        learning_rate=RATE, gradient_accumulation_steps=1, val_size=0.0,
    )  # fmt: skip
    assert ran.report.outcome == "completed", ran.report.error
    rates = [p.lr for p in ran.points if p.loss is not None]
    # The first update is made with the schedule's rate at 0.
    expected = [RATE * (step / WARM if step < WARM else formula(step)) for step in range(STEPS)]
    assert rates == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup"])
def test_settings_of_another_schedule_do_nothing_to_a_constant_rate(
    run_trial: Run, name: str
) -> None:
    """As where schedules are searched."""
    settings = {"min_lr": 10 * RATE, "min_lr_rate": 2.0, "mode": "max"}
    ran = run_trial(
        lr_scheduler_type=name, lr_scheduler_kwargs=settings, warmup_steps=0, max_steps=2,
        learning_rate=RATE,
    )  # fmt: skip
    assert {p.lr for p in ran.points if p.loss is not None} == {RATE}


def test_a_constant_rate_has_no_warm_up(run_trial: Run) -> None:
    ran = run_trial(lr_scheduler_type="constant", warmup_steps=2, max_steps=4, learning_rate=RATE)
    assert {p.lr for p in ran.points if p.loss is not None} == {RATE}


# Held against transformers' own -----------------------------------------------------------------------------------

LONG, WARMING = 50, 10
OWN: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 2},
    "polynomial": {"power": 1.5},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "cosine_with_min_lr": {"min_lr": 0.002},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05},
    "warmup_stable_decay": {"num_decay_steps": 15, "min_lr_ratio": 0.1},
}


def theirs(name: str, updates: int, warm: int, settings: dict[str, Any]) -> list[float]:
    """The rates of a plain loop with transformers' schedule."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = get_scheduler(name, optimizer, warm, updates, settings)
    rates = []
    for _ in range(updates):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def rates_of(ran: Any) -> list[float]:
    assert ran.report.outcome == "completed", ran.report.error
    return [p.lr for p in ran.points if p.loss is not None]


@pytest.mark.parametrize("name", OWN)
def test_rates_are_transformers_own_in_a_training_that_was_paused_and_in_a_probe(
    run_trial: Run, name: str
) -> None:
    settings = {
        "lr_scheduler_type": name, "lr_scheduler_kwargs": OWN[name], "warmup_steps": WARMING, "max_steps": LONG,
        "learning_rate": RATE, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 1, "val_size": 0.0,
    }  # fmt: skip
    paused = run_trial("full", ask=("paused", 23), **settings)
    assert paused.report.outcome == "paused"
    again = {"attempt": 2, "resume_from": paused.report.checkpoint}
    expected = theirs(name, LONG, WARMING, OWN[name])
    # The rates do not say when they were read.
    assert rates_of(run_trial("full", task=again, **settings)) == pytest.approx(expected, abs=1e-15)
    # The same schedule over a fifth of the updates, and the first fifth of the whole one.
    own = run_trial("own", task={"kind": "probe", "budget": 0.4}, **settings)
    shrunk = {k: v * 2 // 5 if k == "num_decay_steps" else v for k, v in OWN[name].items()}
    assert rates_of(own) == pytest.approx(theirs(name, 20, 4, shrunk), abs=1e-15)
    task = {"kind": "probe", "budget": 0.4, "schedule": "full"}
    assert rates_of(run_trial("part", task=task, **settings)) == pytest.approx(
        expected[:20], abs=1e-15
    )


@pytest.mark.parametrize("given", [{}, {"cooldown": 2, "min_lr": 0.004, "threshold": 0.05}])
def test_a_plateau_lowers_the_rate_as_torch_does_through_rungs_and_the_training_after(
    run_trial: Run, given: dict[str, Any]
) -> None:
    kwargs = {"factor": 0.5, "patience": 1} | given
    settings = {
        "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": kwargs, "learning_rate": 0.05,
        "max_steps": LONG, "gradient_accumulation_steps": 1, "val_size": 4, "eval_steps": 2,
        "finetuning_type": "full",
    }  # fmt: skip
    task = {"kind": "probe", "budget": 0.4, "schedule": "full", "keep_checkpoint": True}
    waited = run_trial("probe", task=task | {"until": 0.5}, **settings)
    assert waited.report.outcome == "rung"
    more = {"attempt": 2, "resume_from": waited.report.checkpoint}
    probe = run_trial("probe", task=task | more, **settings)
    assert probe.report.outcome == "completed"
    goes_on = {"continues": f"../probe/{probe.report.checkpoint}", "schedule": "full"}
    full = run_trial("full", task=goes_on, **settings)
    points = [p for ran in (probe, full) for p in ran.points]
    judged = {p.step: p.eval_loss for p in points if p.eval_loss is not None}
    rates = {p.step: p.lr for p in points if p.loss is not None}
    assert list(rates) == list(range(1, LONG + 1)) and set(range(2, LONG, 2)) <= judged.keys()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **kwargs)
    for step in range(1, LONG + 1):
        assert rates[step] == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-15), step
        if step % 2 == 0:
            plateau.step(judged[step])
    assert len(set(rates.values())) > 1


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("cosine_with_min_lr", {"min_lr": 0.02}, "min_lr = 0.02 is not between 0 and learning_rate = 0.01"),
        ("reduce_lr_on_plateau", {"min_lr": 0.02}, "min_lr = 0.02 is not between 0"),
        ("greedy", {"max_lr": 0.001}, "max_lr = 0.001 is below learning_rate"),
        ("cosine_warmup_with_min_lr", {"min_lr_rate": 1.5}, "min_lr_rate = 1.5 is a share"),
        ("warmup_stable_decay", {"min_lr_ratio": -0.1}, "min_lr_ratio = -0.1 is a share"),
        ("reduce_lr_on_plateau", {"mode": "max"}, 'set it to "min"'),
        ("warmup_stable_decay", {"num_stable_steps": "x"}, "a whole number, and 'x' is none"),
        (
            "warmup_stable_decay", {"num_stable_steps": 20, "num_decay_steps": 10},
            "make 40 updates with the warm-up's 10, and the full training has 50; leave num_stable_steps out",
        ),
    ],
)  # fmt: skip
def test_a_schedule_that_would_go_the_wrong_way_is_refused(
    run_trial: Run, name: str, settings: dict[str, Any], said: str
) -> None:
    report = run_trial(
        lr_scheduler_type=name, lr_scheduler_kwargs=settings, learning_rate=RATE, max_steps=LONG,
        warmup_steps=WARMING, val_size=4,
    ).report  # fmt: skip
    assert report.outcome == "failed" and report.usage_error
    assert "train.lr_scheduler_kwargs: " in report.error and said in report.error


@pytest.mark.parametrize(
    "settings", [{"num_stable_steps": 24}, {"num_stable_steps": 24, "num_decay_steps": 16}]
)
def test_the_stable_part_of_a_schedule_leaves_the_decay_to_the_end(
    run_trial: Run, settings: dict[str, int]
) -> None:
    """transformers' own count of stable updates would end with updates at a rate of zero."""
    ran = run_trial(
        lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=settings, warmup_steps=WARMING,
        max_steps=LONG, learning_rate=RATE, per_device_train_batch_size=1, gradient_accumulation_steps=1,
        val_size=0.0, task={"kind": "probe", "budget": 0.5},
    )  # fmt: skip
    expected = theirs("warmup_stable_decay", 25, 5, {"num_decay_steps": 8})
    assert rates_of(ran) == pytest.approx(expected, abs=1e-15)
    assert min(rates_of(ran)[1:]) > 0
