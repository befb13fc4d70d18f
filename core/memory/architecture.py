"""Find and read the shape of a profile's model, from what is on this machine: no code of the model runs, no weights are
read, and no network is asked.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from core.memory.models.families import OTHER_KINDS, READERS, Sizes, decoder, unknown
from core.memory.models.gguf_header import GgufError, read_header
from core.memory.models.shape import LARGEST, MOST_LAYERS, Architecture, ArchitectureError
from core.profile import Profile, is_path, model_path

__all__ = [
    "Architecture",
    "ArchitectureError",
    "NotDownloadedError",
    "cached_folder",
    "count_parameters",
    "find_architecture",
    "likely_architecture",
    "of_size",
    "read_config",
]


class NotDownloadedError(ArchitectureError):
    """The hub's cache does not have the model."""


def read_config(config: Sizes) -> Architecture:
    """The architecture that a config.json describes.

    An architecture that is not known, or a mixture of experts, gives an estimate; its notes say so.

    Raises:
        ArchitectureError: the numbers that a shape needs are not there, or make no sense.
    """
    text = _text_config(config)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    notes = _notes(config, text, kind)
    try:
        read = READERS.get(kind, unknown)
        found = read(text)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ArchitectureError(_missing(kind, error)) from None
    if not _sane(found):
        raise ArchitectureError(
            f"the sizes in config.json ({kind or 'no model_type'}) are no sizes of a model"
        )
    quantized, bits = _stored_quantization(config)
    return msgspec.structs.replace(
        found, notes=(*notes, *found.notes), quantized=quantized, quantized_bits=bits
    )


def _sane(shape: Architecture) -> bool:
    """Whether a shape can be that of a model; layers are gone through one by one."""
    sizes = (
        shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.intermediate, shape.vocabulary,
    )  # fmt: skip
    return (
        min(sizes) >= 1
        and max(sizes) <= LARGEST
        and 1 <= shape.layers <= MOST_LAYERS
        and 0 <= shape.experts <= LARGEST
    )


def of_size(parameters: int, note: str, *, vocabulary: int = 64_000) -> Architecture:
    """A typical decoder of so many parameters, for a model of which nothing else is known.

    Width and depth grow together as in the published dense models (about 128 numbers of width a layer), so that the
    layers hold 12.5 × layers × hidden². Heads have 64 or 128 numbers, as attention's kernels want them.
    """
    inside, hidden = parameters, _width(parameters)
    for _ in range(4):  # the embeddings take their share, and shrink with the width
        inside = max(parameters // 4, parameters - 2 * vocabulary * hidden)
        hidden = _width(inside)
    layers = max(1, round(inside / (12.5 * hidden**2)))
    head = 128 if hidden >= 2048 else 64
    shape = decoder(
        {
            "model_type": "",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // head,
            "head_dim": head,
            "intermediate_size": 64 * round(2.83 * hidden / 64),
            "vocab_size": vocabulary,
            "tie_word_embeddings": False,
        }
    )
    return msgspec.structs.replace(shape, kind="unknown", parameters=parameters, notes=(note,))


def _width(parameters: int) -> int:
    """How wide layers of so many parameters are: a multiple of 64, from 2048 on of 128."""
    exact: float = (parameters * 128 / 12.5) ** (1 / 3)
    step = 128 if exact >= 2048 - 64 else 64
    return max(step, round(exact / step) * step)


def _stored_quantization(config: Sizes) -> tuple[str, int]:
    """By which method the files are quantised, and to how many bits; ("", 16) where they are not."""
    given = config.get("quantization_config")
    if not isinstance(given, Mapping):
        return "", 16
    method = str(given.get("quant_method") or "an unknown method")
    bits = given.get("bits")
    if isinstance(bits, int) and 2 <= bits <= 8:
        return method, bits
    return method, 8 if given.get("load_in_8bit") or method in ("fp8", "finegrained_fp8") else 4


def _notes(config: Sizes, text: Sizes, kind: str) -> list[str]:
    notes = []
    if config.get("auto_map"):
        notes.append(
            "The model comes with code of its own, which is not run to forecast its memory: this is an estimate from "
            "the numbers in its config.json."
        )
    elif kind not in READERS:
        notes.append(
            f"The architecture {kind or 'of this model'} is not one that the formulas know: this is an estimate from "
            "the numbers in its config.json."
        )
    if text is not config:
        notes.append("The model sees more than text; its other parts are left out of the estimate.")
    if config.get("is_encoder_decoder") or kind in OTHER_KINDS:
        notes.append("This is no causal language model; the estimate takes it for one.")
    return notes


def _text_config(config: Sizes) -> Sizes:
    """The part of a config that describes the language model."""
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if isinstance(inner, Mapping) and ("hidden_size" in inner or "n_embd" in inner):
            return {**{k: v for k, v in config.items() if k == "tie_word_embeddings"}, **inner}
    return config


def _missing(kind: str, error: Exception) -> str:
    what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
    return f"config.json does not say how large the model is ({kind or 'no model_type'}): {what}"


def find_architecture(profile: Profile) -> Architecture:
    """The architecture of a profile's model: of a folder, a .gguf file, or what the hub's cache has of a name.

    Raises:
        NotDownloadedError: the model is on the hub, and not on this machine.
        ArchitectureError: there is no such model, or its files do not say how large it is.
    """
    name = model_path(profile)
    path = Path(name)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ArchitectureError(
                f"{path} is a file; a model is a folder, a .gguf file or a hub name"
            )
        return _of_gguf(path)
    if is_path(name):
        raise ArchitectureError(f"there is no {name}")
    folder = cached_folder(name, profile.model.model_revision)
    if folder is None:
        raise NotDownloadedError(
            f"{name} has not been downloaded yet, so that its size is not known; the first trial does that, or "
            f"`hf download {name} config.json`"
        )
    return _of_folder(folder)


def likely_architecture(profile: Profile) -> Architecture:
    """As `find_architecture`; of a hub model that is not on this machine a typical one of the size in its name.

    Raises:
        ArchitectureError: as `find_architecture`, or no size stands in the name.
    """
    try:
        return find_architecture(profile)
    except NotDownloadedError:
        name = model_path(profile)
        size = _size_in(name)
        if size is None:
            raise
    told, parameters = size
    return of_size(
        parameters,
        f"The model's config.json is not here: this is an estimate from the {told} in its name. "
        f"`hf download {name} config.json` makes a better one possible.",
        vocabulary=_MODERN_VOCABULARY,
    )


def _size_in(name: str) -> tuple[str, int] | None:
    """The size that a hub name tells (`Llama-3.2-1B`: 1B), as it stands there and in parameters; None where it tells
    none. Experts by the number (8x7B) and quantised files are no ordinary model of that size."""
    model = name.rpartition("/")[2]
    if _QUANTIZED_NAME.search(model):
        return None
    units = {"M": 10**6, "B": 10**9}
    found = [
        (f"{number}{unit}", int(float(number) * units[unit.upper()]))
        for number, unit in _SIZE_IN_NAME.findall(model)
    ]
    # A context length stands in some names as well (7B-Instruct-1M).
    return max((size for size in found if size[1]), key=lambda size: size[1], default=None)


def cached_folder(name: str, revision: str | None) -> Path | None:
    """Where the hub's cache has a model's config.json, by the layout that huggingface_hub writes; None where it has
    none."""
    root = _hub_cache() / f"models--{name.replace('/', '--')}"
    wanted = revision or "main"
    try:
        commit = (root / "refs" / wanted).read_text("utf-8").strip()
    except OSError:
        commit = wanted
    if not commit or "/" in commit or commit.startswith("."):
        return None
    folder = root / "snapshots" / commit
    return folder if (folder / CONFIG).is_file() else None


def _hub_cache() -> Path:
    """As huggingface_hub.constants finds it; importing that would take longer than all the rest."""
    environment = os.environ
    given = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _of_folder(folder: Path) -> Architecture:
    if (folder / "adapter_config.json").is_file() and not (folder / CONFIG).is_file():
        raise ArchitectureError(f"{folder} holds a LoRA adapter, not a whole model")
    config = _read_json(folder / CONFIG)
    try:
        found = read_config(config)
    except ArchitectureError:
        count = count_parameters(folder)
        if count is None:
            raise
        kind = str(config.get("model_type") or "of this model")
        return of_size(
            count,
            f"The architecture {kind} is not one that the formulas know, and its config.json does not say how it is "
            "built: this is an estimate from the number of its parameters.",
        )
    if found.kind == "unknown" and not found.quantized:
        return msgspec.structs.replace(found, parameters=count_parameters(folder))
    return found


def _read_json(file: Path) -> Sizes:
    try:
        if file.stat().st_size > _LONGEST_CONFIG:
            raise ArchitectureError(f"{file} is too large for a configuration")
        read = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ArchitectureError(
            f"{file.parent} holds no {file.name}, so that it is no model"
        ) from None
    except OSError as error:
        raise ArchitectureError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ArchitectureError(f"{file} is not valid JSON") from None
    if not isinstance(read, dict):
        raise ArchitectureError(f"{file} is no JSON object")
    return read


def count_parameters(folder: Path) -> int | None:
    """How many numbers the .safetensors files in a folder hold, by their headers; None where there are none, or one is
    damaged."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        return sum(_numbers_in(file) for file in files) or None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _numbers_in(file: Path) -> int:
    """The numbers in one .safetensors file: its header is JSON, after its length in 8 bytes."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("damaged")
        header = json.loads(opened.read(length))
    return sum(
        math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"
    )


def _of_gguf(file: Path) -> Architecture:
    """The worker unpacks such a file into an ordinary model, whose shape this is."""
    try:
        header = read_header(file)
    except GgufError as error:
        raise ArchitectureError(str(error)) from None
    kind = str(header.values.get("general.architecture", ""))
    config: dict[str, Any] = {"model_type": _GGUF_KINDS.get(kind, kind)}
    for key, name in _GGUF_KEYS.items():
        value = header.values.get(f"{kind}.{key}")
        if value is not None:
            config[name] = value
    config.setdefault("vocab_size", header.lengths.get("tokenizer.ggml.tokens"))
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    try:
        found = read_config(config)
    except ArchitectureError:
        count = sum(math.prod(shape) for shape in header.tensors.values())
        if not count:
            raise
        return of_size(
            count,
            f"The architecture {kind or 'of this file'} is not one that the formulas know: this is an estimate from "
            "the number of its parameters.",
        )
    if found.kind == "unknown":
        count = sum(math.prod(shape) for shape in header.tensors.values())
        return msgspec.structs.replace(found, parameters=count or None)
    return found


CONFIG = "config.json"
_LONGEST_CONFIG = 16 * 2**20
"""Bytes; those of published models have some thousands."""
_MODERN_VOCABULARY = 128_000
"""About what models on the hub have today (Llama 3: 128,256, Qwen 2 and 3: 151,936)."""
_SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d{1,4}(?:\.\d{1,3})?)([BbMm])(?![A-Za-z0-9])")
_QUANTIZED_NAME = re.compile(r"gptq|awq|bnb|gguf|fp8|nvfp4|int[48]|[48]-?bit", re.IGNORECASE)
_LONGEST_HEADER = 100_000_000
"""The safetensors format allows no more."""
_GGUF_KEYS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
"""GGUF's names for what config.json says."""
_GGUF_KINDS = {
    "gptneox": "gpt_neox",
    "gemma3": "gemma3_text",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "phi2": "phi",
    "starcoder": "gpt_bigcode",
    "command-r": "cohere",
}
"""GGUF's names for architectures, where they differ from model_type."""
