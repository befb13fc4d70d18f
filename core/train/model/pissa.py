"""PiSSA: adapters that begin with the largest singular values of the weights (Meng et al. 2024, arXiv 2404.02948).

peft takes them out of the base model, so that what trains are adapters beside a base that is no file. What is saved is
what was learnt since, as an adapter of twice the rank that belongs to the original model:

    W − s·B₀A₀ + s·BA  =  W + s·[B, −B₀]·[A; A₀]

The halves of it are the adapter and what it began with, to the last bit: from that a run goes on.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.params import MethodTable

SEED = 0
"""What the fast decomposition draws from: not the run's seed, so that all trials of a study begin with the same
adapters, and a trial that goes on with those it began with."""

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the adapters of a model began with, in the host's memory: a pair (A, B) for each adapted module's name."""

    pairs: dict[str, tuple[Any, Any]]


def init_name(method: MethodTable) -> str | bool:
    """peft's init_lora_weights."""
    if not method.pissa_init:
        return True
    return "pissa" if method.pissa_iter < 0 else f"pissa_niter_{method.pissa_iter}"


@contextmanager
def same_draws(method: MethodTable) -> Iterator[None]:
    """Within it, the decomposition draws the same numbers in every run; the run's own are as they were after it."""
    if not method.pissa_init:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def remember(model: Any) -> None:
    """Note on a model of peft's with new adapters what they began with (`origin_of`)."""
    pairs = {
        name: (_copy(module.lora_A["default"].weight), _copy(module.lora_B["default"].weight))
        for name, module in _adapted(model)
    }
    model.pissa_origin = Origin(pairs)


def origin_of(model: Any) -> Origin | None:
    """What the adapters of a model began with; None where they are not PiSSA's."""
    found = getattr(model, "pissa_origin", None)
    return found if isinstance(found, Origin) else None


def convert(folder: Path, origin: Origin) -> None:
    """Make the adapter that peft has saved in `folder` one of the original model.

    Raises:
        OSError: the disk is full.
    """
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / _WEIGHTS)
    for name, (first, second) in origin.pairs.items():
        down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        weights[down] = torch.cat([weights[down].to(first.dtype), first])
        weights[up] = torch.cat([weights[up].to(second.dtype), -second], dim=1).contiguous()
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / _CONFIG).read_text("utf-8"))
    # The scale stays: alpha / rank, or alpha / √rank with rsLoRA.
    config["lora_alpha"] *= math.sqrt(2) if config["use_rslora"] else 2
    config["r"] *= 2
    config["init_lora_weights"] = True
    (folder / _CONFIG).write_text(json.dumps(config, indent=2), "utf-8")


def halves(model: Any, origin: Origin, weights: dict[str, Any]) -> dict[str, Any]:
    """The adapters of a checkpoint that `convert` has made, as they train; `weights` is what it holds.

    The base model becomes what is left of the original by what the checkpoint's adapters began with.
    """
    began: dict[str, tuple[Any, Any]] = {}
    own = dict(weights)
    for name in origin.pairs:
        down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        rank = weights[down].shape[0] // 2
        began[name] = weights[down][rank:], -weights[up][:, rank:]
        own[down], own[up] = weights[down][:rank], weights[up][:, :rank]
    _put_back(model, origin.pairs, began)
    model.pissa_origin = Origin(began)
    return own


def _put_back(
    model: Any, own: Mapping[str, tuple[Any, Any]], began: Mapping[str, tuple[Any, Any]]
) -> None:
    """Where the checkpoint's adapters began with other numbers, as on another GPU: take those out of the weights."""
    for name, module in _adapted(model):
        (down, up), (down_then, up_then) = own[name], began[name]
        if torch.equal(down, down_then) and torch.equal(up, up_then):
            continue
        weight = module.get_base_layer().weight
        change = module.scaling["default"] * (up @ down - up_then @ down_then)
        change = change.T if module.fan_in_fan_out else change
        weight.data = (weight.data.float() + change.to(weight.device)).to(weight.dtype)


def _adapted(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if "default" in getattr(module, "lora_A", {}):
            yield name, module


def _copy(weight: Any) -> Any:
    return weight.detach().to("cpu", torch.float32, copy=True).contiguous()
