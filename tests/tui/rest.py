"""When a dashboard under test has come to rest.

Textual's own pilot takes a process that gets no time for one that has nothing to do, and goes on before what was typed
has had its effect: on a busy machine a test then looks too early. Here rest is read off the event loop itself.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

SOON = 0.05
"""Seconds: a timer that is due within them is waited for. A screen is painted within 1/60 s."""
TIMERS = 50
"""How many timers in a row are waited for: what moves on the screen for ever does not come to rest."""
PATIENCE = 120.0
"""Seconds that a thread may take, and callbacks that call for each other."""


class Gate(threading.Event):
    """An event at which a test holds a thread back; nobody waits for the end of a thread that is held."""

    _held: ClassVar[list["Gate"]] = []

    def wait(self, timeout: float | None = None) -> bool:
        Gate._held.append(self)
        try:
            return super().wait(timeout)
        finally:
            Gate._held.remove(self)

    @classmethod
    def held(cls) -> int:
        """How many threads wait at a gate that is closed."""
        return sum(not gate.is_set() for gate in tuple(cls._held))


class Rest:
    """Waits until nothing is under way: no callback, no timer that is about to go off, no thread."""

    def __init__(self, in_executor: Callable[..., asyncio.Future[Any]]) -> None:
        self._in_executor = in_executor
        self._threads: set[asyncio.Future[Any]] = set()

    def run_in_executor(
        self, loop: asyncio.AbstractEventLoop, *arguments: Any
    ) -> asyncio.Future[Any]:
        """What the loop's own method does, with the thread's end noted."""
        future = self._in_executor(loop, *arguments)
        self._threads.add(future)
        future.add_done_callback(self._threads.discard)
        return future

    async def come(self, *_: float) -> None:
        """Stands in for `textual._wait.wait_for_idle`."""
        loop = asyncio.get_running_loop()
        until = time.monotonic() + PATIENCE
        timers = 0
        while True:
            await _let_run(loop, until)
            if (due := _next_timer(loop)) is not None and timers < TIMERS:
                timers += 1
                await asyncio.sleep(max(0.0, due - loop.time()))
            elif self._busy(loop) > Gate.held():
                assert time.monotonic() < until, f"a thread has not ended after {PATIENCE:g} s"
                await asyncio.sleep(0.002)
            else:
                return

    def _busy(self, loop: asyncio.AbstractEventLoop) -> int:
        return sum(future.get_loop() is loop for future in tuple(self._threads))


async def _let_run(loop: Any, until: float) -> None:
    """Until nothing has been ready in two goes of the loop; between them it has asked what came from outside."""
    quiet = 0
    while quiet < 2:
        assert time.monotonic() < until, f"callbacks have not ended after {PATIENCE:g} s"
        await asyncio.sleep(0)
        quiet = 0 if loop._ready else quiet + 1


def _next_timer(loop: Any) -> float | None:
    """When the next timer goes off, in the loop's time, where that is soon."""
    due = min((t.when() for t in loop._scheduled if not t.cancelled()), default=None)
    return due if due is not None and due < loop.time() + SOON else None
