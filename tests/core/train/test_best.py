"""Which evaluations are better, and which checkpoints stay."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.profile import loads
from core.search.metric import find
from core.train.checkpoints import Keeper
from core.train.conductor import EarlyStop
from core.train.judging import judged_by

Run = Callable[..., Any]
LOSS, ACCURACY = find("eval_loss"), find("eval_accuracy")


def steps_of(ran: Any) -> set[int]:
    return {int(p.name.split("-")[1]) for p in (ran.folder / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("search", "method", "name", "direction"),
    [
        ("", "", "eval_loss", "min"),
        ('rank_by = "eval_accuracy"', "", "eval_accuracy", "max"),
        ('rank_by = "eval_accuracy"\nrank_direction = "min"', "", "eval_accuracy", "min"),
        ('rank_by = "loss"', "", "eval_loss", "min"),
        ('rank_by = "tokens_per_s"', "", "eval_loss", "min"),
        ("", 'stage = "dpo"', "eval_reward_accuracy", "max"),
        ('rank_by = "reward_margin"', 'stage = "dpo"', "eval_reward_accuracy", "max"),
        ('rank_by = "eval_loss"', 'stage = "dpo"', "eval_loss", "min"),
    ],
)
def test_a_run_is_judged_by_what_its_study_ranks_by_where_it_is_evaluated(
    search: str, method: str, name: str, direction: str
) -> None:
    profile = loads(
        f'[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n[method]\n{method}\n[search]\n{search}\n'
    )
    metric = judged_by(profile)
    assert (metric.name, metric.direction) == (name, direction)


@pytest.mark.parametrize(
    ("keeper", "steps", "values", "kept"),
    [
        (Keeper(LOSS, 2), [1, 2, 3], {}, {2, 3}),
        (Keeper(LOSS, 1), [1, 2, 3], {1: 0.1}, {3}),
        (Keeper(LOSS, 2, begun=1), [1, 2, 3, 4], {}, {1, 3, 4}),
        (Keeper(LOSS, 2, best=1), [1, 2, 3, 4], {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}, {2, 4}),
        (Keeper(LOSS, 2, best=2), [1, 2, 3, 4], {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}, {2, 3, 4}),
        (Keeper(LOSS, 2, best=2), [1, 2, 3], {1: 1.0, 2: 1.0, 3: 1.0}, {1, 2, 3}),
        (Keeper(LOSS, 2, best=1), [1, 2, 3], {1: float("nan"), 2: 9.0, 3: float("inf")}, {2, 3}),
        # What was saved between evaluations is not judged.
        (Keeper(LOSS, 2, best=1), [1, 2, 3, 4], {2: 5.0}, {2, 4}),
        (Keeper(LOSS, 2, best=1, begun=1), [1, 2, 3], {1: 5.0, 2: 1.0, 3: 2.0}, {1, 2, 3}),
        (Keeper(LOSS, 2, best=1, begun=9), [1, 2], {1: 5.0, 2: 1.0}, {2}),
    ],
)
def test_the_best_and_the_newest_stay_and_what_the_attempt_began_with(
    keeper: Keeper, steps: list[int], values: dict[int, float], kept: set[int]
) -> None:
    assert keeper.kept(steps, values) == kept


@pytest.mark.parametrize("metric", ["eval_loss", "eval_accuracy"])
def test_a_training_keeps_its_best_checkpoints_by_the_metric(run_trial: Run, metric: str) -> None:
    ran = run_trial(
        max_steps=8,
        eval_steps=1,
        val_size=6,
        save_best=2,
        learning_rate=0.05,
        search__rank_by=metric,
    )
    assert ran.report.outcome == "completed", ran.report.error
    loss = metric == "eval_loss"
    values = {
        p.step: p.eval_loss if loss else -(p.more or {})["eval_accuracy"]
        for p in ran.points
        if p.eval_loss is not None
    }
    best = sorted(values, key=lambda step: (values[step], step))[:2]
    assert steps_of(ran) == {*best, 8}


def test_without_it_the_newest_stay_and_the_one_that_was_gone_on_from(run_trial: Run) -> None:
    settings = {"max_steps": 8, "save_steps": 1, "save_total_limit": 2}
    paused = run_trial(ask=("paused", 3), **settings)
    begun = int(paused.report.checkpoint.rpartition("-")[2])
    again = run_trial(task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings)
    assert steps_of(again) == {begun, 7, 8}


def test_a_probe_saves_none_of_them(run_trial: Run) -> None:
    task = {"kind": "probe", "budget": 0.5, "keep_checkpoint": True}
    ran = run_trial(task=task, max_steps=8, eval_steps=1, val_size=6, save_best=2)
    assert steps_of(ran) == {4}


def test_a_checkpoint_that_is_due_is_saved_though_its_evaluation_is_not_the_best(
    run_trial: Run,
) -> None:
    ran = run_trial(
        task={"save_model": True}, max_steps=6, eval_steps=1, val_size=6, save_steps=2, save_total_limit=9,
        early_stopping_patience=9, learning_rate=0.3, max_grad_norm=0.0,
    )  # fmt: skip
    assert {2, 4} <= steps_of(ran)


def test_early_stopping_follows_the_metric_in_its_direction() -> None:
    class Control:
        should_training_stop = False

    stop, control = EarlyStop(2, ACCURACY), Control()
    for value in (0.1, 0.5, 0.6, 0.4):
        stop.on_evaluate(None, None, control, {"eval_accuracy": value, "eval_loss": 9.0})
    assert not stop.fired
    stop.on_evaluate(None, None, control, {"eval_accuracy": 0.6, "eval_loss": 0.0})
    assert stop.fired and control.should_training_stop


def test_the_plateau_schedule_follows_the_metric_in_its_direction(run_trial: Run) -> None:
    """The accuracy that never improves lowers the rate, though the loss falls."""
    settings = {
        "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5},
        "eval_steps": 1, "val_size": 6, "max_steps": 6, "learning_rate": 1e-4,
    }  # fmt: skip
    by_loss = run_trial("loss", **settings)
    by_accuracy = run_trial("accuracy", search__rank_by="eval_accuracy", **settings)

    def expected(ran: Any, name: str, sign: int) -> list[float]:
        best, rate, rates = float("inf"), 1e-4, []
        for point in ran.points:
            if point.eval_loss is None:
                continue
            value = sign * (point.eval_loss if name == "eval_loss" else (point.more or {})[name])
            # torch's threshold: better by more than a ten-thousandth of the value.
            better = value < best - 1e-4 * abs(best) if best != float("inf") else True
            best, rate = (value, rate) if better else (best, rate * 0.5)
            rates.append(rate)
        return rates

    for ran, name, sign in ((by_loss, "eval_loss", 1), (by_accuracy, "eval_accuracy", -1)):
        told = [p.lr for p in ran.points if p.lr is not None]
        # The rate that an evaluation leads to is the next update's.
        assert told[1:] == pytest.approx(expected(ran, name, sign)[:-1])
    assert by_accuracy.points[-2].lr != by_loss.points[-2].lr


# The end of a run that is judged ---------------------------------------------------------------------------------------

JUDGED: dict[str, Any] = {
    "val_size": 6, "eval_steps": 1, "learning_rate": 0.5, "max_grad_norm": 0.0, "lr_scheduler_type": "constant",
    "max_steps": 8, "save_steps": 2, "save_total_limit": 9, "early_stopping_patience": 50,
}  # fmt: skip


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def best_of(ran: Any) -> int:
    values = {p.step: p.eval_loss for p in ran.points if p.eval_loss is not None}
    return min(values, key=lambda step: values[step])


def test_a_run_that_only_has_to_be_saved_ends_with_its_best_weights(run_trial: Run) -> None:
    """As where the disk was full when the finished weights were written."""
    task = {"save_model": True}
    ran = run_trial(task=task, **JUDGED)
    best = best_of(ran)
    assert best != 8 and ran.report.step == 8
    checkpoints = ran.folder / "checkpoints"
    assert weights(ran.folder / "output") == weights(checkpoints / f"checkpoint-{best}")
    shutil.rmtree(ran.folder / "output")
    task |= {"attempt": 2, "resume_from": "checkpoints/checkpoint-8"}
    again = run_trial(task=task, **JUDGED)
    assert again.report.outcome == "completed"
    assert weights(again.folder / "output") == weights(checkpoints / f"checkpoint-{best}")


def test_a_run_that_had_stopped_improving_does_not_go_on(run_trial: Run) -> None:
    settings = JUDGED | {"early_stopping_patience": 1, "learning_rate": 3.0, "max_steps": 20}
    ran = run_trial(task={"save_model": True}, **settings)
    assert ran.report.outcome == "completed" and ran.report.step < 20
    # With save_steps there is one of its end too, wherever that comes.
    end = f"checkpoints/checkpoint-{ran.report.step}"
    task = {"attempt": 2, "resume_from": end, "save_model": True}
    before = weights(ran.folder / "output")
    again = run_trial(task=task, **settings)
    assert (again.report.outcome, again.report.step) == ("completed", ran.report.step)
    assert weights(again.folder / "output") == before


def test_a_best_checkpoint_that_is_gone_is_said_to_be(
    run_trial: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_trial(task={"save_model": True}, **JUDGED)
    best = best_of(ran)
    shutil.rmtree(ran.folder / "checkpoints" / f"checkpoint-{best}")
    task = {"attempt": 2, "resume_from": "checkpoints/checkpoint-8", "save_model": True}
    capsys.readouterr()
    again = run_trial(task=task, **JUDGED)
    assert again.report.outcome == "completed", again.report.error
    assert (
        f"checkpoint-{best}, is gone: the run ends with its last weights" in capsys.readouterr().out
    )


def test_an_attempt_from_an_older_checkpoint_keeps_what_it_saves(run_trial: Run) -> None:
    settings = {"max_steps": 8, "save_steps": 1, "save_total_limit": 9}
    ran = run_trial(**settings)
    (ran.folder / "metrics.jsonl").unlink()
    task = {"attempt": 2, "resume_from": "checkpoints/checkpoint-2"}
    again = run_trial(task=task, ask=("paused", 5), **settings | {"save_total_limit": 2})
    assert again.report.checkpoint == "checkpoints/checkpoint-5"
    assert steps_of(again) == {2, 4, 5}
