"""Full trainings that go on from a probe's last checkpoint."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


def continued(run_trial: Run, probe: Any, name: str = "full", **more: Any) -> Any:
    """A full training that continues from `probe`; `more` may hold `task` and `ask`."""
    task = {"continues": f"../{probe.folder.name}/{probe.report.checkpoint}", "save_model": True}
    task |= more.pop("task", {})
    return run_trial(name, task=task, **more)


def weights(ran: Any) -> bytes:
    return next((ran.folder / "output").glob("*model.safetensors")).read_bytes()


def figures(ran: Any, after: int) -> list[tuple[Any, ...]]:
    return [
        (p.step, p.loss, p.grad_norm, p.lr, p.tokens, p.eval_loss, p.epoch)
        for p in ran.points
        if p.step > after
    ]


SETTINGS: dict[str, Any] = {"max_steps": 20, "lora_dropout": 0.3, "val_size": 4}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"logging_steps": 3, "packing": True},
        {"finetuning_type": "full", "lr_scheduler_type": "linear", "learning_rate": 1e-3},
        {"lr_scheduler_type": "warmup_stable_decay"},
        {"lr_scheduler_type": "greedy", "eval_steps": 3},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "learning_rate": 0.3, "lr_scheduler_kwargs": {"patience": 0}},
    ],
)  # fmt: skip
def test_a_probe_of_the_full_schedule_continues_as_if_it_had_never_ended(
    run_trial: Run, settings: dict[str, Any]
) -> None:
    settings = SETTINGS | settings
    straight = run_trial("straight", task={"save_model": True}, **settings)
    task = {"kind": "probe", "budget": 0.5, "schedule": "full", "keep_checkpoint": True}
    waited = run_trial("probe", task=task | {"until": 0.4}, **settings)
    assert waited.report.outcome == "rung"
    probe = run_trial(
        "probe", task=task | {"attempt": 2, "resume_from": waited.report.checkpoint}, **settings
    )
    assert (probe.report.outcome, probe.report.checkpoint) == (
        "completed",
        "checkpoints/checkpoint-10",
    )
    full = continued(run_trial, probe, task={"schedule": "full"}, **settings)
    assert full.report.outcome == "completed" and full.run.total_steps == 20
    assert figures(full, 0) == figures(straight, 10)
    assert weights(full) == weights(straight)
    assert (probe.folder / "checkpoints" / "checkpoint-10").is_dir(), "the probe keeps what is its"


def test_early_stopping_counts_across_the_end_of_such_a_probe(run_trial: Run) -> None:
    settings = {
        "finetuning_type": "full", "learning_rate": 0.5, "warmup_ratio": 0.0, "max_steps": 30, "eval_steps": 2,
        "val_size": 4, "early_stopping_patience": 3, "lr_scheduler_type": "constant",
    }  # fmt: skip
    straight = run_trial("straight", **settings)
    end = straight.report.step
    assert 8 < end < 30
    task = {"kind": "probe", "budget": (end - 3) / 30, "schedule": "full", "keep_checkpoint": True}
    probe = run_trial("probe", task=task, **settings)
    assert probe.report.step == end - 3
    full = continued(run_trial, probe, task={"schedule": "full", "save_model": False}, **settings)
    assert full.report.step == end and figures(full, 0) == figures(straight, end - 3)


def test_a_probe_of_its_own_schedule_continues_with_the_full_one_s_rate_coming_back(
    run_trial: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SETTINGS | {"max_steps": 60, "lr_scheduler_type": "linear", "warmup_ratio": 0.1}
    probe = run_trial(
        "probe", task={"kind": "probe", "budget": 0.25, "keep_checkpoint": True}, **settings
    )
    assert probe.report.step == 15
    capsys.readouterr()
    full = continued(run_trial, probe, **settings)
    assert full.report.outcome == "completed"
    assert [step for step, _ in full.losses] == list(range(16, 61))
    # The full training's rate is the profile's after 6 updates and falls to zero at the 60th; a tenth of the 45 updates
    # that are left, 4, bring it back.
    schedule = [0.01 * (60 - step) / 54 for step in range(15, 60)]
    back = [n / 5 for n in range(1, 5)] + [1.0] * 41
    rates = [p.lr for p in full.points if p.loss is not None]
    assert rates == pytest.approx(
        [rate * factor for rate, factor in zip(schedule, back, strict=True)]
    )
    per_update = probe.points[0].tokens
    first = next(p for p in full.points if p.loss is not None)
    assert first.tokens > probe.points[-1].tokens >= per_update * 10
    said = capsys.readouterr().out
    assert (
        "continues from the probe after step 15" in said
        and "comes back to the full training's over 4" in said
    )
    # The optimizer's states are the probe's: the rehearsal runs before the first update, which one without states never
    # does.
    assert first.loss < run_trial("fresh", **settings).losses[0][1]


def test_a_schedule_without_a_length_goes_on_as_the_probe_left_it(run_trial: Run) -> None:
    settings = SETTINGS | {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_steps": 1, "learning_rate": 0.5,
                           "lr_scheduler_kwargs": {"patience": 0}}  # fmt: skip
    probe = run_trial(
        "probe", task={"kind": "probe", "budget": 0.5, "keep_checkpoint": True}, **settings
    )
    straight = run_trial("straight", **settings)
    full = continued(run_trial, probe, **settings)
    assert figures(full, 0) == figures(straight, 10)
    assert min(p.lr for p in full.points if p.lr is not None) < 0.5


def test_such_a_training_can_be_paused_and_goes_on_exactly(run_trial: Run) -> None:
    settings = SETTINGS | {"max_steps": 40, "early_stopping_patience": 30}
    probe = run_trial(
        "probe", task={"kind": "probe", "budget": 0.25, "keep_checkpoint": True}, **settings
    )
    straight = continued(run_trial, probe, "straight", **settings)
    paused = continued(run_trial, probe, "paused", ask=("paused", 12), **settings)
    assert (paused.report.outcome, paused.report.step) == ("paused", 12)
    resumed = continued(
        run_trial, probe, "paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings
    )  # fmt: skip
    assert figures(resumed, 0) == figures(straight, 0)
    assert weights(resumed) == weights(straight)


def test_what_a_decayed_probe_came_to_is_no_measure_of_the_training_that_continues(
    run_trial: Run,
) -> None:
    settings = {
        "max_steps": 30, "val_size": 4, "eval_steps": 1, "early_stopping_patience": 2, "finetuning_type": "full",
        "learning_rate": 0.5, "lr_scheduler_type": "constant", "warmup_ratio": 0.0,
    }  # fmt: skip
    probe = run_trial(
        "probe", task={"kind": "probe", "budget": 0.1, "keep_checkpoint": True}, **settings
    )
    state_file = probe.folder / str(probe.report.checkpoint) / "trainer_state.json"
    state = json.loads(state_file.read_text())
    # As if its end had been better than anything that follows.
    state["log_history"].append({"eval_loss": 1e-9, "step": state["global_step"]})
    state["best_metric"] = 1e-9
    state_file.write_text(json.dumps(state))
    full = continued(run_trial, probe, **settings)
    evals = [p.eval_loss for p in full.points if p.eval_loss is not None]
    assert full.report.outcome == "completed" and full.report.step < 30
    assert len(evals) == evals.index(min(evals)) + 3
    # What it saves is the best of its own weights.
    again = run_trial(
        "again", model_name_or_path=str(full.folder / "output"), finetuning_type="full", learning_rate=1e-30,
        max_steps=1, val_size=4,
    )  # fmt: skip
    assert again.report.eval_loss == pytest.approx(min(evals), rel=1e-5)


def test_a_training_that_continues_saves_as_its_own_profile_says(run_trial: Run) -> None:
    probe = run_trial(
        "probe", task={"kind": "probe", "budget": 0.25, "keep_checkpoint": True}, max_steps=20
    )
    full = continued(run_trial, probe, max_steps=20, save_steps=8, save_total_limit=9)
    saved = {p.name for p in (full.folder / "checkpoints").iterdir()}
    assert saved == {"checkpoint-8", "checkpoint-16", "checkpoint-20"}


def test_a_probe_that_was_the_full_training_only_has_to_be_saved(run_trial: Run) -> None:
    probe = run_trial("probe", task={"kind": "probe", "budget": 1.0, "keep_checkpoint": True})
    full = continued(run_trial, probe)
    assert (full.report.outcome, full.report.step) == ("completed", 4) and full.losses == []
    kept = probe.folder / str(probe.report.checkpoint) / "adapter_model.safetensors"
    assert weights(full) == kept.read_bytes()


@pytest.mark.parametrize("schedule", ["own", "full"])
def test_such_a_training_has_the_settings_of_its_own_profile(run_trial: Run, schedule: str) -> None:
    settings = SETTINGS | {"lr_scheduler_type": "linear", "warmup_ratio": 0.0}
    task = {"kind": "probe", "budget": 0.5, "schedule": schedule, "keep_checkpoint": True}
    probe = run_trial("probe", task=task, **settings)
    changed = settings | {"learning_rate": 1e-4, "weight_decay": 0.3, "adam_beta2": 0.9}
    full = continued(
        run_trial, probe, task={"schedule": schedule, "keep_checkpoint": True}, **changed
    )
    rates = [p.lr for p in full.points if p.loss is not None]
    assert rates[1:] == pytest.approx([1e-4 * (20 - step) / 20 for step in range(11, 20)])
    saved = full.folder / str(full.report.checkpoint) / "optimizer.pt"
    decays, rest = torch.load(saved, weights_only=False)["param_groups"]
    assert (decays["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert decays["betas"] == rest["betas"] == (0.9, 0.9)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"per_device_train_batch_size": 4}, r"another effective batch \(8, not 4\)"),
        ({"data_seed": 1}, "another order of the data"),
        ({"order_seed": 1}, "another order of the data"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "another learning rate or schedule"),
    ],
)
def test_what_a_probe_s_checkpoint_cannot_be_continued_with_is_refused(
    run_trial: Run, changed: dict[str, Any], said: str
) -> None:
    task = {"kind": "probe", "budget": 0.5, "keep_checkpoint": True}
    probe = run_trial("probe", task=task, max_steps=4)
    report = continued(run_trial, probe, max_steps=4, **changed).report
    assert report.usage_error and re.search(said, report.error), report.error
    # Accumulated or not, a batch has the same rows; and the order is the same one, however it was asked for.
    same = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "order_seed": 42}
    assert continued(run_trial, probe, "same", max_steps=4, **same).report.outcome == "completed"


def test_a_checkpoint_that_is_gone_is_said_to_be(run_trial: Run) -> None:
    report = run_trial(task={"continues": "../other/checkpoints/checkpoint-7"}).report
    assert report.usage_error and "cannot continue from the probe" in report.error
    report = run_trial(task={"continues": "../other/checkpoints/last"}).report
    assert report.usage_error and "checkpoint-N" in report.error


@pytest.mark.parametrize("keep", [True, False])
def test_only_the_last_checkpoint_of_a_probe_is_kept_and_only_if_asked(
    run_trial: Run, keep: bool
) -> None:
    task = {"kind": "probe", "budget": 0.5, "keep_checkpoint": keep}
    ran = run_trial(task=task, max_steps=8, save_steps=1)
    folder: Path = ran.folder / "checkpoints"
    if keep:
        assert ran.report.checkpoint == "checkpoints/checkpoint-4"
        assert [p.name for p in folder.iterdir()] == ["checkpoint-4"]
    else:
        assert ran.report.checkpoint is None and not folder.exists()
