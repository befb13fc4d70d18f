"""Gradient checkpointing of all decoder layers or of every n-th."""

from typing import Any

from core.train.errors import ModelError


def checkpoint_activations(model: Any, every: int = 1) -> None:
    """Let every `every`-th decoder layer of `model` (the first one, and so on) forget its activations and compute them
    again in the backward pass. Checkpoints are not re-entrant, so that layers whose input needs no gradient work too.

    Raises:
        ModelError: the model cannot checkpoint, or only as a whole.
    """
    try:
        if hasattr(model, "activation_checkpointing_enable"):
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError:
        raise ModelError(
            "train.gradient_checkpointing does not work with this model: its code has no checkpoints; leave it out"
        ) from None
    if every == 1:
        return
    layers = _layers(model)
    if not layers:
        raise ModelError(
            "train.gradient_checkpointing_every does not work with this model: its layers are checkpointed all "
            "together; set it to 1"
        )
    # transformers takes the number itself from 5.23 on; this works with the older ones as well.
    for number, layer in enumerate(layers):
        layer.gradient_checkpointing = number % every == 0


def _layers(model: Any) -> list[Any]:
    """The decoder's layers that checkpoint themselves, from the first to the last. Those of a part for images, which
    stands beside it, are not counted."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    modules = model.get_decoder().modules()
    return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
