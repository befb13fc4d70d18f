"""What is said in the terminal once the dashboard has left it."""

import shlex

from tui.snapshot import StudyView
from tui.source import short_path


def farewell(view: StudyView | None) -> list[str]:
    """What to say on leaving: nothing, unless something goes on without the dashboard."""
    if view is None or not (view.live or view.reading.engine == "running"):
        return []
    place = shlex.quote(short_path(view.folder))
    return [
        f"The study goes on without the dashboard. tunedeck attach {place} shows it again,",
        f"tunedeck stop {place} ends it.",
    ]
