"""What the dashboard's tests share."""

import asyncio
from typing import Any

import pytest

from tests.tui.rest import Rest


@pytest.fixture(autouse=True)
def patient_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pilot.pause` and `pilot.press` wait until everything has had its effect, however busy the machine is."""
    rest = Rest(asyncio.BaseEventLoop.run_in_executor)

    def run_in_executor(loop: asyncio.AbstractEventLoop, *arguments: Any) -> asyncio.Future[Any]:
        return rest.run_in_executor(loop, *arguments)

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", run_in_executor)
    monkeypatch.setattr("textual.pilot.wait_for_idle", rest.come)
    monkeypatch.setattr("textual.app.wait_for_idle", rest.come)
