"""When a dashboard under test counts as at rest."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.tui import rest
from tests.tui.rest import PATIENCE, Gate, Rest


def started(waits: Rest, work: Callable[[], Any]) -> asyncio.Future[Any]:
    """A thread of the running loop."""
    return waits.run_in_executor(asyncio.get_running_loop(), None, work)


@pytest.fixture
def waits() -> Rest:
    return Rest(asyncio.BaseEventLoop.run_in_executor)


async def test_a_thread_is_waited_for_and_what_it_leads_to(waits: Rest) -> None:
    let_go, told = threading.Event(), asyncio.Event()
    thread = started(waits, lambda: let_go.wait(PATIENCE))
    thread.add_done_callback(lambda _: told.set())
    # Further away than a timer that is itself waited for.
    asyncio.get_running_loop().call_later(3 * rest.SOON, let_go.set)
    await waits.come()
    assert thread.result() and told.is_set()


async def test_nobody_waits_for_a_thread_that_a_test_holds(waits: Rest) -> None:
    gate = Gate()
    thread = started(waits, lambda: gate.wait(PATIENCE))
    await waits.come()
    assert not thread.done() and Gate.held() == 1
    gate.set()
    await waits.come()
    assert thread.result() and Gate.held() == 0


async def test_a_timer_that_is_due_is_waited_for(waits: Rest) -> None:
    rang = asyncio.Event()
    asyncio.get_running_loop().call_later(rest.SOON / 2, rang.set)
    await waits.come()
    assert rang.is_set()


async def test_callbacks_that_call_for_each_other_for_ever_end_the_test(
    waits: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    monkeypatch.setattr(rest, "PATIENCE", 0.1)
    spinning = asyncio.create_task(spin())
    with pytest.raises(AssertionError, match="callbacks have not ended"):
        await waits.come()
    spinning.cancel()
