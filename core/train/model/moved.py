"""Where the model is that trained weights belong to, also after both have moved."""

from pathlib import Path

from core.profile import ProfileError, is_path, load
from core.study.store import PROFILE_FILE


def base_now(base: str, weights: Path) -> str:
    """The model `base`, as the weights in the folder `weights` name it, where it is now.

    What was trained names its base by the place that it had then. A step of a recipe starts from a folder of the same
    recipe, and its study's profile names that one from its own folder: both may have moved. `base` itself where it is
    there, is no path, or nothing better is known.
    """
    if not is_path(base) or Path(base).expanduser().exists():
        return base
    if (beside := weights / base).exists():
        return str(beside)
    # study/trials/0001/output, and one level deeper a checkpoint.
    for study in list(weights.resolve().parents)[2:4]:
        if (study / PROFILE_FILE).is_file():
            return _of_study(study, Path(base).name) or base
    return base


def _of_study(study: Path, name: str) -> str | None:
    """The folder `name` that the study's profile starts from, where it is there."""
    try:
        found = Path(load(study / PROFILE_FILE).model.model_name_or_path)
    except ProfileError:
        return None
    return str(found) if found.name == name and found.is_dir() else None
