"""Where a profile is saved, as a person types it."""

import re
from pathlib import Path

from tui.source import short_path


def slug(name: str) -> str:
    """A profile's name as the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "profile"


def profile_path(text: str) -> Path:
    """The file that is meant; .toml is added where it is missing."""
    path = Path(text.strip()).expanduser()
    return path if path.suffix == ".toml" else path.with_name(f"{path.name}.toml")


def path_problem(text: str) -> str | None:
    """Why nothing can be saved there; None if it can."""
    if not text.strip() or text.strip().endswith("/"):
        return "a file needs a name"
    typed, path = Path(text.strip()).expanduser(), profile_path(text)
    if typed.is_dir() or path.is_dir():
        return f"{typed} is a folder: add a file name, such as {typed / 'tuned.toml'}"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    return None


def path_note(text: str) -> str | None:
    """What is good to know before Enter is pressed."""
    if not text.strip():
        return None
    path = profile_path(text)
    exists = ", which exists and would be replaced" if path.exists() else ""
    return f"{short_path(path.absolute())}{exists}"
