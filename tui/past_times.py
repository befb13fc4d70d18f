"""How long a training like the present draft took in a study that is there already: what GPU time is told by."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.profile import Profile
from core.study.files import RunInfo, read_record
from core.study.store import PROFILE_FILE, StudyError, StudyReader
from tui.plan import PastTime

MOST_STUDIES = 12
"""So many studies are looked at, newest first."""
_DECISIVE = ("model", "method", "data")
_OF_TRAINING = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "precision",
    "gradient_checkpointing", "optim",
)  # fmt: skip
"""What of [train] a training's length and speed depend on."""


def past_time(profile: Profile, studies: Iterable[Path]) -> PastTime | None:
    """The newest study that trains the same model on the same data, and how long its full training takes.

    What either of them searches may differ. None where there is no such study in which a trial has run.
    """
    wanted = profile.to_document()
    for place, folder in enumerate(studies):
        if place >= MOST_STUDIES:
            break
        if _alike(wanted, _document(folder)):
            found = _timed(folder)
            if found is not None:
                return found
    return None


def _document(folder: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads((folder / PROFILE_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _traits(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides about a training's time, by parameter name."""
    found: dict[str, Any] = {}
    for table in _DECISIVE:
        found |= document.get(table, {})
    train = document.get("train", {})
    return found | {name: train[name] for name in _OF_TRAINING if name in train}


def _alike(wanted: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two profiles agree on everything that decides and that neither searches."""
    one, two = _traits(wanted), _traits(other)
    names = one.keys() | two.keys()
    for document in (wanted, other):
        names -= document.get("search", {}).get("space", {}).keys()
    return bool(two) and all(one.get(name) == two.get(name) for name in names)


def _timed(folder: Path) -> PastTime | None:
    """How long the full training takes at the speed of the study's trials; None before any has run."""
    try:
        reader = StudyReader(folder)
    except StudyError:
        return None
    seconds = shares = 0.0
    on_gpu = False
    for trial in reader.state.trials.values():
        if trial.seconds <= 0 or trial.step <= 0:
            continue
        run = read_record(reader.folder.trial(trial.number).run, RunInfo)
        if run is not None and run.full_steps > 0:
            gpus = trial.attempt.gpus if trial.attempt is not None else ()
            on_gpu = on_gpu or bool(gpus)
            seconds += trial.seconds * max(1, len(gpus))
            shares += trial.step / run.full_steps
    if not shares:
        return None
    return PastTime(seconds / shares, reader.state.name or folder.name, on_gpu)
