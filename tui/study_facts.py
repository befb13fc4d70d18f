"""What the judgements of `core.doctor` are asked with, read from a study's folder."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.study.store import StudyReader

if TYPE_CHECKING:
    from core.doctor import Examination

_TABLES = ("resources", "memory", "data", "model", "method", "alignment", "train")


def study_examination(reader: StudyReader) -> Examination | None:
    """What the trials of a study say together; None where nothing was searched."""
    from core.engine.judgement import examination

    state = reader.state
    if not any(t.kind == "probe" for t in state.trials.values()):
        return None
    document = profile_document(reader.folder.profile)
    values, space = profile_values(document), search_space(document)
    return examination(state.trials.values(), space, state.rank_by, state.direction, values)


def profile_document(path: Path) -> Mapping[str, Any]:
    """A profile's file, unchecked; empty where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def profile_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a profile's document by parameter name."""
    values: dict[str, Any] = {}
    for table in _TABLES:
        content = document.get(table)
        if isinstance(content, dict):
            values.update(content)
    return values


def search_space(document: Mapping[str, Any]) -> dict[str, Any]:
    """The search space of a profile's document: parameter name → a list, or a table of a range."""
    space = search_table(document).get("space")
    return space if isinstance(space, dict) else {}


def search_table(document: Mapping[str, Any]) -> dict[str, Any]:
    """The [search] table of a profile's document; empty where there is none."""
    search = document.get("search")
    return search if isinstance(search, dict) else {}
