"""The optimizer of a simulated run: the worker's own class where it runs on fake tensors, else one that holds what
the worker's would."""

from typing import Any

import torch

from core.dryrun.errors import CannotProve
from core.memory.estimate.states import BLOCK, LEAST_8BIT, LEAST_PAGED
from core.optimizer_settings import BITSANDBYTES, PROJECTED
from core.params import MethodTable, TrainTable
from core.train.optimizers import Optimizer, Rates, find_optimizer, parameter_groups


def make_optimizer(train: TrainTable, method: MethodTable, model: Any, *, cuda: bool) -> Any:
    """The optimizer that `train.optim` and `train.offload_optimizer` mean on the target.

    Raises:
        SettingsError: it cannot run there.
        CannotProve: it is of a package of its own.
    """
    rates = Rates.of(train, method)
    if train.optim in PROJECTED:
        raise CannotProve(
            f"what {train.optim} takes to find its projections is not simulated; it is estimated"
        )
    if cuda and train.offload_optimizer:
        return HostUpdates(parameter_groups(model, rates))
    if train.optim in BITSANDBYTES:
        return BlockwiseStates(model, rates, train.optim)
    found = find_optimizer(train, "cpu")
    if cuda and train.optim in _ON_CUDA and not train.offload_optimizer:
        found = Optimizer(found.kind, found.arguments | _ON_CUDA[train.optim])
    if train.offload_optimizer:
        from core.train.memory.offload import OffloadedOptimizer

        return OffloadedOptimizer(found, model, rates)
    return found.build(model, rates)


_ON_CUDA = {"adamw_torch": {"fused": True}, "sgd": {"foreach": True}}
"""How an update runs on CUDA where it runs otherwise on the CPU: in one kernel as core.train.optimizers has it, or as
torch does by itself, for all weights of a group at once with copies of as much."""


class HostUpdates(torch.optim.Optimizer):  # type: ignore[misc]
    """An optimizer whose states and update are in the host's memory: the device holds nothing for it."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """Changes the weights in place."""


class BlockwiseStates(torch.optim.Optimizer):  # type: ignore[misc]
    """bitsandbytes' AdamW and Lion as far as they take memory: Optimizer2State.init_state and Optimizer1State's of
    bitsandbytes 0.50. Their update works in place, and paged states are in memory that both the host and the device
    reach, outside of the allocator."""

    def __init__(self, model: Any, rates: Rates, optim: str) -> None:
        super().__init__(parameter_groups(model, rates), {})
        self._bits = 8 if optim.endswith("8bit") else 32
        self._paged = optim.startswith("paged")
        self._held = (1,) if "lion" in optim else (1, 2)
        embeddings = (m for m in model.modules() if isinstance(m, torch.nn.Embedding))
        self._exact = {id(m.weight) for m in embeddings} if self._bits == 8 else set()
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
            state |= {f"state{n}": torch.zeros_like(weight, dtype=kind) for n in self._held}
        if small:
            if not self._maps:
                self._maps = [torch.zeros(256) for _ in self._held]
            state |= {f"absmax{n}": torch.zeros(-(-count // BLOCK)) for n in self._held}
        return state
