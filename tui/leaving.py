"""Ctrl-C in a command: it ends with a status of its own and one line that says what goes on without the terminal."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from tui.paths import shell_path

STATUS = 128 + signal.SIGINT
"""What shells have for a command that Ctrl-C ended."""
NOTHING = "nothing was left behind"


@contextmanager
def goes_on(text: Callable[[], str]) -> Iterator[None]:
    """Whoever leaves within it is told `text`: what goes on, and how to come back to it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(text())
        raise


@contextmanager
def first_done() -> Iterator[None]:
    """Ctrl-C within it counts when it is over, so that what is begun there is either there or not. A second one does
    not wait."""
    alone = threading.current_thread() is not threading.main_thread()
    if alone or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    pressed = False

    def press(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def say(interrupt: KeyboardInterrupt, out: TextIO | None = None) -> int:
    """Say what becomes of what was begun, in one line on the error output; the exit status."""
    out = out or sys.stderr
    notes = getattr(interrupt, "__notes__", None) or [NOTHING]
    # The terminal has written ^C where a line of progress may stand.
    clear = "\r\x1b[K" if out.isatty() else ""
    # The Ctrl-C may have ended what reads the error output as well.
    with suppress(OSError):
        print(f"{clear}tunedeck: interrupted; {notes[0]}", file=out)
    return STATUS


def of_study(folder: Path) -> str:
    """What becomes of a study when its watcher leaves."""
    from core.engine.client import daemon_alive, needs_daemon
    from core.study.store import StudyError, StudyReader

    shown = shell_path(folder)
    try:
        state = StudyReader(folder).state
    except StudyError:
        return f"`tunedeck studies` lists {shown} if it began"
    status = state.status
    if needs_daemon(state, daemon_alive(folder)):
        return f"the study's engine is gone: `tunedeck attach {shown}` starts it again, and the study goes on"
    if status == "running":
        return f"the study goes on: `tunedeck attach {shown}` watches it, `tunedeck stop {shown}` ends it"
    return f"the study is {status}: `tunedeck attach {shown}` shows it"


def of_recipe(folder: Path) -> str:
    """What becomes of a recipe when its watcher leaves."""
    from core.engine.recipes.handover import carrier_alive, stands
    from core.engine.recipes.plan import Rest
    from core.study.recipes import RecipeReader
    from core.study.store import StudyError

    shown = shell_path(folder)
    try:
        action = stands(RecipeReader(folder))
    except StudyError:
        return f"`tunedeck studies` lists {shown} if it began"
    if isinstance(action, Rest) and action.kind == "done":
        return f"the recipe is done: `tunedeck status {shown}` shows it"
    if isinstance(action, Rest) and action.kind != "running" and not carrier_alive(folder):
        return f"the recipe waits: `tunedeck status {shown}` says for what"
    if not isinstance(action, Rest) and not carrier_alive(folder):
        return f"the recipe waits: `tunedeck attach {shown}` carries it on"
    return (
        f"the recipe goes on: `tunedeck attach {shown}` watches it, `tunedeck stop {shown}` ends it"
    )
