"""Settings that differ between a checkpoint and the run that is to go on from it: told, or refused.

A checkpoint holds the settings that made it (`settings.json`). Weights, optimizer states and places in the data mean
something only together with some of them: those cannot change. The others take effect from the checkpoint on, and the
log says so.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from core.catalogue import find
from core.optimizer_settings import PROJECTED
from core.profile import Profile
from core.train.judging import judged_by
from core.train.meaning import JUDGED, comes_to, listed
from core.train.settings import ENDLESS
from core.values import toml_value

FILE = "settings.json"
_TABLES = ("model", "method", "data", "train", "alignment", "generation")

_FIXED = frozenset(
    {
        "model.template", "method.stage", "method.finetuning_type", "method.lora_rank", "method.lora_alpha",
        "method.lora_target", "method.use_rslora", "method.use_dora", "method.pissa_init", "method.additional_target",
        "method.freeze_trainable_layers", "method.freeze_trainable_modules", "method.freeze_extra_modules",
        "data.format", "data.val_size", "data.max_samples", "data.packing", "data.train_on_prompt",
        "data.mask_history", "data.default_system", "data.mix_strategy", "data.interleave_probs", "data.streaming",
        "data.buffer_size", "data.group_by_length", "alignment.pref_loss",
        "alignment.ppo_epochs", "alignment.ppo_buffer_size",
    }
)  # fmt: skip
"""Settings without which a checkpoint is not what it was."""
_FILES = frozenset(
    {
        "model.model_name_or_path", "model.adapter_name_or_path", "data.dataset", "data.dataset_dir",
        "alignment.ref_model", "alignment.reward_model",
    }
)  # fmt: skip
"""The same of files and folders, which may have moved: their last names cannot change."""
_OF_THE_RATE = frozenset(
    {
        "train.lr_scheduler_type", "train.lr_scheduler_kwargs", "train.learning_rate", "method.loraplus_lr_ratio",
        JUDGED,
    }
)  # fmt: skip
"""What a schedule that follows the evaluations keeps in its state."""
_ADAM = frozenset(
    {
        "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "adafactor",
    }
)  # fmt: skip
"""Optimizers that a memory fix leads from one to the other: where their states are of another form, they begin anew."""


class Change(NamedTuple):
    """A setting that is another one now."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.was)} → {_shown(self.now)}"


def settings_of(profile: Profile) -> dict[str, Any]:
    """The settings of a run that a checkpoint keeps, by full key, what it is judged by, and the effective batch."""
    values = profile.values()
    kept = {key: values[key] for key in values if key.partition(".")[0] in _TABLES}
    metric = judged_by(profile)
    judged = f"{metric.name} ({metric.direction})"
    return kept | {JUDGED: judged, "effective_batch": profile.effective_batch()}


def write_settings(checkpoint: Path, profile: Profile) -> None:
    """Keep the settings of `profile` in a checkpoint, with a hash of them.

    Raises:
        OSError: the disk is full.
    """
    settings = settings_of(profile)
    record = {"sha256": _hash(settings), "settings": settings}
    with (checkpoint / FILE).open("w", encoding="utf-8") as out:
        json.dump(record, out, indent=1)
        out.flush()
        os.fsync(out.fileno())


def read_settings(checkpoint: Path) -> dict[str, Any] | None:
    """The settings that a checkpoint was made with; None where it does not tell, or what it tells is damaged."""
    try:
        record = json.loads((checkpoint / FILE).read_text("utf-8"))
        settings = record["settings"]
        whole = isinstance(settings, dict) and record["sha256"] == _hash(settings)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return settings if whole else None


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What is different, of the settings that have an effect in one of both.

    What is written in another way and comes to the same is no change. Nor is what is written as before while its
    default follows another setting: that one is told.
    """
    return [
        Change(key, was[key], now[key])
        for key in now
        if key in was
        and _plain(was[key]) != _plain(now[key])
        and comes_to(key, was) != comes_to(key, now)
        and _counts(key, was, now)
    ]


def refusal(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why a run with the settings `now` cannot go on from a checkpoint of `was`; None where it can."""
    if was.get("effective_batch", now["effective_batch"]) != now["effective_batch"]:
        return f"another effective batch ({now['effective_batch']}, not {was['effective_batch']})"
    if _order(was) != _order(now):
        return "another order of the data"
    found = changes(was, now)
    if ENDLESS & {was.get("train.lr_scheduler_type"), now["train.lr_scheduler_type"]} and any(
        c.key in _OF_THE_RATE for c in found
    ):
        # The rate of the moment, and what moves it, are a part of their state.
        return (
            "another learning rate or schedule where the rate depends on how the run went before "
            f"({', '.join(str(c) for c in found if c.key in _OF_THE_RATE)})"
        )
    wrong = [str(change) for change in found if _is_fixed(change, was, now)]
    return f"other settings ({', '.join(wrong)})" if wrong else None


def _is_fixed(change: Change, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    key, old, new = change
    if key == "data.dataset":
        return _last_names(listed(old)) != _last_names(listed(new))
    if key in _FILES:
        return _last_names([old]) != _last_names([new])
    if key == "data.eval_dataset":
        # Without one, evaluation rows are taken off those to train on.
        return bool(comes_to("data.val_size", was) != comes_to("data.val_size", now))
    if key == "data.cutoff_len":
        return bool(new > old)
    if key == "train.optim":
        return not _same_family(old, new)
    if key == "method.loraplus_lr_ratio":
        return old is None or new is None
    if key in ("train.optim_args", "train.optim_target_modules"):
        return now["train.optim"] in PROJECTED
    return key in _FIXED


def _same_family(one: str, other: str) -> bool:
    lion = "lion" in one and "lion" in other
    return lion or (one in _ADAM and other in _ADAM)


def _counts(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a setting has an effect: batch and accumulation do where their product changes, which is told apart."""
    if key in (
        "effective_batch", "train.per_device_train_batch_size", "train.gradient_accumulation_steps",
        "train.data_seed", "train.order_seed",
    ):  # fmt: skip
        return False
    if key == JUDGED:
        return any(
            settings.get("train.lr_scheduler_type") in ENDLESS or settings.get(name) is not None
            for settings in (was, now)
            for name in ("train.early_stopping_patience", "train.save_best")
        )
    parameter = find(key)
    return parameter.applies(now) or parameter.applies(was)


def _order(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    own = settings.get("train.order_seed")
    seed = settings.get("train.data_seed")
    return seed, seed if own is None else own


def _last_names(paths: Iterable[str | None] | None) -> list[str]:
    return [PurePath(path).name for path in paths or () if path is not None]


def _plain(value: Any) -> Any:
    """As it is after JSON."""
    return list(value) if isinstance(value, tuple) else value


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _shown(value: Any) -> str:
    return "not set" if value is None else toml_value(value)


def told(found: Iterable[Change]) -> Iterator[str]:
    """What the log says of settings that are others than the checkpoint's."""
    for change in found:
        yield f"other than when its checkpoint was made: {change}"
