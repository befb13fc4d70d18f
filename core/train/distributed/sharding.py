"""What each rank holds of a model and its optimizer, as resources.sharding says.

"ddp" and "zero1": the whole model, whose gradients DistributedDataParallel averages while the backward pass runs.
"zero1": the optimizer's states of some of the weights, which the rank updates and sends to the others. "fsdp": a part
of every weight with its gradient and states (FSDP2); each decoder layer is gathered when it computes.

A checkpoint and the saved weights are those of one process, whatever made them: states and weights are made whole on
rank 0 before they are written, and each rank takes its part of whole ones.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from core.train.distributed.ranks import Ranks
from core.train.precision import Device


def replicate(model: Any) -> Any:
    """The model with its gradients averaged over all ranks; every rank begins with rank 0's weights."""
    # Gradients live in the buckets that are sent, not beside them. Buffers are the same everywhere.
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def shard(model: Any, ranks: Ranks, device: Device, *, trains: bool = True) -> None:
    """Leave each rank its part of the model's weights, on its device. The model is whole and in the host's memory
    before, so that no GPU has to hold all of it. What is outside of its layers stays gathered after a forward pass
    where the model `trains`: the backward pass begins with it."""
    mesh = init_device_mesh(device, (ranks.count,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=None if trains else True)


def whole_weights(model: Any, ranks: Ranks) -> dict[str, Any]:
    """The weights of a sharded model that are saved, whole and in the host's memory, on rank 0; none on the others.

    Of a model with adapters that is what trains. Tied weights stay one tensor. A collective.
    """
    model.reshard()
    adapters = hasattr(model, "peft_config")
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    # By the weight that a name stands for: two names of tied weights stand for one.
    stands = {name: id(w) for name, w in model.named_parameters(remove_duplicate=False)}
    made: dict[int, Any] = {}
    whole: dict[str, Any] = {}
    for name, weight in model.state_dict().items():
        if adapters and name not in trained:
            continue
        key = stands.get(name, id(weight))
        if key not in made:
            full = _whole(weight)
            made[key] = full.cpu() if ranks.first else None
        if ranks.first:
            whole[name] = made[key]
    return whole


class ZeroOptimizer(ZeroRedundancyOptimizer):  # type: ignore[misc]
    """AdamW of which each rank holds the states of some weights. What it says and takes as its state is whole."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state, on rank 0; no states on the others. A collective."""
        self.consolidate_state_dict(to=0)
        if self.rank != 0:
            groups = torch.optim.Optimizer.state_dict(self)["param_groups"]
            return {"state": {}, "param_groups": groups}
        whole: dict[str, Any] = super().state_dict()
        self._all_state_dicts: list[dict[str, Any]] = []
        return whole

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this rank's states of whole ones."""
        super().load_state_dict(state_dict)
        # They are the inner optimizer's now; the copies here would stay for nothing.
        self.state.clear()


class ShardedAdamW(torch.optim.AdamW):  # type: ignore[misc]
    """AdamW of sharded weights. What it says and takes as its state is whole."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state, on rank 0; no states on the others. A collective."""
        packed: dict[str, Any] = super().state_dict()
        first = torch.distributed.get_rank() == 0
        whole: dict[int, dict[str, Any]] = {}
        for number, state in packed["state"].items():
            made = {name: _whole(value) for name, value in state.items()}
            if first:
                whole[number] = {name: value.cpu() for name, value in made.items()}
        return packed | {"state": whole}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this rank's part of whole states."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        parts = {
            number: {name: _part(value, weights[number]) for name, value in state.items()}
            for number, state in state_dict["state"].items()
        }
        super().load_state_dict(state_dict | {"state": parts})


def _layers(model: Any) -> Iterator[Any]:
    """The modules that are gathered one at a time: the decoder's layers, as transformers keeps them on one device."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = set(base._no_split_modules or ())
    inside: set[int] = set()
    for module in base.modules():
        if type(module).__name__ in kinds and id(module) not in inside:
            inside |= {id(part) for part in module.modules()}
            yield module


def _whole(tensor: Any) -> Any:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _part(value: Any, weight: Any) -> Any:
    """The part of a whole state that belongs to this rank's part of a weight."""
    if not isinstance(weight, DTensor) or not torch.is_tensor(value) or value.shape != weight.shape:
        return value
    placed = value.to(weight.device)
    # Every rank has read the whole, so that nothing needs to be sent.
    return distribute_tensor(placed, weight.device_mesh, weight.placements, src_data_rank=None)


def is_sharded(model: Any) -> bool:
    """Whether the model's weights are in parts."""
    return isinstance(model, FSDPModule)
