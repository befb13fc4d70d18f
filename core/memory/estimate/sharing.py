"""What one of several GPUs holds of a run that they share (resources.sharding). Bytes.

Counted, not simulated: what is sent and gathered at the same time depends on how transfers and computation overlap.
"""

from dataclasses import dataclass

from core.memory.estimate.regime import Regime
from core.memory.estimate.states import Group, base_weights, rounded, size_of
from core.memory.forecast import MIB
from core.memory.models.shape import Architecture
from core.params import ResourcesTable
from core.profile import Profile

NCCL = 400 * MIB
"""What NCCL takes outside of the allocator for its channels' buffers, on GPUs: assumed, as it depends on how the GPUs
are connected."""
AHEAD = 2
"""Layers whose weights are whole at once with "fsdp": the one that computes and the next one, which is being gathered
(FSDP2's prefetching in both directions)."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What differs from a run on one GPU."""

    weights: int = 1
    """GPUs that share the weights, adapters and gradients."""
    states: int = 1
    """GPUs that share the optimizer's states, and so its update."""
    gathered: int = 0
    """Weights that are whole while layers compute, besides the GPU's share."""
    buckets: int | None = None
    """Gradients that are there all the time; None where they come and go as on one GPU."""
    passing: int = 0
    """Gradients that are whole on their way to their shares."""
    context: int = 0
    """What is held outside of the allocator."""
    note: str = ""


def sharing(
    profile: Profile, shape: Architecture, regime: Regime, groups: tuple[Group, ...]
) -> Sharing:
    """How the GPUs of a trial share what it holds; with one GPU nothing differs."""
    resources = profile.resources
    count = resources.gpus_per_trial
    if count == 1:
        return Sharing()
    context = NCCL if regime.cuda else 0
    gradients = size_of(groups, regime.trained)
    if resources.sharding == "fsdp":
        inside, outside = _units(profile, shape, regime)
        trained = regime.method != "lora"
        # The outermost unit's weights (embeddings, head) stay whole from the forward to the end of the backward pass.
        layer = gradients // max(1, shape.layers) if not trained else inside
        return Sharing(
            weights=count,
            states=count,
            gathered=outside + AHEAD * inside,
            buckets=gradients // count,
            # A layer's gradients as they are made, and as they are sent.
            passing=2 * max(layer, outside if regime.method == "full" else 0),
            context=context,
            note=_note(resources),
        )
    # The buckets that gradients are sent from hold them, and are never given back.
    states = count if resources.sharding == "zero1" else 1
    return Sharing(states=states, buckets=gradients, context=context, note=_note(resources))


def _units(profile: Profile, shape: Architecture, regime: Regime) -> tuple[int, int]:
    """The weights of one layer, and of all that is in no layer."""
    whole = base_weights(shape, regime, profile.method)
    outside = rounded(shape.outside_size() * regime.weight)
    return (whole - outside) // max(1, shape.layers), outside


def _note(resources: ResourcesTable) -> str:
    return (
        f"Shared by {resources.gpus_per_trial} GPUs ({resources.sharding}): what is sent and gathered at once is "
        "assumed, not simulated."
    )
