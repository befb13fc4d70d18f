"""The learning-rate range test."""

import math
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
TASK = {"kind": "range", "range_low": 1e-5, "range_high": 1e-1, "range_steps": 9, "keep_checkpoint": True}  # fmt: skip


def test_the_rate_rises_exponentially_and_every_step_is_logged(run_trial: Run, capsys: Any) -> None:
    ran = run_trial(
        task=TASK, max_steps=1000, logging_steps=5, eval_steps=1, save_steps=2, warmup_ratio=0.5, val_size=4
    )  # fmt: skip
    assert (ran.report.outcome, ran.report.step, ran.report.checkpoint) == ("completed", 9, None)
    assert [step for step, _ in ran.losses] == list(range(1, 10))
    rates = [p.lr for p in ran.points]
    assert rates == pytest.approx([1e-5 * 10 ** (n / 2) for n in range(9)])
    assert all(p.eval_loss is None for p in ran.points)
    assert not (ran.folder / "checkpoints").exists() and not (ran.folder / "output").exists()
    assert (ran.run.total_steps, ran.run.full_steps) == (9, 1000)
    assert "range test: from 1e-05 to 0.1 in 9 steps" in capsys.readouterr().out


def test_data_that_is_too_short_is_gone_through_again(run_trial: Run) -> None:
    ran = run_trial(
        task=TASK | {"range_steps": 30}, num_train_epochs=1.0, max_steps=None, learning_rate=0.5
    )
    assert ran.run.steps_per_epoch == 6 and ran.report.step == 30
    assert ran.points[-1].lr == pytest.approx(1e-1) and ran.points[-1].epoch == pytest.approx(5.0)


def test_it_ends_where_the_loss_has_risen_for_good(run_trial: Run) -> None:
    task = TASK | {"range_low": 1e-3, "range_high": 1e6, "range_steps": 60}
    ran = run_trial(task=task, finetuning_type="full", max_grad_norm=0.0)
    assert ran.report.outcome == "completed" and 3 < ran.report.step < 60
    losses = [loss for _, loss in ran.losses]
    assert not math.isfinite(losses[-1]) or losses[-1] > 2 * min(losses)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_it_ends_at_once_where_the_loss_is_no_number(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        out.loss = out.loss * value
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", broken)
    ran = run_trial(task=TASK)
    assert (ran.report.outcome, ran.report.step, len(ran.losses)) == ("completed", 1, 1)


def test_a_paused_range_test_leaves_nothing_and_begins_again(run_trial: Run) -> None:
    paused = run_trial(task=TASK, ask=("paused", 4))
    assert (paused.report.outcome, paused.report.checkpoint) == ("paused", None)
    assert not list(paused.folder.glob("checkpoints/*"))


def test_a_single_spike_does_not_end_it() -> None:
    from core.train.conductor import RangeEnd

    def ends(losses: list[float]) -> int | None:
        test = RangeEnd()
        return next((n for n, loss in enumerate(losses) if test._is_over(loss)), None)

    assert ends([2.0, 1.8, 1.7, 9.0, 1.6, 1.5]) is None
    assert ends([2.0, 1.8, 1.7, 9.0, 12.0, 15.0, 20.0]) is not None
