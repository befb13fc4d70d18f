"""Which optimizer `train.optim` means: its class, its arguments and its groups of weights."""

from dataclasses import dataclass
from typing import Any

from core.params import TrainTable
from core.train.errors import SettingsError
from core.train.precision import Device

BITSANDBYTES = frozenset({"adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"})
"""The values of train.optim that need the bitsandbytes package."""


_STATES = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_8bit": "8-bit adamw",
    "paged_adamw_8bit": "8-bit adamw",
}
"""Values of train.optim whose states are of one form; each other one has its own."""


def same_states(one: str, other: str) -> bool:
    """Whether an optimizer can go on with the states of another; both are values of train.optim."""
    return _STATES.get(one, one) == _STATES.get(other, other)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer that is not built yet."""

    kind: Any
    """The class; its instances are torch.optim.Optimizer."""
    arguments: dict[str, Any]
    """What it takes besides the groups of weights, each of which brings its weight_decay."""

    def build(self, model: Any, weight_decay: float) -> Any:
        """The optimizer of the weights of `model` that train.

        The embeddings' states stay 32-bit in an 8-bit optimizer, which is unstable with them (Dettmers et al., 8-bit
        Optimizers via Block-wise Quantization, 2022, section 2.3).
        """
        built = self.kind(parameter_groups(model, weight_decay), **self.arguments)
        if self.arguments.get("optim_bits") == 8:
            _keep_embeddings_exact(model)
        return built


def build_optimizer(
    model: Any, train: TrainTable, device: Device, sharding: str | None = None
) -> Any:
    """The optimizer of the weights of `model` that train, as [train] says; `sharding` as in [resources], where several
    ranks share the work.

    Raises:
        SettingsError: it cannot run on this device.
    """
    found = find_optimizer(train, device)
    if sharding in ("zero1", "fsdp"):
        from core.train.sharding import ShardedAdamW, ZeroOptimizer

        if sharding == "fsdp":
            return Optimizer(ShardedAdamW, found.arguments).build(model, train.weight_decay)
        zero = Optimizer(ZeroOptimizer, {"optimizer_class": found.kind} | found.arguments)
        return zero.build(model, train.weight_decay)
    if train.offload_optimizer:
        from core.train.offload import OffloadedOptimizer

        return OffloadedOptimizer(found, model, train.weight_decay)
    return found.build(model, train.weight_decay)


def find_optimizer(train: TrainTable, device: Device) -> Optimizer:
    """What `train.optim` means on this device.

    Raises:
        SettingsError: it cannot run there.
    """
    if train.optim in BITSANDBYTES:
        return _from_bitsandbytes(train, device)
    if train.optim == "adafactor":
        from transformers.optimization import Adafactor

        # The rate is the schedule's, not Adafactor's own, and means an update of that size as with AdamW.
        return Optimizer(
            Adafactor, {"lr": train.learning_rate, "scale_parameter": False, "relative_step": False}
        )
    from torch.optim import AdamW

    fused = {"fused": True} if train.optim == "adamw_torch_fused" else {}
    return Optimizer(AdamW, _adam(train) | fused)


def parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that train in two groups: those that decay, and biases and norms, which do not.

    The groups are transformers' own (Trainer.get_decay_parameter_names) and in its order, so that its checkpoints fit.
    """
    from torch.nn import LayerNorm
    from transformers.trainer_pt_utils import get_parameter_names

    undecayed = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    decays = set(get_parameter_names(model, [LayerNorm], undecayed))
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in trained if n in decays], "weight_decay": weight_decay},
        {"params": [p for n, p in trained if n not in decays], "weight_decay": 0.0},
    ]


def _from_bitsandbytes(train: TrainTable, device: Device) -> Optimizer:
    paged = train.optim.startswith("paged")
    if paged and device == "cpu":
        raise SettingsError(
            f'train.optim = "{train.optim}" needs a GPU: there is no memory to page to on the CPU. '
            'Take "adamw_torch", or "adamw_8bit" to save memory'
        )
    bits = 8 if train.optim.endswith("8bit") else 32
    if device == "cpu" and bits == 8 and not _runs_on_cpu():
        raise SettingsError(
            'train.optim = "adamw_8bit" does not run on the CPU with this version of bitsandbytes; update it, or '
            'take "adamw_torch"'
        )
    if paged:
        from core.train.paged import PagedAdamW

        return Optimizer(PagedAdamW, _adam(train) | {"optim_bits": bits, "is_paged": True})
    from bitsandbytes.optim import AdamW

    return Optimizer(AdamW, _adam(train) | {"optim_bits": bits, "is_paged": False})


def _adam(train: TrainTable) -> dict[str, Any]:
    return {
        "lr": train.learning_rate,
        "betas": (train.adam_beta1, train.adam_beta2),
        "eps": train.adam_epsilon,
    }


def _runs_on_cpu() -> bool:
    """Whether the installed bitsandbytes has 8-bit updates for the CPU."""
    import torch

    return bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(
            "bitsandbytes::optimizer_update_8bit_blockwise", "CPU"
        )
    )


def _keep_embeddings_exact(model: Any) -> None:
    import torch
    from bitsandbytes.optim import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    # It knows weights by their address in memory, which those of a model that is gone may have had.
    manager.initialize()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
