"""Whether a model keeps the rows of a packed sequence apart: tried out on a few tokens, as no config says it.

Models whose attention is made of positions do, where transformers makes their masks. State-space and recurrent layers
run over the border between rows, and models with ALiBi count distances from the sequence's begin.
"""

import inspect
from typing import Any

import torch

from core.train.errors import SettingsError

_ROW = 6
"""Tokens of each row of the trial."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_TOLERANCE_HALF = 0.25
"""How far scores may be off, in standard deviations of the scores: what rounding makes of another order of sums."""


def check_apart(model: Any, path: str) -> None:
    """Check that `model`, which is loaded, computes packed rows as it does rows apart.

    Raises:
        SettingsError: it does not; the message says why and what to do.
    """
    attention = getattr(model.config, "_attn_implementation", None)
    device = next(model.parameters()).device
    if attention == "flash_attention_2":
        # Its kernel takes the rows' lengths and needs no mask; it runs on a GPU alone.
        if "position_ids" not in _arguments(model):
            raise _refusal(path, "it takes no positions")
        return
    if "position_ids" not in _arguments(model):
        raise _refusal(path, "it takes no positions, by which rows are told apart")
    off = _difference(model, device)
    limit = _TOLERANCE.get(_dtype(model), _TOLERANCE_HALF)
    if off > limit:
        raise _refusal(path, "what a row computes depends on the rows before it")


def _difference(model: Any, device: Any) -> float:
    """How far the scores of a row are off that comes after another one, in standard deviations."""
    words = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    row, before, other = torch.randint(0, words, (3, _ROW), generator=generator).to(device)
    packed = torch.stack([torch.cat([before, row]), torch.cat([other, row])])
    once = torch.arange(_ROW, device=device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = model(input_ids=row[None], position_ids=once[None], use_cache=False).logits
            after = model(
                input_ids=packed,
                position_ids=torch.cat([once, once]).expand(2, -1),
                use_cache=False,
            ).logits[:, _ROW:]
    finally:
        model.train(training)
    scores = alone.float()
    return float((after.float() - scores).abs().max() / scores.std().clamp_min(1e-12))


def _arguments(model: Any) -> set[str]:
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    # The class's: an instance's may have been put in its place.
    return set(inspect.signature(type(inner).forward).parameters)


def _dtype(model: Any) -> Any:
    """The least exact type that the model computes in."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return (
        torch.float32
        if types == {torch.float32}
        else (torch.float64 if types == {torch.float64} else torch.bfloat16)
    )


def _refusal(path: str, reason: str) -> SettingsError:
    return SettingsError(
        f"packed rows of {path} would see each other: {reason}. Set data.neat_packing = false, so that they may, or "
        "data.packing = false"
    )
