"""The checkpoints of a trial: which one it goes on from, and which ones stay."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.profile import Profile, ProfileError, load
from core.study.files import CHECKPOINTS, OUTPUT, TRIAL_FILE, TrialTask, is_whole
from core.train.errors import SettingsError
from core.train.plan import order_seed
from core.train.settings import ENDLESS

PARTIAL = f"{OUTPUT}.partial"
"""The folder of what a trial saves at its end, while it is written."""

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


def find_beginning(folder: Path, task: TrialTask, profile: Profile) -> Beginning:
    """Where the trial in `folder` begins: at its own checkpoint, at its probe's, or at the start.

    Raises:
        SettingsError: the checkpoint is not there, is of another method, or is of a probe whose training this one
            cannot continue.
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
    if task.resume_from is None:
        _check_probe(checkpoint, profile)
    return Beginning(checkpoint, ended, continues=task.resume_from is None)


def _check_method(checkpoint: Path, profile: Profile) -> None:
    adapters = (checkpoint / "adapter_config.json").is_file()
    method = profile.method.finetuning_type
    if adapters != (method == "lora"):
        holds = "adapters" if adapters else "a whole model"
        raise SettingsError(
            f'{checkpoint} holds {holds}, which finetuning_type = "{method}" cannot go on from; start the trial over'
        )


def _check_probe(checkpoint: Path, profile: Profile) -> None:
    """Raise SettingsError where what a probe's checkpoint counts and keeps would mean something else here."""
    try:
        probe = load(checkpoint.parent.parent / TRIAL_FILE)
    except ProfileError:
        # What is left of the probe is its checkpoint: there is nothing to compare with.
        return
    was, now = probe.train, profile.train
    changed = None
    if probe.effective_batch() != profile.effective_batch():
        changed = (
            f"another effective batch ({profile.effective_batch()}, not {probe.effective_batch()})"
        )
    elif (was.data_seed, order_seed(was)) != (now.data_seed, order_seed(now)):
        changed = "another order of the data"
    elif {was.lr_scheduler_type, now.lr_scheduler_type} & ENDLESS and (
        (was.lr_scheduler_type, was.learning_rate) != (now.lr_scheduler_type, now.learning_rate)
    ):
        # The rate of the moment is a part of their state.
        changed = (
            "another learning rate or schedule where one of them depends on how the probe went"
        )
    if changed is not None:
        raise SettingsError(
            f"the training cannot continue from the probe with {changed}; start it over"
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


def make_durable(folder: Path) -> None:
    """Have the files in `folder` on the disk, so that they outlive a machine that goes down.

    Raises:
        OSError: the disk fails.
    """
    for path in (*(p for p in folder.iterdir() if p.is_file()), folder, folder.parent):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def drop_torn(folder: Path) -> None:
    """Remove the checkpoints and the output that were only half written."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    for checkpoint in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)
