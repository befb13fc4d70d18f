"""A trial from its folder to its report."""

import math
import resource
from collections.abc import Callable
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


def test_a_completed_trial_reports_its_losses_and_what_it_ran(run_trial: Run) -> None:
    ran = run_trial()
    assert ran.report.outcome == "completed" and ran.report.phase == "done" and ran.report.step == 4
    assert [step for step, _ in ran.losses] == [1, 2, 3, 4]
    assert ran.report.loss == ran.losses[-1][1]
    assert ran.report.eval_loss == ran.points[-1].eval_loss
    assert (ran.run.total_steps, ran.run.full_steps, ran.run.precision, ran.run.device) == (
        4,
        4,
        "fp32",
        "CPU",
    )
    assert (ran.run.train_rows, ran.run.eval_rows, ran.run.dropped_rows) == (23, 1, 0)
    assert ran.report.peak_memory is not None and ran.report.peak_memory > 1e8
    assert not (ran.folder / "checkpoints").exists() and not (ran.folder / "output").exists()


def test_the_same_profile_twice_gives_the_same_losses_bit_for_bit(run_trial: Run) -> None:
    first = run_trial("one", lora_dropout=0.2)
    second = run_trial("two", lora_dropout=0.2)
    assert first.losses == second.losses
    assert first.report.eval_loss == second.report.eval_loss


@pytest.mark.parametrize("stop_at", [3, 6, 8])
def test_a_paused_trial_goes_on_exactly_as_if_it_had_not_been_paused(
    run_trial: Run, stop_at: int
) -> None:
    settings = {"lora_dropout": 0.3, "max_steps": 14, "eval_steps": 4, "neftune_noise_alpha": 5.0}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", stop_at), **settings)
    assert paused.report.outcome == "paused"
    assert paused.report.checkpoint == f"checkpoints/checkpoint-{stop_at}"
    resumed = run_trial(
        "paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings
    )
    assert resumed.report.outcome == "completed"
    assert resumed.losses == straight.losses
    assert [p.lr for p in resumed.points] == [p.lr for p in straight.points]
    assert [p.eval_loss for p in resumed.points] == [p.eval_loss for p in straight.points]
    assert resumed.points[-1].step == 14
    assert [p.tokens for p in resumed.points] == [p.tokens for p in straight.points]


def test_full_training_resumes_exactly_too(run_trial: Run) -> None:
    settings = {"finetuning_type": "full", "learning_rate": 1e-3, "max_steps": 6}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 2), **settings)
    resumed = run_trial(
        "paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings
    )
    assert resumed.losses == straight.losses


def test_a_pause_before_training_begins_starts_over(run_trial: Run) -> None:
    ran = run_trial(ask=("paused", 0))
    assert ran.report.outcome == "paused" and ran.report.checkpoint is None and ran.report.step == 0


def test_a_resumed_trial_that_is_paused_before_it_begins_keeps_its_checkpoint(
    run_trial: Run,
) -> None:
    first = run_trial(ask=("paused", 2))
    again = run_trial(
        task={"attempt": 2, "resume_from": first.report.checkpoint}, ask=("paused", 0)
    )
    assert again.report.outcome == "paused" and again.report.checkpoint == first.report.checkpoint


def test_a_stopped_trial_ends_after_its_step_without_a_checkpoint(run_trial: Run) -> None:
    ran = run_trial(ask=("stopped", 2))
    assert (
        ran.report.outcome == "stopped" and ran.report.step == 2 and ran.report.checkpoint is None
    )
    assert not list((ran.folder / "checkpoints").glob("*"))


def test_a_rate_of_100_shows_in_the_metrics_and_is_not_filtered(run_trial: Run) -> None:
    ran = run_trial(finetuning_type="full", learning_rate=100.0, max_steps=8, warmup_ratio=0.0)
    worst = [loss for _, loss in ran.losses]
    assert any(not math.isfinite(loss) or loss > 20 for loss in worst)


def test_a_loss_that_is_no_number_is_written_as_such(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        out.loss = out.loss * math.nan
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", broken)
    ran = run_trial()
    assert all(math.isnan(loss) for _, loss in ran.losses) and len(ran.losses) == 4
    assert any(p.eval_loss is not None and math.isnan(p.eval_loss) for p in ran.points)
    assert ran.report.loss is None and ran.report.eval_loss is None


def test_a_probe_runs_its_share_with_a_schedule_of_its_own_length(run_trial: Run) -> None:
    ran = run_trial(
        task={"kind": "probe", "budget": 0.3},
        max_steps=20,
        lr_scheduler_type="linear",
        warmup_ratio=0.0,
    )
    rates = [p.lr for p in ran.points if p.lr is not None]
    assert (ran.run.total_steps, ran.run.full_steps) == (6, 20)
    assert rates == pytest.approx([0.01 * (6 - n) / 6 for n in range(6)])


def test_training_stops_when_the_evaluation_loss_stops_improving(run_trial: Run) -> None:
    ran = run_trial(
        finetuning_type="full", learning_rate=1.0, warmup_ratio=0.0, max_steps=12, eval_steps=1, val_size=4,
        early_stopping_patience=2,
    )  # fmt: skip
    evals = [p.eval_loss for p in ran.points if p.eval_loss is not None]
    best = evals.index(min(evals))
    assert ran.report.outcome == "completed"
    assert len(evals) == best + 3 < 12


def test_the_best_weights_are_what_an_early_stopped_training_saves(run_trial: Run) -> None:
    ran = run_trial(
        task={"save_model": True}, finetuning_type="full", learning_rate=0.5, warmup_ratio=0.0, max_steps=12,
        eval_steps=1, val_size=4, early_stopping_patience=2, lr_scheduler_type="constant",
    )  # fmt: skip
    evals = [p.eval_loss for p in ran.points if p.eval_loss is not None]
    again = run_trial(
        "again", model_name_or_path=str(ran.folder / "output"), finetuning_type="full", learning_rate=1e-30,
        max_steps=1, val_size=4,
    )  # fmt: skip
    assert again.report.eval_loss == pytest.approx(min(evals), rel=1e-5)


def test_a_pause_does_not_change_when_training_stops_early_nor_what_is_best(run_trial: Run) -> None:
    settings = {
        "finetuning_type": "full", "learning_rate": 0.5, "warmup_ratio": 0.0, "max_steps": 12, "eval_steps": 1,
        "val_size": 4, "early_stopping_patience": 3, "lr_scheduler_type": "constant",
    }  # fmt: skip
    straight = run_trial("straight", task={"save_model": True}, **settings)
    end = straight.report.step
    assert end < 12
    paused = run_trial("paused", task={"save_model": True}, ask=("paused", end - 1), **settings)
    resumed = run_trial(
        "paused",
        task={"save_model": True, "attempt": 2, "resume_from": paused.report.checkpoint},
        **settings,
    )
    assert resumed.report.step == end and resumed.losses == straight.losses
    saved = [
        (ran.folder / "output" / "model.safetensors").read_bytes() for ran in (straight, resumed)
    ]
    assert saved[0] == saved[1]


def test_an_unexpected_exception_becomes_a_report_with_its_type(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from core.train.data.batches import Collator

    def fail(self: Any, batch: Any) -> Any:
        raise ZeroDivisionError("nothing works")

    monkeypatch.setattr(Collator, "__call__", fail)
    report = run_trial().report
    assert (report.outcome, report.phase, report.error_type) == (
        "failed",
        "train",
        "ZeroDivisionError",
    )
    assert report.error == "ZeroDivisionError: nothing works" and not report.usage_error
    assert "Traceback" in capsys.readouterr().out


def test_a_full_disk_is_said_to_be_full(run_trial: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.study.metrics import MetricsWriter

    def fail(self: Any, point: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetricsWriter, "write", fail)
    report = run_trial().report
    assert report.outcome == "failed" and not report.usage_error
    assert report.error is not None and report.error.startswith("the disk is full")


def test_a_checkpoint_that_did_not_fit_on_the_disk_is_removed(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.stages.base import StageTrainer

    def fail(self: Any, folder: str) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(StageTrainer, "_save_rng_state", fail)
    ran = run_trial(ask=("paused", 2))
    assert ran.report.outcome == "failed" and "the disk is full" in ran.report.error
    assert list((ran.folder / "checkpoints").iterdir()) == []


def test_checkpoints_come_as_often_as_asked_and_old_ones_go(run_trial: Run) -> None:
    ran = run_trial(max_steps=7, save_steps=2, save_total_limit=2)
    assert sorted(p.name for p in (ran.folder / "checkpoints").iterdir()) == [
        "checkpoint-6",
        "checkpoint-7",
    ]


def test_a_checkpoint_saved_on_the_way_can_be_resumed_exactly(run_trial: Run) -> None:
    settings = {"save_steps": 3, "max_steps": 8, "lora_dropout": 0.2, "logging_steps": 3}
    straight = run_trial("straight", **settings)
    stopped = run_trial("stopped", ask=("stopped", 4), **settings)
    assert stopped.report.outcome == "stopped"
    again = run_trial(
        "stopped", task={"attempt": 2, "resume_from": "checkpoints/checkpoint-3"}, **settings
    )
    assert again.losses == straight.losses
    assert again.points[-2].tokens == straight.points[-2].tokens


def test_an_incomplete_checkpoint_is_refused(run_trial: Run) -> None:
    report = run_trial(task={"resume_from": "checkpoints/checkpoint-9"}).report
    assert report.usage_error and "no complete checkpoint" in report.error


def test_evaluation_weighs_tokens_so_that_the_batch_size_does_not_matter(run_trial: Run) -> None:
    one, many = (
        run_trial(
            str(size), per_device_eval_batch_size=size, val_size=8, max_steps=1
        ).report.eval_loss
        for size in (1, 5)
    )
    assert one == pytest.approx(many, rel=1e-6)


def test_accumulation_does_not_change_the_loss(run_trial: Run) -> None:
    """Rows differ in length: only a mean over tokens is the same however the batch is cut."""
    losses = [
        [
            loss
            for _, loss in run_trial(
                f"{batch}x{steps}",
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=steps,
            ).losses
        ]
        for batch, steps in ((4, 1), (2, 2), (1, 4))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(
        losses[0], rel=1e-4
    )


def test_the_adapter_that_is_saved_loads_with_peft(run_trial: Run, model_dir: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = run_trial(task={"save_model": True}).folder / "output"
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    tuned = PeftModel.from_pretrained(base, output)
    learnt = [p for n, p in tuned.named_parameters() if "lora_B" in n]
    assert learnt and all(bool(p.abs().sum() > 0) for p in learnt)
    assert AutoTokenizer.from_pretrained(output).chat_template


def test_the_model_that_is_saved_loads_with_transformers(run_trial: Run, model_dir: Any) -> None:
    from transformers import AutoModelForCausalLM

    ran = run_trial(
        task={"save_model": True}, finetuning_type="full", max_steps=1, warmup_ratio=0.0
    )
    before = AutoModelForCausalLM.from_pretrained(model_dir)
    after = AutoModelForCausalLM.from_pretrained(ran.folder / "output")
    key = "model.layers.0.mlp.up_proj.weight"
    assert after.dtype == torch.float32
    assert not torch.equal(after.state_dict()[key], before.state_dict()[key])


def test_a_failure_in_an_evaluation_is_said_to_be_one(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            raise RuntimeError("out of memory")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", fail)
    report = run_trial(max_steps=3, eval_steps=1).report
    assert (report.outcome, report.phase, report.step) == ("failed", "eval", 1)
    assert report.moment == "eval"


def test_a_probe_that_is_done_keeps_no_checkpoints(run_trial: Run) -> None:
    ran = run_trial(task={"kind": "probe", "budget": 0.5}, max_steps=8, save_steps=2)
    assert ran.report.outcome == "completed" and not (ran.folder / "checkpoints").exists()


@pytest.mark.parametrize("ask", [None, ("stopped", 0)])
def test_the_memory_cap_does_not_stand_in_the_way_of_a_report(run_trial: Run, ask: Any) -> None:
    report = run_trial(ask=ask, limit_gib=500.0, lora_target="nope").report
    assert report.outcome == ("stopped" if ask else "failed")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    assert soft == hard
