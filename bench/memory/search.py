"""How long the search for a fix takes: runs of a 7B model that do not fit 24 GiB, two dry runs at a time."""

import json
import os
import tempfile
import time
from pathlib import Path

from bench.memory.goal import reached
from bench.memory.published import shape
from core.engine.memory.target import imagined
from core.memory.architecture import find_architecture
from core.memory.fixes import Advice, find_fixes
from core.memory.forecast import GIB, GUARD_UNKNOWN, Lengths
from core.memory.prover import Prover
from core.profile import Profile, loads

WANTED = 20.0
"""Seconds by the clock, on two cores that do nothing else."""
LENGTHS = Lengths(2048, 0, measured=True)


def search(profile: Profile) -> tuple[Advice, float]:
    """What is found for `profile` on 24 GiB, and the seconds that it took, the start of the dry runs included."""
    target = imagined(24, profile)
    began = time.monotonic()
    with Prover(2) as prover:
        advice = find_fixes(
            profile,
            find_architecture(profile),
            target,
            LENGTHS,
            lambda wanted: prover.prove_all(list(wanted), target, LENGTHS),
            guard=GUARD_UNKNOWN,
            crashed=True,
        )
    return advice, time.monotonic() - began


def main(arguments: list[str]) -> int:
    """Print what is found, and how long it takes; 1 where it takes too long."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape("llama2-7b")))
        for method in ("lora", "full"):
            profile = loads(
                f'[model]\nmodel_name_or_path = "{folder}"\n[data]\ndataset = "demo"\nval_size = 0\n'
                f'[method]\nfinetuning_type = "{method}"\n'
            )
            advice, seconds = search(profile)
            slowest = max(slowest, seconds)
            needs = advice.forecast.total / GIB
            print(f"{method}, needs {needs:.1f} GiB: {seconds:.1f} s, {advice.tried} dry runs")
            for fix in advice.fixes:
                grade = "proven" if fix.proven else "estimate"
                print(f"  {fix.forecast.total / GIB:5.1f} GiB, {grade}: {fix.text}")
    return 0 if reached("the slowest search", slowest, WANTED, "s") else 1
