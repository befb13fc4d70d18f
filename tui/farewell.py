"""What is said in the terminal once the dashboard has left it."""

from core.study.store import StudyFolder
from tui.snapshot import StudyView
from tui.source import shell_path


def farewell(view: StudyView | None) -> list[str]:
    """What to say on leaving: what goes on without the dashboard, or where the winner is."""
    if view is None:
        return []
    if view.reading.recipe is not None:
        return _of_recipe(view)
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


def _of_recipe(view: StudyView) -> list[str]:
    """The same of a step of a recipe: what comes next does so without the dashboard."""
    recipe, place = view.reading.recipe, shell_path(view.folder.parent)
    if recipe is not None and recipe.after and (recipe.waits or recipe.done):
        return [f"{recipe.recipe}: {recipe.after}"]
    if view.status in ("paused", "stopped"):
        return [f"The recipe is {view.status}. tunedeck resume {place} lets it go on."]
    return [
        f"The recipe goes on without the dashboard. tunedeck attach {place} shows it again,",
        f"tunedeck stop {place} ends it.",
    ]
