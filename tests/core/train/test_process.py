"""The worker as a process: its signals, its exit codes, its memory cap."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.study.files import METRICS_FILE, REPORT_FILE, WorkerReport, read_record
from core.study.metrics import read_points

PROGRAM = Path(__file__).resolve().parents[3] / "tunedeck.py"
Prepare = Callable[..., Path]


def start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM), "_worker", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def report(folder: Path) -> WorkerReport:
    read = read_record(folder / REPORT_FILE, WorkerReport)
    assert read is not None
    return read


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[str]") -> None:
    while not any(p.step >= step for p in read_points(folder / METRICS_FILE)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_a_process_is_paused_by_sigusr1_and_deaf_to_the_terminal(prepare: Prepare) -> None:
    folder = prepare(max_steps=100_000)
    process = start(folder)
    wait_for_step(folder, 3, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    step = read_points(folder / METRICS_FILE)[-1].step
    wait_for_step(folder, step + 3, process)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    ended = report(folder)
    assert ended.outcome == "paused" and ended.checkpoint == f"checkpoints/checkpoint-{ended.step}"
    saved = {file.name for file in (folder / str(ended.checkpoint)).iterdir()}
    assert {
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
    } <= saved
    assert (
        "started in" in said
        and f"step {ended.step}/100000  loss" in said
        and f"paused at step {ended.step}" in said
    )
    assert "Warning" not in said


def test_signals_that_come_while_the_model_loads_are_honoured(prepare: Prepare) -> None:
    paused, stopped = prepare("paused"), prepare("stopped")
    processes = [start(paused), start(stopped)]
    for process, number in zip(processes, (signal.SIGUSR1, signal.SIGTERM), strict=True):
        while b"_worker" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        # Handlers are installed before anything heavy is imported; until then a signal would end the process.
        while not int(_status(process.pid, "SigCgt"), 16) & 1 << (number - 1):
            time.sleep(0.01)
        process.send_signal(number)
    for process in processes:
        assert process.wait(timeout=240) == 0
    assert (report(paused).outcome, report(paused).checkpoint, report(paused).step) == (
        "paused",
        None,
        0,
    )
    assert (report(stopped).outcome, report(stopped).step) == ("stopped", 0)
    assert not (paused / METRICS_FILE).exists() or not read_points(paused / METRICS_FILE)


def test_a_second_sigterm_ends_a_worker_at_once(prepare: Prepare) -> None:
    folder = prepare(max_steps=100_000)
    process = start(folder)
    wait_for_step(folder, 1, process)
    # While it is held, both signals cannot be taken between two steps.
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=240)
    assert report(folder).outcome == "stopped"


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_memory_beyond_the_cap_ends_as_a_reported_failure(prepare: Prepare) -> None:
    folder = prepare(
        limit_gib=1.5, per_device_train_batch_size=4096, gradient_accumulation_steps=1, val_size=0,
        dataset=str(_long_rows(prepare)), cutoff_len=256, precision="fp32",
    )  # fmt: skip
    process = start(folder)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 1, said
    ended = report(folder)
    assert (ended.outcome, ended.phase, ended.usage_error) == ("failed", "train", False)
    assert ended.error_type in ("RuntimeError", "MemoryError"), ended
    assert ended.error is not None and "you tried to allocate" in ended.error
    assert ended.peak_memory is not None and ended.peak_memory < 2 * 2**30


def _long_rows(prepare: Prepare) -> Path:
    file = prepare("data") / "long.jsonl"
    file.write_text(
        '{"instruction": "Say hello", "output": "%s"}\n' % ("hello there " * 120) * 1024
    )
    return file


@pytest.mark.parametrize(("case", "code"), [("nothing", 2), ("profile", 2), ("data", 2)])
def test_wrong_input_exits_with_2_and_a_sentence(
    prepare: Prepare, tmp_path: Path, case: str, code: int
) -> None:
    folder = prepare()
    if case == "nothing":
        (folder / "task.json").unlink()
    elif case == "profile":
        (folder / "trial.toml").write_text(
            '[model]\nmodel_name_or_path = "x"\n[data]\ndataset = "y"\ncutof_len = 5\n'
        )
    else:
        text = (folder / "trial.toml").read_text()
        (folder / "trial.toml").write_text(text.replace("rows.jsonl", "missing.jsonl"))
    process = start(folder)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == code, said
    assert "Traceback" not in said
    words: dict[str, Any] = {
        "nothing": "task.json",
        "profile": "cutoff_len",
        "data": "missing.jsonl",
    }
    assert words[case] in said
    if case != "nothing":
        assert report(folder).usage_error and words[case] in str(report(folder).error)
