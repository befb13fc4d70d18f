"""Which optimizer `train.optim` means: its class, its arguments and its groups of weights."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from core.optimizer_settings import (
    BITSANDBYTES,
    PACKAGES,
    PROJECTED,
    OptimArgsError,
    lacking,
    optim_args,
)
from core.params import MethodTable, TrainTable
from core.train.errors import SettingsError, first_line
from core.train.precision import Device
from core.values import names_in

EMBEDDING_RATE = 1e-6
"""LoRA+'s rate of adapters on embeddings (LLaMA-Factory's loraplus_lr_embedding and peft's default)."""

_STATES = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_8bit": "8-bit adamw",
    "paged_adamw_8bit": "8-bit adamw",
    "lion_32bit": "lion",
    "paged_lion_32bit": "lion",
    "lion_8bit": "8-bit lion",
    "paged_lion_8bit": "8-bit lion",
}
"""Values of train.optim whose states are of one form; each other one has its own."""


def same_states(one: str, other: str) -> bool:
    """Whether an optimizer can go on with the states of another; both are values of train.optim."""
    return _STATES.get(one, one) == _STATES.get(other, other)


@dataclass(frozen=True, slots=True)
class Rates:
    """How the weights that train are grouped: which of them decay, and which have a rate of their own."""

    weight_decay: float
    rate: float
    ratio: float | None = None
    """LoRA+'s: the adapters' B matrices have so many times the rate."""

    @staticmethod
    def of(train: TrainTable, method: MethodTable | None = None) -> "Rates":
        """As [train] and [method] say."""
        lora = method is not None and method.finetuning_type == "lora"
        ratio = method.loraplus_lr_ratio if method is not None and lora else None
        return Rates(train.weight_decay, train.learning_rate, ratio)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer that is not built yet."""

    kind: Any
    """The class, or what is called as it is; makes torch.optim.Optimizer."""
    arguments: dict[str, Any]
    """What it takes besides the groups of weights, each of which brings its weight_decay."""

    def build(self, model: Any, rates: Rates) -> Any:
        """The optimizer of the weights of `model` that train.

        The embeddings' states stay 32-bit in an 8-bit optimizer, which is unstable with them (Dettmers et al., 8-bit
        Optimizers via Block-wise Quantization, 2022, section 2.3).
        """
        built = self.kind(parameter_groups(model, rates), **self.arguments)
        if self.arguments.get("optim_bits") == 8:
            _keep_embeddings_exact(model)
        return built


def build_optimizer(
    model: Any,
    train: TrainTable,
    device: Device,
    sharding: str | None = None,
    method: MethodTable | None = None,
) -> Any:
    """The optimizer of the weights of `model` that train, as [train] says, and [method] of LoRA+; `sharding` as in
    [resources], where several ranks share the work.

    Raises:
        SettingsError: it cannot run on this device, or its package is not installed.
    """
    rates = Rates.of(train, method)
    if train.optim in PROJECTED:
        _check_projected(train, device)
        return _projected(model, train)
    found = find_optimizer(train, device)
    if sharding in ("zero1", "fsdp"):
        from core.train.distributed.sharding import ShardedAdamW, ZeroOptimizer

        if sharding == "fsdp":
            return Optimizer(ShardedAdamW, _adam(train) | _fused(train, "cpu")).build(model, rates)
        zero = Optimizer(ZeroOptimizer, {"optimizer_class": found.kind} | found.arguments)
        return zero.build(model, rates)
    if train.offload_optimizer:
        from core.train.memory.offload import OffloadedOptimizer

        return OffloadedOptimizer(found, model, rates)
    return found.build(model, rates)


def check_optimizer(train: TrainTable, device: Device) -> None:
    """Say what stands against train.optim before anything is loaded.

    Raises:
        SettingsError: it cannot run on this device, its package is not installed, or train.optim_args are wrong.
    """
    if train.optim in PROJECTED:
        _arguments(train)
        _check_projected(train, device)
    else:
        find_optimizer(train, device)


def find_optimizer(train: TrainTable, device: Device) -> Optimizer:
    """What `train.optim` means on this device; galore and apollo, which look at the model, are not among them.

    Raises:
        SettingsError: it cannot run there, or train.optim_args are wrong.
    """
    given = _arguments(train)
    if train.optim in BITSANDBYTES:
        return _from_bitsandbytes(train, device)
    if train.optim == "adafactor":
        # The rate is the schedule's, not Adafactor's own, and means an update of that size as with AdamW.
        return Optimizer(
            _adafactor,
            {"lr": train.learning_rate, "scale_parameter": False, "relative_step": False},
        )
    if train.optim == "sgd":
        from torch.optim import SGD

        return Optimizer(SGD, {"lr": train.learning_rate} | given)
    from torch.optim import AdamW

    return Optimizer(AdamW, _adam(train) | _fused(train, device))


def parameter_groups(model: Any, rates: Rates) -> list[dict[str, Any]]:
    """The weights that train in two groups: those that decay, and biases and norms, which do not.

    The groups are transformers' own (Trainer.get_decay_parameter_names) and in its order, so that its checkpoints fit.
    With LoRA+ there are five, as peft.optimizers.create_loraplus_optimizer divides them: A matrices and what else
    trains (two: that decays, that does not), adapters on embeddings, B matrices and vectors (two).
    """
    from torch.nn import LayerNorm
    from transformers.trainer_pt_utils import get_parameter_names

    undecayed = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    decays = set(get_parameter_names(model, [LayerNorm], undecayed))
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if rates.ratio is None:
        return _decaying(trained, decays, rates, {})
    embeddings = [(n, p) for n, p in trained if "lora_embedding_" in n]
    quick = [(n, p) for n, p in trained if "lora_B" in n or (p.ndim == 1 and "lora_" in n)]
    apart = {n for n, _ in (*embeddings, *quick)}
    slow = {"lr": min(EMBEDDING_RATE, rates.rate), "weight_decay": rates.weight_decay}
    return [
        *_decaying([(n, p) for n, p in trained if n not in apart], decays, rates, {}),
        {"params": [p for _, p in embeddings]} | slow,
        *_decaying(quick, decays, rates, {"lr": rates.rate * rates.ratio}),
    ]


def _decaying(
    weights: Sequence[tuple[str, Any]], decays: set[str], rates: Rates, more: dict[str, Any]
) -> list[dict[str, Any]]:
    """Two groups: what decays, and what does not."""
    return [
        {"params": [p for n, p in weights if n in decays], "weight_decay": rates.weight_decay}
        | more,
        {"params": [p for n, p in weights if n not in decays], "weight_decay": 0.0} | more,
    ]


def _arguments(train: TrainTable) -> dict[str, Any]:
    try:
        return dict(optim_args(train.optim, train.optim_args))
    except OptimArgsError as error:
        raise SettingsError(f"train.optim_args: {error} ({error.right})") from None


def _check_projected(train: TrainTable, device: Device) -> None:
    package = lacking(train.optim)
    if package is not None:
        raise SettingsError(
            f'train.optim = "{train.optim}" needs the package {package.install}, which is not installed: pip install '
            f"{package.install}"
        )
    if train.optim.endswith("8bit") and device == "cpu":
        raise SettingsError(
            f'train.optim = "{train.optim}" needs a GPU. Take "{train.optim.removesuffix("_8bit")}"'
        )


@contextmanager
def readable_states(optim: str) -> Iterator[None]:
    """Within it, torch.load takes a checkpoint's states of galore and apollo, which hold objects of their packages."""
    if optim not in PROJECTED:
        yield
        return
    import torch

    package = PACKAGES[optim].module
    import_module(package)
    kinds = {
        kind
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] == package
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__.partition(".")[0] == package
    }
    with torch.serialization.safe_globals(list(kinds)):
        yield


def _projected(model: Any, train: TrainTable) -> Any:
    """galore or apollo, as transformers makes it: its states are of a projection of the linear layers' gradients.

    Raises:
        SettingsError: transformers cannot make it.
    """
    from transformers import Trainer
    from transformers.training_args import OptimizerNames

    targets = names_in(train.optim_target_modules)
    # What is read of TrainingArguments. New ones would reset the state of the Trainer's accelerator, which is running.
    arguments: Any = SimpleNamespace(
        optim=OptimizerNames(train.optim),
        optim_args=train.optim_args,
        optim_target_modules=targets or _inner_linears(model),
        learning_rate=train.learning_rate,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
    )
    try:
        kind, given = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    except (ValueError, TypeError, ImportError) as error:
        raise SettingsError(
            f'train.optim = "{train.optim}" cannot be made: {first_line(error)}'
        ) from None
    # transformers divides the weights into two groups, those that are projected last, and decays none of them.
    *_, projected = given["params"]
    _check_sides(projected, train)
    apart = {id(p) for p in projected["params"]}
    plain = [
        group | {"params": [p for p in group["params"] if id(p) not in apart]}
        for group in parameter_groups(model, Rates.of(train))
    ]
    groups = [*plain, projected | {"weight_decay": train.weight_decay}]
    own = {} if train.optim == "galore_adafactor" else _adam(train)
    with warnings.catch_warnings():
        # The packages' own AdamW tells to take torch's, which projects nothing.
        warnings.simplefilter("ignore", FutureWarning)
        built = kind(**{**given, **own, "params": [g for g in groups if g["params"]]})
    keep_states_exact(built)
    return built


def _check_sides(projected: Mapping[str, Any], train: TrainTable) -> None:
    """Raise SettingsError where galore (galore-torch 1.0) takes the sides of a weight for each other on the way back:
    projected on all directions of its shorter side, which is its first, the one is as long as the other."""
    if projected.get("proj_type") != "reverse_std" or not train.optim.startswith("galore"):
        return
    sides = [w.shape[0] for w in projected["params"] if w.shape[0] < w.shape[1]]
    if sides and min(sides) <= projected["rank"]:
        raise SettingsError(
            f"train.optim_args: proj_type = reverse_std needs a rank below {min(sides)}, the shortest side of this "
            f"model's weights, and it is {projected['rank']} (lower rank, or take proj_type = std)"
        )


def _adafactor(groups: Any, **arguments: Any) -> Any:
    from transformers.optimization import Adafactor

    built = Adafactor(groups, **arguments)
    keep_states_exact(built)
    return built


def keep_states_exact(optimizer: Any) -> None:
    """Let an optimizer take up the states of a checkpoint in the numbers that they have there.

    torch gives them those of the weights: states in fp32 of weights in bf16, which adafactor has, would be rounded, and
    a run that goes on would not be the one that never ended.
    """
    kept: dict[int, dict[str, Any]] = {}

    def before(_: Any, state_dict: dict[str, Any]) -> None:
        kept.update(state_dict["state"])

    def after(_: Any) -> None:
        weights = (w for group in optimizer.param_groups for w in group["params"])
        for index, weight in enumerate(weights):
            held = optimizer.state.get(weight, {})
            for name, value in kept.get(index, {}).items():
                if hasattr(value, "dtype") and held[name].dtype != value.dtype:
                    held[name] = value.to(weight.device)
        kept.clear()

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after)


def _inner_linears(model: Any) -> list[str]:
    """The names of the linear layers but the output head."""
    import torch

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]


def _from_bitsandbytes(train: TrainTable, device: Device) -> Optimizer:
    paged = train.optim.startswith("paged")
    bits = 8 if train.optim.endswith("8bit") else 32
    lion = "lion" in train.optim
    if paged and device == "cpu":
        plain = "lion_32bit" if lion else "adamw_torch"
        raise SettingsError(
            f'train.optim = "{train.optim}" needs a GPU: there is no memory to page to on the CPU. '
            f'Take "{plain}", or "{"lion" if lion else "adamw"}_8bit" to save memory'
        )
    if device == "cpu" and bits == 8 and not _runs_on_cpu():
        raise SettingsError(
            f'train.optim = "{train.optim}" does not run on the CPU with this version of bitsandbytes; update it, or '
            f'take "{"lion_32bit" if lion else "adamw_torch"}"'
        )
    held = {"optim_bits": bits, "is_paged": paged}
    if lion:
        from core.train.memory.paged import Lion, PagedLion

        rates = {"lr": train.learning_rate, "betas": (train.adam_beta1, train.adam_beta2)}
        return Optimizer(PagedLion if paged else Lion, rates | held)
    from core.train.memory.paged import AdamW, PagedAdamW

    return Optimizer(PagedAdamW if paged else AdamW, _adam(train) | held)


def _fused(train: TrainTable, device: Device) -> dict[str, Any]:
    """AdamW in one kernel: always on CUDA, where it computes the same update and needs no copies; elsewhere, and where
    the host updates, if it is asked for."""
    asked = train.optim == "adamw_torch_fused"
    return {"fused": True} if asked or (device == "cuda" and not train.offload_optimizer) else {}


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
