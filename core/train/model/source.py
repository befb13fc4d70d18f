"""Where a trial's model is: a folder, a .gguf file, or a name on the Hugging Face hub."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.optimizer_settings import BITSANDBYTES, PROJECTED
from core.params import ModelTable
from core.profile import Profile, is_path, model_path
from core.train.errors import ModelError
from core.train.model.adapter import check_adapter
from core.train.model.gguf import unpacked


@dataclass(frozen=True, slots=True)
class Source:
    """What from_pretrained takes."""

    name: str
    """A folder, or a hub name; what the saved adapter says that it belongs to."""
    places: tuple[str, ...]
    """Where to load from, in the order to try: the hub's cache comes before the hub. What is on the disk already is
    taken as it is: all trials of a study get the same model, and nobody waits for a network that is not there."""


def find_model(profile: Profile, spare: Path, check: Callable[[], None]) -> Source:
    """Find the model; a .gguf file is unpacked into a folder first.

    `spare` and `check` are those of `gguf.unpacked`.

    Raises:
        ModelError: there is no such folder or file, it holds no whole model, or the adapter that the run is to begin
            with is none.
    """
    check_adapter(profile)
    path = model_path(profile)
    file = Path(path)
    if is_path(path) and not file.exists():
        raise ModelError(f"model.model_name_or_path: there is no {path}")
    if file.is_dir():
        _check_folder(file)
        return Source(path, (path,))
    if not file.is_file():
        cached = cached_folder(path, profile.model)
        return Source(path, (path,) if cached is None else (str(cached), path))
    if file.suffix.lower() != ".gguf":
        raise ModelError(
            f"model.model_name_or_path: {path} is a file; a model is a folder, a .gguf file or a hub name"
        )
    folder = str(unpacked(file.resolve(), spare, check))
    return Source(folder, (folder,))


def _check_folder(folder: Path) -> None:
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        try:
            base = str(json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"])
        except (OSError, ValueError, KeyError, TypeError):
            base = "another model"
        # transformers would load both, and new adapters would take the place of the trained ones without a word.
        raise ModelError(
            f"model.model_name_or_path: {folder} holds a LoRA adapter of {base}, not a whole model. Name {base} there "
            "and the adapter as model.adapter_name_or_path, which merges it before anything trains; or make one model "
            "of both with `tunedeck export` and name that"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model.model_name_or_path: {folder} holds no config.json, so that it is no model"
        )


def needs_bitsandbytes(profile: Profile) -> bool:
    """Whether the model is to be quantised, or it or one beside it may be so already as it lies on the disk or on the
    hub, or the optimizer is one of bitsandbytes' or of the packages of galore and apollo, all of which import it."""
    if (
        profile.model.quantization_bit is not None
        or profile.train.optim in BITSANDBYTES | PROJECTED
    ):
        return True
    beside = profile.alignment.ref_model, profile.alignment.reward_model
    names = [model_path(profile), *(name for name in beside if name is not None)]
    return any(_may_be_quantised(name, profile.model) for name in names)


def _may_be_quantised(name: str, table: ModelTable) -> bool:
    path = Path(name)
    if path.is_file():
        return False
    folder = path if path.is_dir() else cached_folder(name, table)
    if folder is None:
        return True
    config = folder / "config.json"
    return config.is_file() and "quantization_config" in config.read_text("utf-8", "replace")


def cached_folder(name: str, table: ModelTable) -> Path | None:
    """The folder in which the hub's cache holds a model, as far as it has been downloaded."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json", revision=table.model_revision)
    except ValueError:
        return None
    return Path(config).parent if isinstance(config, str) else None
