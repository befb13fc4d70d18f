"""The weights that a trial has trained, as they are saved."""

from pathlib import Path
from typing import Any

from core.train.distributed.ranks import Ranks


def weights_to_save(model: Any, ranks: Ranks) -> dict[str, Any] | None:
    """The weights of a model that is in parts, on rank 0; None: the model has them whole. A collective."""
    if not ranks.several:
        return None
    from core.train.distributed.sharding import is_sharded, whole_weights

    return whole_weights(model, ranks) if is_sharded(model) else None


def save_weights(model: Any, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Save what trains: the adapter of a peft model, or the whole model; `weights` in place of the model's own.

    An adapter is saved as one of the model that the profile names; PiSSA's has twice the rank (`model.pissa`).

    Raises:
        OSError: the disk is full.
    """
    from core.train.model import pissa

    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        # The default asks the hub whether the vocabulary has grown, and waits for an answer where there is no network.
        model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
        origin = pissa.origin_of(model)
        if origin is not None:
            pissa.convert(folder, origin)
    else:
        model.save_pretrained(folder, state_dict=weights)


def take_up_adapter(model: Any, checkpoint: Path) -> bool:
    """Give a model of peft's the adapter of a checkpoint, in the numbers that it is held in; False where there is none.

    peft's own load_adapter makes adapters of 16 bits ones of 32.
    """
    from core.train.model import pissa

    file = checkpoint / "adapter_model.safetensors"
    if not hasattr(model, "peft_config") or not file.is_file():
        return False
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    weights, origin = load_file(file), pissa.origin_of(model)
    own = weights if origin is None else pissa.halves(model, origin, weights)
    set_peft_model_state_dict(model, own)
    return True
