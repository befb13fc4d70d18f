"""Trained runs and a way to export them in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.study.after import ExportReply, ExportRequest, Weights
from core.train.after.export import export
from tests.core.train.conftest import Ran, RunTrial


class FakeLine:
    """Takes what a process would tell its client."""

    def __init__(self) -> None:
        self.said: list[msgspec.Struct] = []

    def say(self, message: msgspec.Struct) -> None:
        self.said.append(message)

    def progress(self, what: str, done: int = 0, total: int = 0) -> None:
        """Progress is not looked at."""


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


@pytest.fixture
def trained(run_trial: RunTrial) -> Callable[..., Ran]:
    """Train a run that keeps its weights."""

    def train(name: str = "trial", **settings: Any) -> Ran:
        ran = run_trial(name, {"save_model": True}, **{"train__learning_rate": 0.02, **settings})
        assert ran.report.outcome == "completed", ran.report
        return ran

    return train


@pytest.fixture
def exported(line: Any, tmp_path: Path) -> Callable[..., ExportReply]:
    """Export a run's weights to `model/` in this process."""

    def run(ran: Ran, name: str = "model", **options: Any) -> ExportReply:
        weights = Weights(str(ran.folder / "output"), str(ran.folder))
        return export(ExportRequest(weights=weights, output=str(tmp_path / name), **options), line)

    return run
