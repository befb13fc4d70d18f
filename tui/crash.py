"""What is left of an error that nobody caught: a report in a file, and a line for the user."""

import os
import time
import traceback
from pathlib import Path


def report_file() -> Path:
    """Where the report is written."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "tunedeck" / "dashboard-error.log"


def write_report(error: BaseException | None) -> str:
    """Write the traceback of `error` to the report's file; a sentence that says where it is."""
    if error is None:
        return "The dashboard stopped on an error that left no trace. Trials are not affected."
    summary = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    text = "".join(traceback.format_exception(error))
    file = report_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    except OSError:
        return f"The dashboard stopped on an error ({summary}). Trials are not affected."
    return (
        f"The dashboard stopped on an error ({summary}). Trials are not affected. "
        f"Details for a report: {file}"
    )
