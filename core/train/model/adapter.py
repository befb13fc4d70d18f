"""An adapter that a run begins with (model.adapter_name_or_path): found, checked and merged into its model."""

import json
from pathlib import Path
from typing import Any

from core.profile import Profile, model_path
from core.train.errors import ModelError, first_line
from core.train.limits import is_out_of_memory

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def check_adapter(profile: Profile) -> None:
    """Look whether the adapter that is named is one, before a model is loaded.

    Raises:
        ModelError: it is not there, lacks a file, or is no LoRA adapter.
    """
    name = profile.model.adapter_name_or_path
    if name is None:
        return
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"model.adapter_name_or_path: there is no folder {name}; an adapter on the hub is fetched with "
            "`hf download NAME --local-dir FOLDER`"
        )
    if not (folder / _CONFIG).is_file():
        whole = (folder / "config.json").is_file()
        raise ModelError(
            f"model.adapter_name_or_path: {name} holds no {_CONFIG}, so that it is no adapter"
            + ("; it is a whole model: name it as model.model_name_or_path" if whole else "")
        )
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise ModelError(
            f"model.adapter_name_or_path: {name} lacks its weights ({' or '.join(_WEIGHTS)})"
        )
    kind = _settings(folder).get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"model.adapter_name_or_path: {name} is an adapter of the kind {kind}, not LORA"
        )


def merge_adapter(model: Any, profile: Profile) -> Any:
    """`model` with the weights that the adapter of the profile makes of its own; itself where none is named.

    Raises:
        ModelError: the adapter does not fit this model, or its numbers are not finite.
    """
    name = profile.model.adapter_name_or_path
    if name is None:
        return model
    from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
    from peft.config import PeftConfig

    folder = Path(name).expanduser()
    base = str(_settings(folder).get("base_model_name_or_path") or "a model that it does not name")
    if getattr(model, "is_quantized", False):
        raise ModelError(
            f"model.adapter_name_or_path: {name} cannot be merged into {model_path(profile)}, which is quantised; make "
            "one model of both with `tunedeck export`"
        )
    kind = model.dtype
    try:
        config = PeftConfig.from_pretrained(str(folder))
        # Trained or not: what is merged is gone after.
        config.inference_mode = True
        adapted = PeftModel(model, config)
        weights = load_peft_weights(str(folder), device=str(model.device))
        result = set_peft_model_state_dict(adapted, weights)
        lacking = [k for k in result.missing_keys if "lora_" in k or "modules_to_save" in k]
        if lacking or result.unexpected_keys:
            other = (*result.unexpected_keys, *lacking)[0]
            raise ValueError(f"{other} is in one of them and not in the other")
        merged = adapted.merge_and_unload(safe_merge=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"model.adapter_name_or_path: the adapter {name}, which was made for {base}, does not fit the model "
            f"{model_path(profile)}: {_reason(error)}"
        ) from None
    merged.to(kind)
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    return merged


def describe(profile: Profile) -> str | None:
    """What a run's log says of the adapter that it begins with."""
    name = profile.model.adapter_name_or_path
    if name is None:
        return None
    base = _settings(Path(name).expanduser()).get("base_model_name_or_path")
    return f"begins with the adapter {name} (made for {base}) merged into the model"


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.adapter_name_or_path: {folder / _CONFIG} cannot be read: {first_line(error)}"
        ) from None
    return found if isinstance(found, dict) else {}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    mismatch = next((line for line in lines if "size mismatch" in line), None)
    return (mismatch or first_line(error)).rstrip(".")
