"""Trials that wait at a rung and go on from there as if they had not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.study.metrics import Point

Run = Callable[..., Any]
PROBE = {"kind": "probe", "keep_checkpoint": True}


def climb(
    run_trial: Run, name: str, rungs: tuple[float, ...], task: dict[str, Any], **settings: Any
) -> Any:
    """Run a trial in attempts, each to the next rung, the last to its end; returns the last."""
    begins = None
    for attempt, until in enumerate((*rungs, 1.0), 1):
        given = PROBE | task | {"attempt": attempt, "until": until, "resume_from": begins}
        ran = run_trial(name, task=given, **settings)
        assert ran.report.outcome == ("completed" if until == 1 else "rung"), ran.report
        begins = ran.report.checkpoint
    return ran


def figures(points: list[Point], steps: set[int] | None = None) -> list[tuple[Any, ...]]:
    """What must not differ between runs: the losses and what they come from, by step."""
    return sorted(
        (p.step, p.eval_loss is None, p.loss, p.grad_norm, p.lr, p.tokens, p.eval_loss, p.epoch)
        for p in points
        if steps is None or p.step not in steps
    )


def assert_same_state(one: Path, other: Path) -> None:
    """Weights, optimizer, schedule and random states of two checkpoints are the same, bit for bit."""
    weights = "adapter_model.safetensors"
    if not (one / weights).exists():
        weights = "model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        a, b = (torch.load(folder / name, weights_only=False) for folder in (one, other))
        assert _same(a, b), name


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool((a == b).all()) if hasattr(a, "all") else bool(a == b)


LORA = {"lora_dropout": 0.3, "neftune_noise_alpha": 5.0}
FULL = {"finetuning_type": "full", "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("rungs", "settings"),
    [
        ((0.2,), LORA),
        ((0.2, 0.6), LORA | {"eval_steps": 4}),
        ((0.6,), LORA | {"packing": True, "gradient_accumulation_steps": 3}),
        ((0.2, 0.6), FULL | {"lr_scheduler_type": "linear"}),
        ((0.3,), FULL | {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_steps": 2}),
        ((0.3,), FULL | {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5}),
    ],
)
def test_a_trial_goes_on_from_its_rungs_bit_for_bit(
    run_trial: Run, rungs: tuple[float, ...], settings: dict[str, Any]
) -> None:
    # An epoch has 6 updates (5 of packed rows, 2 of batches of 15), so that rungs lie within epochs and at their ends.
    settings = {"max_steps": 20, "val_size": 2, "max_grad_norm": 0.5} | settings
    task = {"budget": 0.5}
    straight = climb(run_trial, "straight", (), task, **settings)
    climbed = climb(run_trial, "climbed", rungs, task, **settings)
    assert straight.report.step == climbed.report.step == 10
    looks = {round(10 * r) for r in rungs}
    assert figures(climbed.points, looks) == figures(straight.points, looks)
    trained = [
        figures([p for p in ran.points if p.loss is not None]) for ran in (straight, climbed)
    ]
    assert trained[0] == trained[1]
    assert [p.step for p in climbed.points if p.loss is not None] == list(range(1, 11))
    evaluated = [
        {p.step: p.eval_loss for p in ran.points if p.eval_loss is not None}
        for ran in (straight, climbed)
    ]
    assert evaluated[0].items() <= evaluated[1].items()
    assert evaluated[1].keys() - evaluated[0].keys() <= looks <= evaluated[1].keys()
    assert_same_state(*(ran.folder / str(ran.report.checkpoint) for ran in (straight, climbed)))


def test_losses_that_are_logged_together_are_not_parted_by_a_rung(run_trial: Run) -> None:
    settings = {"max_steps": 12, "logging_steps": 3, "lora_dropout": 0.3}
    straight = climb(run_trial, "straight", (), {}, **settings)
    climbed = climb(run_trial, "climbed", (0.3, 0.6), {}, **settings)
    by_step = {p.step: p.loss for p in climbed.points if p.loss is not None}
    assert {
        p.step: p.loss for p in straight.points if p.loss is not None
    }.items() <= by_step.items()
    # Rungs are at 4 and 8 of 12: what was not logged yet is told there.
    assert list(by_step) == [3, 4, 6, 8, 9, 12]


def test_a_rung_says_where_it_is_and_what_it_found(run_trial: Run, capsys: Any) -> None:
    ran = run_trial(task={"kind": "probe", "until": 0.3}, max_steps=10, eval_steps=9, val_size=2)
    assert (ran.report.outcome, ran.report.step, ran.report.checkpoint) == (
        "rung",
        3,
        "checkpoints/checkpoint-3",
    )
    assert (ran.run.rung_step, ran.run.total_steps) == (3, 10)
    last = ran.points[-1]
    assert (last.step, last.eval_loss) == (3, ran.report.eval_loss) and last.eval_loss is not None
    assert ran.report.loss == ran.losses[-1][1]
    assert "waits after step 3" in capsys.readouterr().out


def test_looks_besides_change_nothing_but_the_report(run_trial: Run) -> None:
    settings = {"max_steps": 8, "eval_steps": 8, "lora_dropout": 0.3, "val_size": 2}
    straight = climb(run_trial, "straight", (), {}, **settings)
    looked = climb(run_trial, "looked", (), {"looks": (0.25, 0.6)}, **settings)
    assert figures(looked.points, {2, 5}) == figures(straight.points, {2, 5})
    assert [p.step for p in looked.points if p.eval_loss is not None] == [2, 5, 8]
    assert looked.losses == straight.losses
    assert_same_state(*(ran.folder / str(ran.report.checkpoint) for ran in (straight, looked)))


def test_without_evaluation_rows_a_rung_tells_the_training_loss(run_trial: Run) -> None:
    ran = run_trial(
        task={"kind": "probe", "until": 0.5}, max_steps=8, logging_steps=100, val_size=0
    )
    assert ran.losses == [(4, ran.report.loss)] and ran.report.outcome == "rung"


def test_a_rung_lies_after_the_warm_up(run_trial: Run) -> None:
    settings = {"max_steps": 10, "warmup_ratio": 0.4}
    first = run_trial(task={"kind": "probe", "until": 0.1}, **settings)
    assert (first.report.outcome, first.report.step) == ("rung", 5)
    again = {"kind": "probe", "until": 0.2, "attempt": 2, "resume_from": first.report.checkpoint}
    second = run_trial(task=again, **settings)
    # The second rung's place is the first one's: nothing is trained, and the report is what was found there.
    assert (second.report.outcome, second.report.step) == ("rung", 5)
    assert second.report.checkpoint == first.report.checkpoint
    assert (second.report.loss, second.report.eval_loss) == (
        first.report.loss,
        first.report.eval_loss,
    )
    assert second.run.attempt == 2 and second.losses == first.losses
    last = run_trial(task=again | {"until": 1.0, "attempt": 3}, **settings)
    assert [step for step, _ in last.losses] == list(range(1, 11))


def test_a_rung_at_the_last_step_is_the_end(run_trial: Run) -> None:
    ran = run_trial(task={"kind": "probe", "until": 0.9}, max_steps=4)
    assert (ran.report.outcome, ran.report.step, ran.report.checkpoint) == ("completed", 4, None)
    assert ran.run.rung_step is None and not (ran.folder / "checkpoints").exists()


def test_the_checkpoint_of_an_earlier_rung_is_removed(run_trial: Run) -> None:
    settings = {"max_steps": 10, "save_steps": 2}
    first = run_trial(task={"kind": "probe", "until": 0.3}, **settings)
    saved = lambda ran: sorted(p.name for p in (ran.folder / "checkpoints").iterdir())  # noqa: E731
    assert saved(first) == ["checkpoint-3"]
    second = run_trial(
        task={"kind": "probe", "until": 0.7, "attempt": 2, "resume_from": first.report.checkpoint},
        **settings,
    )
    assert saved(second) == ["checkpoint-7"]


def test_early_stopping_does_not_count_what_was_looked_at_on_a_rung(run_trial: Run) -> None:
    settings = {
        "finetuning_type": "full", "learning_rate": 0.5, "warmup_ratio": 0.0, "max_steps": 30, "eval_steps": 2,
        "val_size": 4, "early_stopping_patience": 3, "lr_scheduler_type": "constant",
    }  # fmt: skip
    straight = climb(run_trial, "straight", (), {}, **settings)
    end = straight.report.step
    assert 6 < end < 30
    climbed = climb(run_trial, "climbed", tuple(n / 30 for n in (1, 3, end - 1)), {}, **settings)
    assert climbed.report.step == end and climbed.losses == straight.losses
    assert_same_state(*(ran.folder / str(ran.report.checkpoint) for ran in (straight, climbed)))


@pytest.mark.parametrize(("asked", "outcome"), [("paused", "rung"), ("stopped", "stopped")])
def test_at_a_rung_a_pause_changes_nothing_and_a_stop_stops(
    run_trial: Run, asked: str, outcome: str
) -> None:
    ran = run_trial(task={"kind": "probe", "until": 0.5}, ask=(asked, 4), max_steps=8)
    assert (ran.report.outcome, ran.report.step) == (outcome, 4)
    assert (ran.report.checkpoint is None) == (outcome == "stopped")


def test_a_pause_before_a_rung_goes_on_to_the_rung(run_trial: Run, capsys: Any) -> None:
    task = {"kind": "probe", "until": 0.5}
    paused = run_trial(task=task, ask=("paused", 2), max_steps=8)
    assert (paused.report.outcome, paused.report.step) == ("paused", 2)
    assert "goes on after" not in capsys.readouterr().out
    ran = run_trial(
        task=task | {"attempt": 2, "resume_from": paused.report.checkpoint}, max_steps=8
    )
    assert (ran.report.outcome, ran.report.step) == ("rung", 4)
    assert [step for step, _ in ran.losses] == [1, 2, 3, 4]
    assert "goes on after step 2" in capsys.readouterr().out


def test_a_full_training_knows_no_rungs(run_trial: Run) -> None:
    ran = run_trial(task={"kind": "full", "until": 0.5})
    assert ran.report.outcome == "completed" and ran.report.step == 4


def test_a_checkpoint_that_says_it_is_whole_is_on_the_disk(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: set[Path] = set()
    fsync = os.fsync

    def keeping(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").readlink()
        if path.parent.name == "checkpoint-4":
            others = {p for p in path.parent.iterdir() if p.name != "trainer_state.json"}
            assert path in others or others <= kept
            kept.add(path)
        fsync(number)

    monkeypatch.setattr(os, "fsync", keeping)
    ran = run_trial(task={"kind": "probe", "until": 0.5}, max_steps=8)
    assert kept == set((ran.folder / "checkpoints" / "checkpoint-4").iterdir())
    assert "trainer_state.json" in {path.name for path in kept}


def test_a_checkpoint_whose_end_is_missing_is_none(run_trial: Run) -> None:
    first = run_trial(task={"kind": "probe", "until": 0.5}, max_steps=8)
    state = first.folder / str(first.report.checkpoint) / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:-20])
    task = {"kind": "probe", "attempt": 2, "resume_from": first.report.checkpoint}
    report = run_trial(task=task, max_steps=8).report
    assert report.usage_error and "no complete checkpoint" in report.error


def test_a_look_draws_no_random_numbers_and_leaves_the_history_alone(run_trial: Run) -> None:
    settings = {"max_steps": 8, "eval_steps": 8, "lora_dropout": 0.3}
    looked = run_trial("looked", task={"kind": "probe", "until": 0.5}, **settings)
    paused = run_trial("paused", task={"kind": "probe"}, ask=("paused", 4), **settings)
    folders = [ran.folder / str(ran.report.checkpoint) for ran in (looked, paused)]
    assert_same_state(*folders)
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in folders]
    assert states[0]["log_history"] == states[1]["log_history"]
    assert states[0]["num_input_tokens_seen"] == states[1]["num_input_tokens_seen"] > 0
