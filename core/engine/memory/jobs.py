"""What the daemon asks an adviser process to find out about a trial's memory, and what comes back.

The adviser (`advise`) reads a `Job` and leaves a `Result`. Both are small files in the trial's folder, so that either
side may die at any moment.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from core.engine.versions import torch_version
from core.memory.forecast import Forecast, Lengths, Target, capacity
from core.profile import Profile
from core.study.events import Advice, FixOption
from core.study.files import read_record
from core.version import VERSION

JOB_FILE = "advice-job.json"
RESULT_FILE = "advice.json"
LOG_FILE = "advice.log"

NO_MEMORY = frozenset(
    {
        "train.learning_rate", "train.num_train_epochs", "train.max_steps", "train.lr_scheduler_type",
        "train.lr_scheduler_kwargs", "train.warmup_ratio", "train.warmup_steps", "train.weight_decay",
        "train.adam_beta1", "train.adam_beta2", "train.adam_epsilon", "train.logging_steps", "train.eval_steps",
        "train.save_steps", "train.save_total_limit", "train.early_stopping_patience", "train.seed",
        "train.order_seed", "method.lora_alpha", "method.use_rslora", "memory.on_oom", "resources.devices",
        "resources.parallel",
    }
)  # fmt: skip
"""Parameters of [model], [method], [data], [train], [memory] and [resources] that no tensor's size depends on. Whatever
is not named here counts, so that a new parameter is never overlooked."""

ROWS = (
    "model.model_name_or_path", "model.model_revision", "model.template", "method.stage", "train.data_seed",
)  # fmt: skip
"""What the lengths of rows depend on, besides all of [data]: the seed says which of them are for evaluation."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A question about one trial."""

    about: Advice
    shape: str
    """What `shape` says of the profile and the target."""
    profile: str
    """The trial's own settings as TOML; its search names what is better left as it is."""
    target: Target
    guard: float
    """The share of a forecast that has to stay free."""
    lengths: str
    """The file in which measured lengths are kept for all trials of the study."""
    fixes: bool = True
    """Whether fixes are wanted for a run that does not fit."""


class Found(msgspec.Struct, frozen=True):
    """A fix, and what the run needs with it."""

    option: FixOption
    forecast: Forecast


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an adviser found out."""

    about: Advice
    shape: str
    problem: str = ""
    """Why nothing can be said, as a sentence; empty where something can."""
    forecast: Forecast | None = None
    """Of the settings as they are."""
    summary: str = ""
    """What holds the memory, and so what helps."""
    fixes: tuple[Found, ...] = ()
    """What fits, least slowdown first; about "fit", the one batch that fits best."""


def too_large(forecast: Forecast, target: Target) -> bool:
    """Whether a run that needs this much surely does not go through on `target`.

    The guard band is no part of it: what might fit is started, and what cannot is not.
    """
    return forecast.tier == "proof" and forecast.needed > capacity(target, forecast.context)


def shape(profile: Profile, target: Target) -> str:
    """A short name for everything that a run's memory depends on: trials with the same one need the same."""
    tables = ("model", "method", "alignment", "data", "train", "generation", "memory", "resources")
    values = {
        key: value
        for key, value in profile.values().items()
        if key.partition(".")[0] in tables and key not in NO_MEMORY
    }
    return _name({**values, "device": kind_of(target), "versions": (VERSION, torch_version())})


def kind_of(target: Target) -> tuple[str, tuple[int, int] | None, bool, bool]:
    """What of a device decides over what runs on it, and so over what it needs."""
    return (target.kind, target.capability, target.expandable, target.flash_attention)


def known_lengths(file: Path, name: str) -> Lengths | None:
    """The lengths of the rows that `rows` calls by this name, where they were measured."""
    return _read(file).get(name)


def keep_lengths(file: Path, name: str, lengths: Lengths) -> None:
    """Keep measured lengths for the other trials. Without room on the disk they are measured again.

    Only one adviser runs at a time, so that nobody else writes meanwhile.
    """
    kept = {**_read(file), name: lengths}
    temporary = file.with_name(f".{file.name}.new")
    try:
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)


def rows(profile: Profile) -> str:
    """A short name for everything that the lengths of the rows depend on. What is counted of rows belongs to it: where
    an older version counted less, they are measured anew."""
    values = profile.values()
    given = {k: v for k, v in values.items() if k.startswith("data.") or k in ROWS}
    return _name({**given, "counted": Lengths.__struct_fields__})


def _read(file: Path) -> dict[str, Lengths]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Lengths])
    except (OSError, ValueError):
        return {}


def _name(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_result(folder: Path) -> Result | None:
    """What an adviser left in a trial's folder; None where it left nothing that is whole."""
    return read_record(folder / RESULT_FILE, Result)
