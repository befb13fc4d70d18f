"""The optimizer of a simulated run: the worker's own class where it runs on fake tensors, else one that holds what
the worker's would."""

from typing import Any

import torch

from core.memory.estimate.states import BLOCK, LEAST_8BIT, LEAST_PAGED
from core.params import TrainTable
from core.train.optimizers import BITSANDBYTES, Optimizer, find_optimizer, parameter_groups


def make_optimizer(train: TrainTable, model: Any, *, cuda: bool) -> Any:
    """The optimizer that `train.optim` and `train.offload_optimizer` mean on the target.

    Raises:
        SettingsError: it cannot run there.
    """
    if cuda and train.offload_optimizer:
        return HostUpdates(parameter_groups(model, train.weight_decay))
    if train.optim in BITSANDBYTES:
        bits = 8 if train.optim.endswith("8bit") else 32
        return BlockwiseAdam(model, train.weight_decay, bits, train.optim.startswith("paged"))
    found = find_optimizer(train, "cpu")
    if cuda and train.optim == "adamw_torch":
        # What torch takes for weights on CUDA: all weights of a group at once, with copies of as much.
        found = Optimizer(found.kind, found.arguments | {"foreach": True})
    if train.offload_optimizer:
        from core.train.offload import OffloadedOptimizer

        return OffloadedOptimizer(found, model, train.weight_decay)
    return found.build(model, train.weight_decay)


class HostUpdates(torch.optim.Optimizer):  # type: ignore[misc]
    """An optimizer whose states and update are in the host's memory: the device holds nothing for it."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """Changes the weights in place."""


class BlockwiseAdam(torch.optim.Optimizer):  # type: ignore[misc]
    """bitsandbytes' AdamW as far as it takes memory: Optimizer2State.init_state of bitsandbytes 0.50. Its update works
    in place, and paged states are in memory that both the host and the device reach, outside of the allocator."""

    def __init__(self, model: Any, weight_decay: float, bits: int, paged: bool) -> None:
        super().__init__(parameter_groups(model, weight_decay), {})
        self._bits = bits
        self._paged = paged
        embeddings = (m for m in model.modules() if isinstance(m, torch.nn.Embedding))
        self._exact = {id(m.weight) for m in embeddings} if bits == 8 else set()
        self._maps: list[Any] = []

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """Makes the states of weights that have none yet."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and not self.state[weight]:
                    self.state[weight] = self._new_state(weight)

    def _new_state(self, weight: Any) -> dict[str, Any]:
        count = weight.numel()
        small = self._bits == 8 and count >= LEAST_8BIT and id(weight) not in self._exact
        kind = torch.uint8 if small else torch.float32
        state: dict[str, Any] = {"step": 0}
        if not self._paged or count < LEAST_PAGED:
            state |= {name: torch.zeros_like(weight, dtype=kind) for name in ("state1", "state2")}
        if small:
            if not self._maps:
                self._maps = [torch.zeros(256), torch.zeros(256)]
            state |= {name: torch.zeros(-(-count // BLOCK)) for name in ("absmax1", "absmax2")}
        return state
