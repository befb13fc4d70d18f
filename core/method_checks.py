"""What does not go together among methods, optimizers, precision and checkpoints."""

from collections.abc import Iterator, Mapping
from typing import cast

from core.optimizer_settings import PROJECTED, OptimArgsError, optim_args
from core.params import (
    AlignmentTable,
    MethodTable,
    ModelTable,
    ResourcesTable,
    Table,
    TrainTable,
)
from core.problems import Problem
from core.values import names_in, toml_value

_OFFLOADABLE = ("adamw_torch", "adamw_torch_fused", "adafactor")
"""Optimizers that can update on the host what is on the GPU."""

_WITHOUT_REFERENCE = ("orpo", "simpo")
"""Losses of dpo that do not hold the model against what it was before."""


def method_problems(tables: Mapping[str, Table]) -> Iterator[Problem]:
    """What is wrong between the tables that say how weights are trained; one that is itself wrong is left out."""
    model = cast(ModelTable | None, tables.get("model"))
    method = cast(MethodTable | None, tables.get("method"))
    train = cast(TrainTable | None, tables.get("train"))
    resources = cast(ResourcesTable | None, tables.get("resources"))
    alignment = cast(AlignmentTable | None, tables.get("alignment"))
    if model and method:
        yield from _quantised(model, method, resources)
    if method and method.finetuning_type == "freeze" and method.freeze_trainable_layers == 0:
        yield Problem(
            "method.freeze_trainable_layers",
            "0 would train nothing",
            "1 or more, or below 0 for the first layers",
        )
    if method and method.finetuning_type == "lora":
        yield from _adapters(method, train, resources, alignment)
    if train:
        yield from _optimizer(train, method)
        yield from _precision(train, method)
    if train and resources and resources.devices == "cpu":
        yield from _on_cpu(train)


def _quantised(
    model: ModelTable, method: MethodTable, resources: ResourcesTable | None
) -> Iterator[Problem]:
    bits = model.quantization_bit
    if not bits:
        return
    if method.finetuning_type != "lora":
        yield Problem(
            "model.quantization_bit",
            f'quantised weights cannot be trained with finetuning_type = "{method.finetuning_type}"',
            'finetuning_type = "lora", or leave quantization_bit out',
        )
    elif method.pissa_init:
        yield Problem(
            "method.pissa_init",
            f"takes the adapters out of the weights, and quantization_bit = {bits} has them rounded before",
            "leave pissa_init out, or quantization_bit",
        )
    elif method.use_dora and bits == 8 and resources and resources.devices == "cpu":
        yield Problem(
            "method.use_dora",
            "does not work with quantization_bit = 8 on the CPU, where peft loses the scales of such weights",
            "quantization_bit = 4, or leave use_dora out",
        )
    if model.adapter_name_or_path is not None:
        yield Problem(
            "model.adapter_name_or_path",
            f"cannot be merged into a model in {bits} bits (quantization_bit = {bits})",
            "make one model of both with `tunedeck export` and name that, or leave quantization_bit out",
        )


def _adapters(
    method: MethodTable,
    train: TrainTable | None,
    resources: ResourcesTable | None,
    alignment: AlignmentTable | None,
) -> Iterator[Problem]:
    both = _names(method.lora_target) & _names(method.additional_target)
    if both:
        yield Problem(
            "method.additional_target",
            f"{' and '.join(sorted(both))} cannot train whole and have an adapter too (lora_target)",
            "name it in one of them",
        )
    if train and method.loraplus_lr_ratio and train.lr_scheduler_type == "greedy":
        yield Problem(
            "method.loraplus_lr_ratio",
            'does not go with lr_scheduler_type = "greedy", which keeps all rates within the same bounds',
            '"cosine" or another schedule, or leave loraplus_lr_ratio out',
        )
    sharded = resources and resources.gpus_per_trial > 1 and resources.sharding == "fsdp"
    for key, given in (
        ("pissa_init", method.pissa_init),
        ("additional_target", method.additional_target is not None),
    ):
        if sharded and given:
            yield Problem(
                f"method.{key}",
                'does not go with resources.sharding = "fsdp", under which no GPU holds a whole weight to take it from',
                'sharding = "ddp" or "zero1", or leave it out',
            )
    if method.pissa_init and _has_reference(method.stage, alignment):
        yield Problem(
            "method.pissa_init",
            f'does not go with stage = "{method.stage}", which is held to the model without its adapters: with PiSSA '
            "they hold a part of the model itself",
            "leave pissa_init out",
        )


def _has_reference(stage: str, alignment: AlignmentTable | None) -> bool:
    if stage == "dpo":
        return alignment is None or alignment.pref_loss not in _WITHOUT_REFERENCE
    return stage in ("kto", "ppo")


def _optimizer(train: TrainTable, method: MethodTable | None) -> Iterator[Problem]:
    try:
        optim_args(train.optim, train.optim_args)
    except OptimArgsError as error:
        yield Problem("train.optim_args", str(error), error.right)
    if train.optim in PROJECTED and method and method.finetuning_type != "full":
        yield Problem(
            "train.optim",
            f'"{train.optim}" projects the gradients of whole weights, which finetuning_type = '
            f'"{method.finetuning_type}" does not have',
            'finetuning_type = "full", or another optim, as "adamw_torch"',
        )
    if train.offload_optimizer and train.optim not in _OFFLOADABLE:
        yield Problem(
            "train.offload_optimizer",
            f'does not go with optim = "{train.optim}", which runs where the weights are',
            f"optim = {' or '.join(toml_value(name) for name in _OFFLOADABLE)}, or leave it out",
        )


def _precision(train: TrainTable, method: MethodTable | None) -> Iterator[Problem]:
    held = method.adapter_precision if method and method.finetuning_type == "lora" else "auto"
    if train.precision == "fp16" and held == "bf16":
        yield Problem(
            "method.adapter_precision",
            'bf16 does not go with precision = "fp16", whose loss scaling works on fp32 gradients',
            '"auto" or "fp32", or precision = "bf16" where the GPU has it',
        )


def _on_cpu(train: TrainTable) -> Iterator[Problem]:
    if train.precision == "fp16":
        yield Problem(
            "train.precision",
            'fp16 does not go with devices = "cpu", where its loss scaling does not exist',
            '"auto", "fp32" or "bf16"',
        )
    if train.optim.startswith("paged") or train.optim == "galore_adamw_8bit":
        yield Problem(
            "train.optim",
            f'"{train.optim}" does not go with devices = "cpu": it needs a GPU',
            'another optim, as "adamw_torch" or "adamw_8bit"',
        )


def _names(text: str | None) -> set[str]:
    return set(names_in(text)) - {"all"}
