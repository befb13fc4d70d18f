"""The checkpoints of a trial: which one it goes on from, and which ones stay."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.profile import Profile
from core.study.files import CHECKPOINTS, TrialTask
from core.train.errors import SettingsError

STATE_FILE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint: with it, the checkpoint is whole."""

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an attempt begins."""

    checkpoint: Path | None = None
    """None: at the start."""
    probe_end: int | None = None
    """The update that a probe ended with whose training this one continues; of later attempts too."""
    continues: bool = False
    """Whether this attempt is the one that goes on from the probe's checkpoint."""


def is_whole(checkpoint: Path) -> bool:
    """Whether everything that belongs into a checkpoint was written."""
    return (checkpoint / STATE_FILE).is_file()


def find_beginning(folder: Path, task: TrialTask, profile: Profile) -> Beginning:
    """Where the trial in `folder` begins: at its own checkpoint, at its probe's, or at the start.

    Raises:
        SettingsError: the checkpoint is not there, or is of another method.
    """
    ended = None if task.continues is None else _step_of(task.continues)
    name = task.resume_from or task.continues
    if name is None:
        return Beginning(probe_end=ended)
    checkpoint = folder / name
    if not is_whole(checkpoint):
        from_probe = task.resume_from is None
        whose = (
            "the training cannot continue from the probe"
            if from_probe
            else "the trial cannot go on from it"
        )
        raise SettingsError(
            f"{checkpoint} is no complete checkpoint, so that {whose}; start it over"
        )
    _check_method(checkpoint, profile)
    return Beginning(checkpoint, ended, continues=task.resume_from is None)


def _check_method(checkpoint: Path, profile: Profile) -> None:
    adapters = (checkpoint / "adapter_config.json").is_file()
    method = profile.method.finetuning_type
    if adapters != (method == "lora"):
        holds = "adapters" if adapters else "a whole model"
        raise SettingsError(
            f'{checkpoint} holds {holds}, which finetuning_type = "{method}" cannot go on from; start the trial over'
        )


def _step_of(checkpoint: str) -> int:
    found = _NAME.fullmatch(Path(checkpoint).name)
    if found is None:
        raise SettingsError(
            f"{checkpoint} is no checkpoint of a probe: those are called checkpoint-N, after N updates"
        )
    return int(found[1])


def keep_only(folder: Path, checkpoint: str) -> None:
    """Remove all checkpoints of the trial in `folder` but the whole one `checkpoint`, relative to it."""
    kept = folder / checkpoint
    if not is_whole(kept):
        return
    for other in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if other.name != kept.name:
            shutil.rmtree(other, ignore_errors=True)


def drop_torn(folder: Path) -> None:
    """Remove the checkpoints that were only half written."""
    for checkpoint in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)
