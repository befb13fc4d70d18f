"""Every schedule's rates over a real run, held against its formula."""

import math
from collections.abc import Callable
from typing import Any

import pytest

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


def test_a_constant_rate_has_no_warm_up(run_trial: Run) -> None:
    ran = run_trial(lr_scheduler_type="constant", warmup_steps=2, max_steps=4, learning_rate=RATE)
    assert {p.lr for p in ran.points if p.loss is not None} == {RATE}
