"""Ends the program at once when its terminal is gone."""

import os
import select
import signal
import sys
import threading
from types import FrameType

HANGUP_STATUS = 128 + signal.SIGHUP
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def leave_with_the_terminal() -> None:
    """End at once when the terminal is gone. Textual would not: it dies uncleanly on SIGHUP, and
    where that is ignored it reads the end of its input again and again, at a core's full load."""

    def hung_up(_signal: int, _frame: FrameType | None) -> None:
        os._exit(HANGUP_STATUS)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hung_up)
    threading.Thread(target=_wait_for_hangup, args=(sys.stdin.fileno(),), daemon=True).start()


def _wait_for_hangup(descriptor: int) -> None:
    # Asking for no event at all still reports a hang-up, so this sleeps until then.
    watch = select.poll()
    watch.register(descriptor, 0)
    while not any(
        event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in watch.poll()
    ):
        continue
    os._exit(HANGUP_STATUS)
