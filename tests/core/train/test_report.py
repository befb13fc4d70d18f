"""What a training run says while it runs."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.search.smoothing import smooth
from core.study.metrics import MetricsWriter, Point, read_points
from core.train.report import Reporter

STATE = SimpleNamespace(global_step=3, max_steps=9, epoch=0.5, log_history=[])


class Fixed:
    """Stands for what measures memory and for what measures how busy the device is."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def now(self) -> Any:
        return self._value


@pytest.fixture
def reporter(tmp_path: Path) -> Any:
    """A reporter of a stage with two measures of its own."""
    memory: Any = Fixed((2**30, None, 2**31))
    busy: Any = Fixed(0.75)
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    names = ("reward_margin", "eval_reward_margin")
    return Reporter(tmp_path / "tb", writer, 1, memory, lambda: 100, busy, names)


def written(folder: Path) -> list[Point]:
    return read_points(folder / "metrics.jsonl")


def test_a_log_carries_the_stage_s_own_measures_and_no_others(
    reporter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {"loss": "0.5", "reward_margin": 1.25, "logits/chosen": 3.0, "learning_rate": 1e-4}
    reporter.on_log(None, STATE, None, logs)
    (point,) = written(tmp_path)
    assert (point.step, point.loss, point.utilisation) == (3, 0.5, 0.75)
    assert point.more == {"reward_margin": 1.25}
    assert "loss 0.5" in (said := capsys.readouterr().out) and "reward margin 1.25" in said


def test_an_evaluation_without_a_loss_is_one_too(
    reporter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter.on_log(None, STATE, None, {"eval_reward_margin": 2.0})
    (point,) = written(tmp_path)
    assert point.eval_loss is None and point.more == {"eval_reward_margin": 2.0}
    assert capsys.readouterr().out == "step 3/9  eval reward margin 2\n"
    assert reporter.eval_loss is None


def test_what_is_no_number_is_written_as_such(reporter: Any, tmp_path: Path) -> None:
    reporter.on_log(None, STATE, None, {"loss": math.nan, "reward_margin": math.nan})
    (point,) = written(tmp_path)
    assert point.loss is not None and math.isnan(point.loss)
    assert point.more is not None and math.isnan(point.more["reward_margin"])


def test_a_log_of_the_end_is_no_point(reporter: Any, tmp_path: Path) -> None:
    reporter.on_log(None, STATE, None, {"train_runtime": 12.0, "train_loss": 0.5})
    assert written(tmp_path) == []


def test_tensorboard_shows_measures_beside_the_losses(reporter: Any, tmp_path: Path) -> None:
    reporter.on_log(None, STATE, None, {"loss": 0.5, "reward_margin": 1.0})
    reporter.on_log(None, STATE, None, {"eval_loss": 0.5, "eval_reward_margin": 1.0})
    (events,) = (tmp_path / "tb").iterdir()
    read = events.read_bytes()
    for tag in (
        b"train/loss_smoothed",
        b"train/reward_margin",
        b"train/utilisation",
        b"eval/reward_margin",
    ):
        assert tag in read
    assert b"eval_" not in read


def test_the_loss_is_smoothed_over_what_is_logged_and_not_over_what_is_only_reported(
    reporter: Any, tmp_path: Path
) -> None:
    history: list[dict[str, Any]] = []

    def told(step: int, loss: float, *, kept: bool) -> None:
        if kept:
            history.append({"loss": loss, "step": step})
        state = SimpleNamespace(global_step=step, max_steps=9, epoch=0.5, log_history=history)
        reporter.on_log(None, state, None, {"loss": loss})

    told(2, 4.0, kept=True)
    told(3, 9.0, kept=False)
    history.append({"eval_loss": 1.0, "step": 3})
    told(4, 2.0, kept=True)
    told(6, math.inf, kept=True)
    told(8, 1.0, kept=True)
    first, *later = smooth([4.0, 2.0, math.inf, 1.0])
    assert [p.loss_smoothed for p in written(tmp_path)] == [first, smooth([4.0, 9.0])[1], *later]


def test_a_pause_leaves_the_smoothed_loss_as_it_would_have_been(run_trial: Any) -> None:
    settings = {"max_steps": 6, "logging_steps": 2, "val_size": 0}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 3), **settings)
    assert paused.report.outcome == "paused" and paused.report.step % 2 == 1
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    resumed = run_trial("paused", task=task, **settings)
    after = {p.step: p.loss_smoothed for p in resumed.points}
    expected = {p.step: p.loss_smoothed for p in straight.points}
    assert list(expected) == [2, 4, 6] and None not in expected.values()
    assert {step: after[step] for step in expected} == expected
