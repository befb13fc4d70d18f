"""Runs the dashboard in a terminal, from the first frame to the last word."""

import os
import sys
from pathlib import Path

from tui.app import TunedeckApp
from tui.farewell import farewell
from tui.hangup import leave_with_the_terminal


def run_dashboard(study: Path | None = None, *, ascii: bool = False) -> int:
    """Run the dashboard in this terminal until it is quit; the exit status.

    NO_COLOR in the environment is obeyed. Without a terminal it says so and returns 2.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(
            "The dashboard needs a terminal. Use --headless, or `tunedeck status`.", file=sys.stderr
        )
        return 2
    ascii = ascii or not draws_unicode(sys.stdout.encoding, os.environ.get("TERM", ""))
    # A key waits for the thread that reads a study at most so long, instead of 5 ms each time.
    sys.setswitchinterval(0.001)
    leave_with_the_terminal()
    app = TunedeckApp(study=study, ascii=ascii)
    app.run()
    if app.return_code:
        return app.return_code
    for line in farewell(app.view):
        print(line)
    return 0


def draws_unicode(encoding: str, terminal: str) -> bool:
    """Whether block and braille characters can be shown: a Linux console's font has none."""
    return "utf" in encoding.lower() and terminal != "linux"
