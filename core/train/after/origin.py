"""What trained weights on the disk are: an adapter or a whole model, of which profile, and on which base."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.params import DataTable, ModelTable
from core.profile import Profile, ProfileError, is_path, load, model_path
from core.study.after import Weights
from core.study.files import TRIAL_FILE
from core.train.errors import ModelError
from core.train.model.adapter import check_adapter
from core.train.model.moved import base_now
from core.train.model.source import Source, find_model

ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

Kind = Literal["model", "reward model"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Trained weights and where they come from."""

    folder: Path
    profile: Profile
    """What they were trained with; of weights that nobody knows, one that names their base and nothing else."""
    known: bool
    """Whether the profile is the one that they were trained with."""
    trial: Path | None
    adapter: dict[str, Any] | None
    """The adapter's configuration; None for a whole model."""
    kind: Kind

    @property
    def base(self) -> str:
        """The base model's name, or its folder; "" where nobody knows it."""
        return model_path(self.profile) if self.profile.model.model_name_or_path != UNKNOWN else ""

    @property
    def base_name(self) -> str:
        """As `base`, but as the profile calls it."""
        return self.profile.model.model_name_or_path if self.base else ""


UNKNOWN = "unknown"


def find_origin(weights: Weights) -> Origin:
    """Look at what lies in the folder of `weights`.

    Raises:
        ModelError: it holds no weights, or what is written beside them cannot be read.
    """
    folder = Path(weights.folder)
    adapter = _json(folder / ADAPTER_CONFIG)
    config = _json(folder / "config.json")
    if adapter is None and config is None:
        raise ModelError(
            f"{folder} holds no weights: neither {ADAPTER_CONFIG} nor config.json is there"
        )
    if adapter is not None:
        _check_adapter(folder, adapter)
    trial = Path(weights.trial) if weights.trial is not None else None
    profile = _profile(folder, trial, adapter, weights.base)
    kind: Kind = "reward model" if _scores(adapter, config) else "model"
    return Origin(folder, profile, trial is not None, trial, adapter, kind)


def base_source(origin: Origin) -> Source:
    """Where the base model is.

    Raises:
        ModelError: nobody knows it, it is not there, or the adapter that training began with is not.
    """
    if not origin.base:
        raise ModelError(
            f"nothing says which model {origin.folder} was tuned from; name it with --base-model"
        )
    # Of it, --base-model says nothing.
    check_adapter(origin.profile)
    spare = (origin.trial or origin.folder) / "unpacked"
    try:
        source = find_model(origin.profile, spare, lambda: None)
    except ModelError as error:
        raise ModelError(
            f"the base model cannot be found: {error}; name it with --base-model"
        ) from None
    return source


def check_full_precision(source: Source) -> None:
    """Refuse a base that is quantised as it lies on the disk: adapters are not merged into rounded weights.

    Raises:
        ModelError: it is.
    """
    for place in source.places:
        config = _json(Path(place) / "config.json") or {}
        if "quantization_config" in config:
            raise ModelError(
                f"the base model {source.name} is quantised as it lies there, and adapters are not merged into rounded "
                "weights; name the same model in full precision (--base-model), or take the adapter alone "
                "(--adapter-only)"
            )


def _profile(
    folder: Path, trial: Path | None, adapter: dict[str, Any] | None, base: str | None
) -> Profile:
    if trial is not None:
        try:
            profile = load(trial / TRIAL_FILE)
        except ProfileError as error:
            raise ModelError(str(error)) from None
    else:
        named = (adapter or {}).get("base_model_name_or_path") or UNKNOWN
        profile = Profile(
            model=ModelTable(model_name_or_path=str(named)), data=DataTable(dataset="demo")
        )
    if base is None:
        now = base_now(profile.model.model_name_or_path, folder)
        return replace(profile, model=profile.model.model_copy(update={"model_name_or_path": now}))
    given = str(Path(base).expanduser().resolve()) if Path(base).expanduser().exists() else base
    if is_path(given) and not Path(given).exists():
        raise ModelError(f"--base-model: there is no {given}")
    update = {"model_name_or_path": given, "model_revision": None}
    return replace(profile, model=profile.model.model_copy(update=update))


def _check_adapter(folder: Path, adapter: dict[str, Any]) -> None:
    if not any((folder / name).is_file() for name in _ADAPTER_WEIGHTS):
        raise ModelError(f"{folder} holds {ADAPTER_CONFIG} and no weights: it is not whole")
    kind = adapter.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{folder} holds an adapter of type {kind}; only LoRA can be merged")


def _scores(adapter: dict[str, Any] | None, config: dict[str, Any] | None) -> bool:
    """Whether it scores texts, and does not write them."""
    if adapter is not None:
        return adapter.get("task_type") == "SEQ_CLS"
    names = (config or {}).get("architectures") or [""]
    return "SequenceClassification" in str(names[0])


def _json(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file.

    Raises:
        ModelError: it is damaged.
    """
    try:
        read = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
    if not isinstance(read, dict):
        raise ModelError(f"{file} is no JSON object")
    return read
