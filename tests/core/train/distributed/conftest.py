"""Trials that several processes train together, for real: two on the CPU, over gloo."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.devices.process import descendants
from core.profile import ROOT
from core.study.files import METRICS_FILE, REPORT_FILE, WorkerReport, read_record
from core.study.metrics import read_points
from tests.core.train.conftest import Ran
from tests.core.train.stages.conftest import pairs, tags  # noqa: F401  (fixtures)

TWO = {"processes": 2, "save_model": True}


class Worker:
    """A worker as the shim starts it."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        with (folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(ROOT / "tunedeck.py"), "_worker", str(folder)],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )

    def end(self) -> Ran:
        self.process.wait(600)
        report = read_record(self.folder / REPORT_FILE, WorkerReport)
        assert report is not None, self.log
        return Ran(self.folder, report)

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def wait_for_step(self, step: int) -> None:
        until(
            lambda: (points := read_points(self.folder / METRICS_FILE)) and points[-1].step >= step
        )

    def others(self) -> list[int]:
        """The pids of the other ranks."""
        return [found.pid for found in descendants(self.process.pid)]


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


RunRanks = Callable[..., Ran]


@pytest.fixture
def run_ranks(prepare: Callable[..., Path]) -> RunRanks:
    """Train a trial with two processes."""

    def run(name: str, sharding: str, task: dict[str, Any] | None = None, **settings: Any) -> Ran:
        shared = {"resources__gpus_per_trial": 2, "resources__sharding": sharding}
        folder = prepare(name, TWO | (task or {}), **shared, **settings)
        return Worker(folder).end()

    return run


def weights(ran: Ran) -> dict[str, torch.Tensor]:
    (file,) = (ran.folder / "output").glob("*.safetensors")
    return load_file(file)
