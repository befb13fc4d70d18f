"""What a proof costs: python -m bench memory speed

LoRA and QLoRA of a model of 7 billion parameters, one row of 2048 tokens, with checkpointing: the first answer of
a process that is started for it, and the next one.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import psutil

from bench.memory.goal import reached
from bench.memory.published import shape
from core.memory.forecast import Lengths, Target
from core.memory.prover import Prover
from core.profile import loads

GPU = Target(kind="cuda", total=24 * 2**30, free=24 * 2**30, capability=(8, 0))
LENGTHS = Lengths(2048, 0)


def main(arguments: list[str]) -> int:
    """Print seconds by the clock and of computing, and the process's largest size; 1 where a goal is missed."""
    slowest = most = 0.0
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape("llama2-7b")))
        for name, bits in (("LoRA", None), ("QLoRA", 4)):
            profile = loads(
                f'[model]\nmodel_name_or_path = "{folder}"\n[data]\ndataset = "demo"\n'
            ).with_changes(
                {
                    "model.quantization_bit": bits,
                    "train.per_device_train_batch_size": 1,
                    "train.gradient_accumulation_steps": 1,
                    "train.gradient_checkpointing": True,
                }
            )
            with Prover() as prover:
                spent = 0.0
                for which in ("first", "next"):
                    began = time.monotonic()
                    forecast = prover.prove(profile, GPU, LENGTHS)
                    seconds = time.monotonic() - began
                    process = next(
                        child
                        for child in psutil.Process().children()
                        if "_dryrun" in child.cmdline()
                    )
                    times = process.cpu_times()
                    computing, spent = times.user + times.system - spent, times.user + times.system
                    largest = _largest(process.pid) / 2**30
                    slowest, most = max(slowest, seconds), max(most, largest)
                    print(
                        f"{name:<6} {which:<6} {seconds:5.2f} s by the clock, {computing:5.2f} s of computing, "
                        f"{largest:.2f} GiB; needs {forecast.needed / 2**30:.2f} GiB",
                        flush=True,
                    )
    good = [
        reached("the slowest proof", slowest, 6.0, "s"),
        reached("its process", most, 0.6, "GiB"),
    ]
    return 0 if all(good) else 1


def _largest(pid: int) -> int:
    """The largest resident set of a process so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
