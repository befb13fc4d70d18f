"""The model that the worker would build, of fake tensors, with the history of how its weights would arrive."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.dryrun.errors import CannotProve
from core.dryrun.quantized import (
    import_bitsandbytes,
    is_quantized_linear,
    quantise,
    replace_linears,
)
from core.dryrun.tracker import Tracker
from core.memory.models.shape import MOST_LAYERS
from core.params import ModelTable
from core.profile import Profile, is_path, model_path
from core.train.errors import first_line
from core.train.precision import Numbers

WARM_UP_LEFT = int(1.2 * 2**30)
"""What transformers leaves of a GPU when it takes the memory of a model in one piece before it loads it."""


@dataclass(frozen=True, slots=True)
class Built:
    """A model whose parameters are fake."""

    model: Any
    notes: tuple[str, ...]
    """What cannot be seen of it."""


def read_config(profile: Profile) -> Any:
    """The model's configuration (transformers.PreTrainedConfig); no weights are read, no code of the model's is run.

    Raises:
        CannotProve: there is none, or it is of a kind that transformers does not know.
    """
    from transformers import AutoConfig

    name = model_path(profile)
    path = Path(name)
    options: dict[str, Any] = {}
    if path.suffix.lower() == ".gguf" and path.is_file():
        folder, options = path.parent, {"gguf_file": path.name}
    else:
        folder = path if path.is_dir() else _cached(name, profile.model)
        _check(folder, profile.model)
    try:
        config = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True, **options
        )
    except Exception as error:
        raise CannotProve(
            f"the configuration of {path} cannot be read: {first_line(error)}"
        ) from None
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise CannotProve(f"the configuration of {path} says {layers} layers: no model has as many")
    return config


def _cached(name: str, table: ModelTable) -> Path:
    """The folder of the hub's cache that holds a model."""
    from core.train.model.source import cached_folder

    if is_path(name):
        raise CannotProve(f"model.model_name_or_path: there is no {name}")
    folder = cached_folder(name, table)
    if folder is None:
        raise CannotProve(
            f"{name} is not on this machine yet, so that there is no config.json to read; it is downloaded when it is "
            "first trained"
        )
    return folder


def _check(folder: Path, table: ModelTable) -> None:
    file = folder / "config.json"
    try:
        document = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CannotProve(f"{folder} holds no config.json") from None
    except (OSError, ValueError) as error:
        raise CannotProve(f"{file} cannot be read: {first_line(error)}") from None
    if not isinstance(document, dict):
        raise CannotProve(f"{file} holds no object")
    from transformers import CONFIG_MAPPING

    known = document.get("model_type") in CONFIG_MAPPING
    if document.get("auto_map") and (table.trust_remote_code or not known):
        raise CannotProve(
            f"the model {folder} comes with Python code of its own, which is not run to foresee memory"
        )
    if not known:
        kind = document.get("model_type")
        raise CannotProve(
            f"{file}: transformers knows no model of the type {kind}"
            if kind
            else f"{file} names no model_type"
        )


def build(
    config: Any,
    profile: Profile,
    numbers: Numbers,
    weights: Any,
    tracker: Tracker,
    *,
    cuda: bool,
    total: int,
    scored: bool = False,
) -> Built:
    """The model before any of its weights is chosen to train; called within a fake mode.

    `weights` is the type in which they arrive, `total` the device's memory. A model that is `scored` has one number in
    place of its vocabulary (core.train.stages.reward).

    Raises:
        CannotProve: it is no causal language model, or quantised in a way that is not simulated.
    """
    table, notes = _as_stored(config, profile.model)
    if table.quantization_bit and import_bitsandbytes() is None:
        raise CannotProve("bitsandbytes, which holds a model in 4 or 8 bits, is not installed here")
    if cuda and table.quantization_bit == 8 and profile.method.use_dora:
        raise CannotProve(
            "what method.use_dora takes on weights of 8 bits is not simulated; with 4 bits it is"
        )
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        model = _on_meta(config, table, weights, scored)
        notes = (*_unseen(model), *notes)
        if table.quantization_bit:
            replace_linears(model, table, numbers.compute)
    _load(model, table, weights, tracker, cuda=cuda, total=total)
    if table.quantization_bit == 8:
        notes += ("What 8-bit layers take for features with outliers depends on the data.",)
    return Built(model, notes)


def _on_meta(config: Any, table: ModelTable, dtype: Any, scored: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    loader = AutoModelForSequenceClassification if scored else AutoModelForCausalLM
    if scored:
        config.num_labels = 1
        text = config.get_text_config()
        # Which one it is changes no tensor's size.
        text.pad_token_id = 0 if text.pad_token_id is None else text.pad_token_id
    options = {}
    if table.attn != "auto":
        # flash-attn need not be installed here, and transformers would insist on it.
        options["attn_implementation"] = (
            "eager" if table.attn == "flash_attention_2" else table.attn
        )
    try:
        with torch.device("meta"):
            model = loader.from_config(config, dtype=dtype, **options)
    except Exception as error:
        text = first_line(error)
        if "Unrecognized configuration class" in text:
            text = "it is no causal language model"
        raise CannotProve(f"the model cannot be built: {text}") from None
    if table.attn == "flash_attention_2":
        if not getattr(model, "_supports_flash_attn", False):
            raise CannotProve('model.attn = "flash_attention_2" does not work with this model')
        model.config._attn_implementation = "flash_attention_2"
    model.tie_weights()
    return model


def _as_stored(config: Any, table: ModelTable) -> tuple[ModelTable, tuple[str, ...]]:
    """The table with the quantisation that the weights have on the disk already."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return table, ()
    given = stored if isinstance(stored, dict) else stored.to_dict()
    method = given.get("quant_method")
    if method != "bitsandbytes":
        raise CannotProve(
            f"the model is quantised with {method or 'an unknown method'}, which is not simulated"
        )
    del config.quantization_config
    bits = 4 if given.get("load_in_4bit") else 8
    changed = table.model_copy(
        update={
            "quantization_bit": bits,
            "quantization_type": given.get("bnb_4bit_quant_type", table.quantization_type),
            "double_quantization": given.get("bnb_4bit_use_double_quant", False),
        }
    )
    return changed, (
        "The model is quantised on the disk; it is simulated as if it were quantised when it is loaded.",
    )


_KERNELS = ("use_kernel_func_from_hub_with_fallback", "load_wkv_cuda_kernel", "is_xlstm_available")
"""What transformers' code of a model imports or defines where it runs kernels of other packages if they are there
(mamba-ssm, causal-conv1d, flash-linear-attention, xlstm; RWKV compiles its own)."""


def _unseen(model: Any) -> tuple[str, ...]:
    """What of a model's run a simulation cannot see."""
    notes: list[str] = []
    if any("expert" in f"{n}.{type(m).__name__}".lower() for n, m in model.named_modules()):
        notes.append("Which experts a mixture of experts sends tokens to is decided by the data.")
    code = {sys.modules.get(type(module).__module__) for module in model.modules()}
    if any(hasattr(module, name) for module in code for name in _KERNELS):
        notes.append(
            "On a GPU this model runs kernels of other packages where they are installed; what those take is not seen."
        )
    return tuple(notes)


def _load(
    model: Any, table: ModelTable, dtype: Any, tracker: Tracker, *, cuda: bool, total: int
) -> None:
    """Let the weights arrive, in the order in which transformers takes them from the files; each that is quantised
    arrives in 16 bits first."""
    if cuda:
        size = min(_warm_up(model, table.quantization_bit), max(0, total - WARM_UP_LEFT))
        tracker.free(tracker.allocate(size, "weights"))
    arrived: dict[int, Any] = {}
    for name in sorted(model.state_dict(keep_vars=True), key=_natural):
        module, leaf = _owner(model, name)
        if is_quantized_linear(module) and leaf == "weight":
            if type(module.weight) is torch.nn.Parameter:
                continue
            shape = (module.out_features, module.in_features)
            with tracker:
                quantised = quantise(module, table, torch.empty(shape, dtype=dtype))
            tracker.adopt(quantised, "weights")
            continue
        if leaf not in {**module._parameters, **module._buffers}:
            continue
        _materialise(module, leaf, arrived, tracker)
    for module in model.modules():
        for leaf in (*module._parameters, *module._buffers):
            _materialise(module, leaf, arrived, tracker)


def _materialise(module: Any, leaf: str, arrived: dict[int, Any], tracker: Tracker) -> None:
    """Put a fake tensor in the place of one on the meta device; the same one for those that are tied."""
    held = module._parameters if leaf in module._parameters else module._buffers
    old = held[leaf]
    if old is None or old.device.type != "meta":
        return
    new = arrived.get(id(old))
    if new is None:
        new = torch.empty(old.shape, dtype=old.dtype)
        if isinstance(old, torch.nn.Parameter):
            new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
        tracker.adopt((new,), "weights")
        # The old one is kept, so that its id names it as long as this lasts.
        arrived[id(old)] = new
        arrived[-id(old)] = old
    held[leaf] = new


def _owner(model: Any, name: str) -> tuple[Any, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _natural(name: str) -> list[tuple[int, Any]]:
    """Numbers in a name by their value, before words: the order in which transformers loads."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]


def _warm_up(model: Any, bits: int | None) -> int:
    """What transformers takes and gives back at once before it loads (caching_allocator_warmup)."""
    packed = {id(m.weight) for m in model.modules() if is_quantized_linear(m)}
    size = 0.0
    for tensor in (*model.parameters(), *model.buffers()):
        quantised = bits is not None and id(tensor) in packed
        size += tensor.numel() * ((bits or 0) / 8 if quantised else tensor.element_size())
    return int(size) // 2 * 2
