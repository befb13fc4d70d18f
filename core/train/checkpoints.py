"""The checkpoints of a trial: which one it goes on from, and which ones stay."""

import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.profile import Profile, ProfileError, load
from core.search.metric import Metric
from core.study.files import CHECKPOINTS, OUTPUT, TRIAL_FILE, TrialTask, is_whole
from core.train import resumption
from core.train.errors import SettingsError
from core.train.meaning import JUDGED

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
    changes: tuple[resumption.Change, ...] = ()
    """The settings that are others than those that made the checkpoint."""
    untold: bool = False
    """Whether the checkpoint does not tell the settings that made it."""

    @property
    def new_best(self) -> bool:
        """Whether the best evaluation before this attempt is no measure for it."""
        return self.continues or any(change.key == JUDGED for change in self.changes)


def find_beginning(folder: Path, task: TrialTask, profile: Profile) -> Beginning:
    """Where the trial in `folder` begins: at its own checkpoint, at its probe's, or at the start.

    Raises:
        SettingsError: the checkpoint is not there, or was made with settings that this run cannot go on with.
    """
    ended = None if task.continues is None else step_of(task.continues)
    name = task.resume_from or task.continues
    if name is None:
        return Beginning(probe_end=ended)
    checkpoint = folder / name
    from_probe = task.resume_from is None
    whose = (
        "the training cannot continue from the probe"
        if from_probe
        else "the trial cannot go on from it"
    )
    if not is_whole(checkpoint):
        raise SettingsError(
            f"{checkpoint} is no complete checkpoint, so that {whose}; start it over"
        )
    _check_method(checkpoint, profile)
    was, now = _made_with(checkpoint, from_probe), resumption.settings_of(profile)
    refused = resumption.refusal(was or now, now)
    if refused is not None:
        told = whose if from_probe else f"the trial cannot go on from {checkpoint.name}"
        raise SettingsError(f"{told} with {refused}; start it over")
    differ = tuple(resumption.changes(was or now, now))
    return Beginning(checkpoint, ended, from_probe, differ, was is None and not from_probe)


def _made_with(checkpoint: Path, from_probe: bool) -> dict[str, Any] | None:
    """The settings that made a checkpoint; None where nothing tells."""
    kept = resumption.read_settings(checkpoint)
    if kept is not None or not from_probe:
        return kept
    try:
        return resumption.settings_of(load(checkpoint.parent.parent / TRIAL_FILE))
    except ProfileError:
        # What is left of the probe is its checkpoint: there is nothing to compare with.
        return None


def _check_method(checkpoint: Path, profile: Profile) -> None:
    adapters = (checkpoint / "adapter_config.json").is_file()
    method = profile.method.finetuning_type
    if adapters != (method == "lora"):
        holds = "adapters" if adapters else "a whole model"
        raise SettingsError(
            f'{checkpoint} holds {holds}, which finetuning_type = "{method}" cannot go on from; start the trial over'
        )


def step_of(checkpoint: str) -> int:
    """The update after which a checkpoint was saved, by its name.

    Raises:
        SettingsError: it is no checkpoint's.
    """
    found = _NAME.fullmatch(Path(checkpoint).name)
    if found is None:
        raise SettingsError(
            f"{checkpoint} is no checkpoint of a probe: those are called checkpoint-N, after N updates"
        )
    return int(found[1])


@dataclass(frozen=True, slots=True)
class Keeper:
    """Which checkpoints of a running trial stay."""

    metric: Metric
    """What the run is judged by."""
    newest: int
    """So many of the newest stay, whatever they are worth; at least one does."""
    best: int | None = None
    """So many of the best by the metric stay, and of the newest one; None: the newest alone count."""
    begun: int | None = None
    """The update of the checkpoint that this attempt went on from, which stays while it runs."""

    def tidy(self, folder: Path, state: Any) -> None:
        """Remove the checkpoints in `folder` that need not stay: also those of later updates, which an attempt left
        that this one does not go on from. `state` is the Trainer's."""
        there = {
            int(found[1]): path
            for path in folder.iterdir()
            if (found := _NAME.fullmatch(path.name))
        }
        values = {
            int(entry["step"]): self.metric.signed(float(entry[self.metric.name]))
            for entry in state.log_history
            if self.metric.name in entry
        }
        kept = self.kept((s for s in there if s <= state.global_step), values)
        for step, path in there.items():
            if step not in kept and step != state.best_global_step:
                shutil.rmtree(path, ignore_errors=True)

    def kept(self, steps: Iterable[int], values: Mapping[int, float]) -> set[int]:
        """Those of `steps` whose checkpoints stay; `values` of evaluations by update, lower is better. Of equal ones
        the earlier is better, and what is not finite is worse than any number."""
        order = sorted(steps)
        newest = order[-(1 if self.best is not None else max(1, self.newest)) :]
        judged = sorted((s for s in order if s in values), key=lambda s: (_rank(values[s]), s))
        protected = {self.begun} & set(order) if self.begun is not None else set()
        return {*newest, *judged[: self.best or 0], *protected}


def _rank(value: float) -> float:
    return value if math.isfinite(value) else math.inf


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
