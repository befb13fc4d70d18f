"""Paths as a person types them. Pure but for the home and the current folder."""

import os
import shlex
from pathlib import Path


def short_path(path: Path) -> str:
    """A path as a person would type it: from their home, or from the current folder, if shorter."""
    full = str(path)
    home = str(Path.home())
    candidates = [full]
    if full.startswith(home + os.sep):
        candidates.append("~" + full[len(home) :])
    try:
        relative = os.path.relpath(full)
    except (ValueError, OSError):
        relative = full
    if not relative.startswith(".."):
        candidates.append(relative)
    return min(candidates, key=len)


def shell_path(path: Path) -> str:
    """A short path as a shell takes it: a tilde within quotes would be no home."""
    short = short_path(path)
    home = "~/" if short.startswith("~/") else ""
    return home + shlex.quote(short.removeprefix(home))
