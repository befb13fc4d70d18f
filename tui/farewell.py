"""What is said in the terminal once the dashboard has left it."""

from core.study.store import StudyFolder
from tui.snapshot import StudyView
from tui.source import shell_path


def farewell(view: StudyView | None) -> list[str]:
    """What to say on leaving: what goes on without the dashboard, or where the winner is."""
    if view is None:
        return []
    tuned = StudyFolder(view.folder).tuned
    if not (view.live or view.reading.engine == "running"):
        if view.status != "finished" or not tuned.exists():
            return []
        return [f"The full training with the winner's settings: tunedeck train {shell_path(tuned)}"]
    place = shell_path(view.folder)
    return [
        f"The study goes on without the dashboard. tunedeck attach {place} shows it again,",
        f"tunedeck stop {place} ends it.",
    ]
