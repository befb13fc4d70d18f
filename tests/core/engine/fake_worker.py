"""A worker without a model: writes what the real one writes, and misbehaves as the profile's notes tell it to.

The notes hold JSON: `steps`, `delay` (seconds a step), `oom_above` (a batch size), `diverge_above` (a learning rate),
`fail` (a sentence), `disk_full`, `kill_self` (a signal, at half of the run), `deaf` (ignores SIGTERM), `child` (leaves
a process in a session of its own), `silent` (ends with code 3 and no report), `late` (a learning rate above which it
diverges in its second half), `hang_at` (a step after which it does nothing until the file `go` is
there; only the trials numbered in `hang`, where that is given), `no_room` (no checkpoint can be saved at a rung while the file of this name exists).
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

FOLDER = Path(sys.argv[1])
PROFILE = tomllib.loads((FOLDER / "trial.toml").read_text())
TASK = json.loads((FOLDER / "task.json").read_text())
SCRIPT = json.loads(PROFILE["profile"]["notes"])
TRAIN = PROFILE["train"]


def write(name, record):
    temporary = FOLDER / f".{name}.tmp"
    temporary.write_text(json.dumps(record))
    temporary.replace(FOLDER / name)


def report(outcome, step, phase="train", **more):
    record = {"attempt": TASK["attempt"], "outcome": outcome, "phase": phase, "step": step, **more}
    write("report.json", {k: v for k, v in record.items() if v is not None})


def log(file, step, **more):
    file.write(
        json.dumps({"t": time.time(), "step": step, "attempt": TASK["attempt"], **more}) + "\n"
    )
    file.flush()


def run_info(total):
    write(
        "run.json",
        {
            "attempt": TASK["attempt"], "total_steps": total, "full_steps": 5 * total, "steps_per_epoch": 10.0,
            "train_rows": 100, "eval_rows": 10, "dropped_rows": 0, "trainable_parameters": 10, "parameters": 100,
            "precision": "fp32", "device": "CPU", "versions": {"fake": "1"}, "startup_seconds": 0.1,
        },
    )  # fmt: skip


def main():
    asked = []
    if SCRIPT.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: asked.append("stopped"))
    signal.signal(signal.SIGUSR1, lambda *_: asked.append("paused"))
    if SCRIPT.get("child"):
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
        )
    if SCRIPT.get("silent"):
        print("the last words")
        return 3
    if "fail" in SCRIPT:
        report("failed", 0, "load", error_type="UsageError", error=SCRIPT["fail"], usage_error=True)
        return 1
    if SCRIPT.get("disk_full"):
        report(
            "failed", 0, "train", error_type="OSError", error="[Errno 28] No space left on device"
        )
        return 1
    total = SCRIPT.get("steps", 10)
    run_info(total)
    if TRAIN["per_device_train_batch_size"] > SCRIPT.get("oom_above", 10**9):
        text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free."
        report("failed", 0, error_type="torch.OutOfMemoryError", error=text)
        return 1
    first = int(TASK["resume_from"].rpartition("-")[2]) if TASK.get("resume_from") else 0
    diverges = TRAIN["learning_rate"] > SCRIPT.get("diverge_above", 10**9)
    late = TRAIN["learning_rate"] > SCRIPT.get("late", 10**9)
    hang_at = (
        SCRIPT.get("hang_at") if TASK["trial"] in SCRIPT.get("hang", [TASK["trial"]]) else None
    )
    rung = max(1, math.ceil(TASK.get("until", 1.0) * total - 1e-9))
    if first >= rung:
        return at_rung(first)
    with (FOLDER / "metrics.jsonl").open("a") as metrics:
        for step in range(first + 1, total + 1):
            loss = 1.0 + 2.0 / step + 0.1 * abs(TRAIN["learning_rate"] - 1e-3) * 1e3
            broken = (diverges and step > 4) or (late and step > total / 2)
            log(
                metrics, step, loss="NaN" if broken else loss, mem_peak=1000 + step, tokens=8 * step
            )
            if SCRIPT.get("kill_self") and step == total // 2:
                os.kill(os.getpid(), SCRIPT["kill_self"])
            while not asked and step == hang_at and not (FOLDER / "go").exists():
                time.sleep(0.02)
            until = time.monotonic() + SCRIPT.get("delay", 0.0)
            while not asked and time.monotonic() < until:
                time.sleep(min(0.02, SCRIPT.get("delay", 0.0)))
            if asked:
                return end_early(asked[-1], step)
            if step == rung < total:
                log(metrics, step, eval_loss=loss + 0.5)
                return at_rung(step)
        log(metrics, total, eval_loss=loss + 0.5)
    kept = save(total) if TASK.get("keep_checkpoint") else None
    report(
        "completed",
        total,
        "done",
        loss=loss,
        eval_loss=loss + 0.5,
        peak_memory=5000,
        checkpoint=kept,
    )
    return 0


def end_early(outcome, step):
    report(outcome, step, checkpoint=save(step) if outcome == "paused" else None)
    return 0


def at_rung(step):
    if "no_room" in SCRIPT and Path(SCRIPT["no_room"]).exists():
        report(
            "failed", step, "save", error_type="OSError", error="[Errno 28] No space left on device"
        )
        return 1
    report("rung", step, checkpoint=save(step))
    return 0


def save(step):
    name = f"checkpoints/checkpoint-{step}"
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    (FOLDER / name / "trainer_state.json").write_text("{}")
    return name


sys.exit(main())
