"""Several processes that train one trial together, for real: two on the CPU, over gloo."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.devices.process import identify
from core.study.files import REPORT_FILE
from tests.core.train.conftest import Ran, RunTrial
from tests.core.train.distributed.conftest import TWO, RunRanks, Worker, until, weights

EXACT = {"data__val_size": 4, "data__max_samples": 21, "train__eval_steps": 2}
"""An epoch that does not divide by the batch, and evaluations that do not divide by the ranks."""


def alive(pid: int) -> bool:
    return identify(pid) is not None


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("sharding", ["ddp", "zero1", "fsdp"])
def test_two_ranks_train_as_one_process_does(
    run_trial: RunTrial, run_ranks: RunRanks, sharding: str, method: str
) -> None:
    settings = EXACT | {"method__finetuning_type": method, "train__max_steps": 7}
    alone = run_trial(
        "alone", {"save_model": True}, train__gradient_accumulation_steps=4, **settings
    )
    ran = run_ranks("shared", sharding, train__gradient_accumulation_steps=2, **settings)
    assert ran.report.outcome == "completed", (ran.folder / "log.txt").read_text()
    for one, two in zip(alone.points, ran.points, strict=True):
        assert (one.step, one.tokens) == (two.step, two.tokens)
        for name in ("loss", "eval_loss", "grad_norm", "lr"):
            assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-5), (
                name,
                one.step,
            )
    expected, got = weights(alone), weights(ran)
    assert expected.keys() == got.keys()
    for name, weight in expected.items():
        # By tensor: Adam makes steps of a whole learning rate of gradients that are nothing but rounding.
        assert (got[name] - weight).norm() <= 1e-5 * weight.norm(), name
    assert sorted(p.name for p in (ran.folder / "output").iterdir()) == sorted(
        p.name for p in (alone.folder / "output").iterdir()
    )


@pytest.mark.parametrize(
    ("sharding", "settings", "close"),
    [
        ("fsdp", {"train__gradient_checkpointing": True, "train__loss_chunk_tokens": 16}, 1e-5),
        ("ddp", {"train__gradient_checkpointing": True, "data__packing": True}, 1e-5),
        ("ddp", {"train__loss_chunk_tokens": 16, "method__finetuning_type": "full"}, 1e-5),
        ("fsdp", {"train__precision": "bf16", "method__finetuning_type": "full"}, 2e-2),
        ("fsdp", {"train__precision": "pure_bf16", "train__gradient_checkpointing": True}, 2e-2),
        ("zero1", {"model__quantization_bit": 4, "train__optim": "adamw_torch_fused"}, 2e-2),
    ],
)
def test_what_saves_memory_works_shared(
    run_trial: RunTrial,
    run_ranks: RunRanks,
    sharding: str,
    settings: dict[str, Any],
    close: float,
) -> None:
    alone = run_trial("alone", train__gradient_accumulation_steps=4, **settings)
    ran = run_ranks("shared", sharding, **settings)
    assert ran.report.outcome == "completed", (ran.folder / "log.txt").read_text()
    for one, two in zip(alone.points, ran.points, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=close)
        assert two.grad_norm == pytest.approx(one.grad_norm, rel=10 * close)


@pytest.mark.parametrize(
    ("sharding", "settings"),
    [
        ("ddp", {"method__lora_dropout": 0.2}),
        ("zero1", {"method__finetuning_type": "full"}),
        ("fsdp", {"method__finetuning_type": "full"}),
        ("fsdp", {"method__lora_dropout": 0.2}),
    ],
)
def test_a_pause_leaves_no_trace(
    prepare: Callable[..., Path], run_ranks: RunRanks, sharding: str, settings: dict[str, Any]
) -> None:
    settings = settings | {"train__max_steps": 30, "data__val_size": 4, "train__eval_steps": 10}
    whole = run_ranks("whole", sharding, **settings)
    shared = {"resources__gpus_per_trial": 2, "resources__sharding": sharding}
    folder = prepare("paused", TWO, **shared, **settings)
    worker = Worker(folder)
    worker.wait_for_step(2)
    worker.process.send_signal(signal.SIGUSR1)
    first = worker.end()
    assert first.report.outcome == "paused", worker.log
    assert 2 <= first.report.step < 30
    resumed = run_ranks(
        "paused", sharding, {"attempt": 2, "resume_from": first.report.checkpoint}, **settings
    )
    assert resumed.report.outcome == "completed", worker.log
    assert resumed.losses == pytest.approx(whole.losses)
    assert resumed.points[-1].eval_loss == pytest.approx(whole.points[-1].eval_loss)
    assert resumed.points[-2].tokens == whole.points[-2].tokens


def test_one_process_goes_on_from_a_checkpoint_of_two(
    run_trial: RunTrial, prepare: Callable[..., Path]
) -> None:
    settings = {"method__finetuning_type": "full", "train__max_steps": 40}
    folder = prepare(
        "both", TWO, **settings, resources__gpus_per_trial=2, resources__sharding="fsdp"
    )
    worker = Worker(folder)
    worker.wait_for_step(2)
    worker.process.send_signal(signal.SIGUSR1)
    paused = worker.end()
    assert paused.report.checkpoint is not None
    again = {"attempt": 2, "resume_from": paused.report.checkpoint}
    done = run_trial("both", again, train__gradient_accumulation_steps=4, **settings)
    whole = run_trial("whole", train__gradient_accumulation_steps=4, **settings)
    assert done.report.outcome == "completed"
    # Rounding adds up with every update: what is compared comes soon after the change.
    soon = paused.report.step + 5
    for (step, ours), (_, theirs) in list(zip(done.losses, whole.losses, strict=True))[:soon]:
        assert ours == pytest.approx(theirs, rel=1e-5), step


def test_tied_weights_of_a_sharded_model_are_saved_as_one(
    run_trial: RunTrial, run_ranks: RunRanks
) -> None:
    settings: dict[str, Any] = {
        "model__model_name_or_path": "demo",
        "method__finetuning_type": "full",
        "data__cutoff_len": 32,
        "train__max_steps": 2,
        "train__learning_rate": 1e-4,
    }
    alone = run_trial(
        "alone", {"save_model": True}, train__gradient_accumulation_steps=4, **settings
    )
    ran = run_ranks("shared", "fsdp", **settings)
    assert ran.report.outcome == "completed", (ran.folder / "log.txt").read_text()
    expected, got = weights(alone), weights(ran)
    assert expected.keys() == got.keys()
    assert (ran.folder / "output" / "config.json").read_text() == (
        alone.folder / "output" / "config.json"
    ).read_text()
    assert all((got[n] - w).norm() <= 1e-5 * w.norm() for n, w in expected.items())


def test_the_best_weights_are_what_is_saved_of_replicas(
    run_trial: RunTrial, run_ranks: RunRanks
) -> None:
    settings: dict[str, Any] = {
        "method__finetuning_type": "full", "train__learning_rate": 0.5, "train__warmup_ratio": 0.0,
        "train__eval_steps": 1, "data__val_size": 4, "train__lr_scheduler_type": "constant",
    }  # fmt: skip
    ran = run_ranks(
        "best", "zero1", train__max_steps=12, train__early_stopping_patience=2, **settings
    )
    assert ran.report.outcome == "completed", (ran.folder / "log.txt").read_text()
    evals = [p.eval_loss for p in ran.points if p.eval_loss is not None]
    assert len(evals) == evals.index(min(evals)) + 3
    found = {"model__model_name_or_path": str(ran.folder / "output"), "train__max_steps": 1}
    again = run_trial("again", **settings | found | {"train__learning_rate": 1e-30})
    assert again.report.eval_loss == pytest.approx(min(evals), rel=1e-5)


PROBE = {
    "kind": "probe",
    "budget": 0.5,
    "keep_checkpoint": True,
    "save_model": False,
    "own_batch": 8,
}


@pytest.mark.parametrize(("sharding", "schedule"), [("fsdp", "own"), ("zero1", "full")])
def test_a_probe_waits_at_its_rung_and_continues_as_one_process_does(
    run_trial: RunTrial, run_ranks: RunRanks, sharding: str, schedule: str
) -> None:
    settings = EXACT | {
        "method__finetuning_type": "full", "train__max_steps": 20, "train__logging_steps": 3,
        "train__learning_rate": 1e-3,
    }  # fmt: skip

    def alone(name: str, task: dict[str, Any]) -> Ran:
        return run_trial(name, task, train__gradient_accumulation_steps=4, **settings)

    def shared(name: str, task: dict[str, Any]) -> Ran:
        return run_ranks(name, sharding, task, **settings)

    ends = []
    for name, run in (("alone", alone), ("shared", shared)):
        waits = run(name, PROBE | {"schedule": schedule, "until": 0.4})
        assert (waits.report.outcome, waits.report.step) == ("rung", 4), waits.report
        later = {"schedule": schedule, "attempt": 2, "resume_from": waits.report.checkpoint}
        probe = run(name, PROBE | later)
        assert probe.report.checkpoint == "checkpoints/checkpoint-10", probe.report
        assert len(list((probe.folder / "checkpoints").iterdir())) == 1
        begins = {"continues": f"../{name}/{probe.report.checkpoint}", "own_batch": 8}
        full = run(f"full {name}", begins | {"schedule": schedule, "save_model": True})
        assert full.report.outcome == "completed", full.report
        ends.append((probe.points + full.points, weights(full)))
    (expected, trained), (got, trained_shared) = ends
    for one, two in zip(expected, got, strict=True):
        assert (one.step, one.tokens) == (two.step, two.tokens)
        for figure in ("loss", "eval_loss", "grad_norm", "lr"):
            assert getattr(two, figure) == pytest.approx(getattr(one, figure), rel=1e-4), figure
    assert all((trained_shared[n] - w).norm() <= 1e-4 * w.norm() for n, w in trained.items())


def test_a_range_test_ends_on_all_ranks_where_its_loss_has_risen(
    run_trial: RunTrial, run_ranks: RunRanks
) -> None:
    task = {"kind": "range", "range_low": 1e-3, "range_high": 1e6, "range_steps": 60, "save_model": False}  # fmt: skip
    settings = {"method__finetuning_type": "full", "train__max_grad_norm": 0.0}
    alone = run_trial("alone", task, train__gradient_accumulation_steps=4, **settings)
    ran = run_ranks("shared", "ddp", task, **settings)
    assert ran.report.outcome == "completed", (ran.folder / "log.txt").read_text()
    assert 3 < ran.report.step == alone.report.step < 60
    assert not (ran.folder / "checkpoints").exists()


LONG = {"train__max_steps": 100_000, "resources__gpus_per_trial": 2}


def test_a_stop_ends_all_ranks(prepare: Callable[..., Path]) -> None:
    worker = Worker(prepare(task=TWO, **LONG))
    worker.wait_for_step(2)
    others = worker.others()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end().report.outcome == "stopped", worker.log
    assert worker.process.returncode == 0
    assert not any(alive(pid) for pid in others)


def test_no_rank_outlives_the_first(prepare: Callable[..., Path]) -> None:
    worker = Worker(prepare(task=TWO, **LONG))
    worker.wait_for_step(1)
    others = worker.others()
    worker.process.kill()
    worker.process.wait()
    assert len(others) == 1
    until(lambda: not any(alive(pid) for pid in others))


def test_a_rank_that_is_killed_ends_the_trial_as_it_ended(prepare: Callable[..., Path]) -> None:
    worker = Worker(prepare(task=TWO, **LONG))
    worker.wait_for_step(2)
    os.kill(worker.others()[0], signal.SIGKILL)
    assert worker.process.wait(240) == -signal.SIGKILL
    assert not (worker.folder / REPORT_FILE).exists()
    assert "the process of GPU 2 was ended by signal 9" in worker.log


def test_a_rank_that_runs_out_of_memory_ends_the_trial_with_its_reason(
    prepare: Callable[..., Path],
) -> None:
    # So that tensors of this size are asked of the system each time.
    worker = Worker(
        prepare(task=TWO, **LONG, train__per_device_train_batch_size=8),
        {"MALLOC_MMAP_THRESHOLD_": "4096"},
    )
    worker.wait_for_step(2)
    resource.prlimit(worker.others()[0], resource.RLIMIT_DATA, (2**20, resource.RLIM_INFINITY))
    ended = worker.end()
    assert (ended.report.outcome, ended.report.phase) == ("failed", "train"), worker.log
    assert ended.report.step >= 2
    assert (
        "allocate memory" in (ended.report.error or "") or ended.report.error_type == "MemoryError"
    )
    assert ended.report.moment in ("forward", "backward", "optimizer")
    assert worker.process.returncode == 1
    assert "the process of GPU 2 of 2 failed" in worker.log


def test_a_rank_that_cannot_write_its_part_leaves_no_torn_checkpoint(
    prepare: Callable[..., Path],
) -> None:
    worker = Worker(prepare(task=TWO, **LONG))
    worker.wait_for_step(2)
    # The random state does not fit, and Python is told so as of a full disk.
    resource.prlimit(worker.others()[0], resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    worker.process.send_signal(signal.SIGUSR1)
    report = worker.end().report
    assert (report.outcome, report.phase) == ("failed", "train"), worker.log
    assert "said nothing" not in (report.error or ""), report.error
    assert not list((worker.folder / "checkpoints").glob("checkpoint-*"))


def test_wrong_input_is_said_once_and_at_once(prepare: Callable[..., Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    worker = Worker(prepare(task=TWO, **LONG, data__dataset=str(empty)))
    report = worker.end().report
    assert report.usage_error and worker.process.returncode == 2
    assert worker.log.count("empty.jsonl") == 1, worker.log
