"""Which weights of a model train: adapters (LoRA), some layers (freeze) or all of them (full)."""

import re
from collections.abc import Sequence
from typing import Any

from core.params import MethodTable
from core.params.method import default_alpha
from core.profile import Profile
from core.train.errors import ModelError, first_line
from core.train.precision import Numbers
from core.values import names_in

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
"""What the names of weights inside the layers have."""


def choose_trainable(
    model: Any,
    profile: Profile,
    numbers: Numbers,
    task: str = "CAUSAL_LM",
    heads: Sequence[str] = (),
) -> Any:
    """The model with `requires_grad` set as method.finetuning_type says; with LoRA, wrapped in its adapters.

    `task` is peft's name of what the model is for. `heads` are modules that begin at random, as a reward model's
    score: they train whole, whatever the method says.

    Raises:
        ModelError: the modules that are named do not exist in this model.
    """
    method = profile.method
    if method.finetuning_type == "lora":
        return _with_adapters(model, method, numbers, task, heads)
    if method.finetuning_type == "freeze":
        _freeze(model, method, heads)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            "[method] leaves no weight of this model to train; look at freeze_trainable_layers, "
            "freeze_trainable_modules and freeze_extra_modules"
        )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(numbers.trained)
    return model


def count(model: Any) -> tuple[int, int]:
    """How many parameters train, and how many there are (4-bit weights counted as the numbers they stand for)."""
    trainable = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        size = state.shape.numel() if state is not None else parameter.numel()
        total += size
        trainable += size if parameter.requires_grad else 0
    return trainable, total


def _with_adapters(
    model: Any, method: MethodTable, numbers: Numbers, task: str, heads: Sequence[str]
) -> Any:
    from peft import LoraConfig, get_peft_model

    from core.train.model import pissa

    targets: str | list[str] = "all-linear"
    if method.lora_target != "all":
        targets = _targets(model, method.lora_target)
    _check_adapters(model, method, targets)
    whole = [*_whole_modules(model, method), *heads]
    named = [*whole, *(targets if isinstance(targets, list) else ())]
    config = LoraConfig(
        task_type=task,
        r=method.lora_rank,
        lora_alpha=default_alpha(method.lora_rank)
        if method.lora_alpha is None
        else method.lora_alpha,
        lora_dropout=method.lora_dropout,
        target_modules=targets,
        modules_to_save=whole or None,
        # Embeddings that are the head too stay one weight, or merging would leave the model with two.
        ensure_weight_tying=bool(_tied_names(model) & {n.rpartition(".")[2] for n in named}),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
        init_lora_weights=pissa.init_name(method),
    )
    try:
        with pissa.same_draws(method):
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(
            f"peft cannot adapt this model as [method] says: {first_line(error)}"
        ) from None
    if method.pissa_init:
        pissa.remember(adapted)
    # Without autocast a whole module meets the numbers of the model around it; adapters are cast to them by peft.
    beside = numbers.trained if numbers.name in ("bf16", "fp16") else numbers.compute
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            kind = beside if "modules_to_save" in name else numbers.trained
            parameter.data = parameter.data.to(kind)
    return adapted


def _check_adapters(model: Any, method: MethodTable, targets: str | list[str]) -> None:
    """Raise ModelError where adapters cannot be made of this model's weights as [method] says."""
    quantised = getattr(model, "is_quantized", False)
    if method.pissa_init and quantised:
        raise ModelError(
            "method.pissa_init takes the adapters out of the weights, and those of this model are quantised; leave it "
            "out"
        )
    if method.pissa_init:
        _check_pissa(model, method, targets)
    if (
        method.use_dora
        and getattr(model, "is_loaded_in_8bit", False)
        and model.device.type == "cpu"
    ):
        # peft copies the weights to read them and loses their scales.
        raise ModelError(
            "method.use_dora does not work with model.quantization_bit = 8 on the CPU; take 4 bits, or leave "
            "use_dora out"
        )


def _check_pissa(model: Any, method: MethodTable, targets: str | list[str]) -> None:
    """Raise ModelError where a weight has no singular values, or fewer than the rank."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if targets == "all-linear":
            adapted = _is_linear(module) and module is not head
        else:
            adapted = any(f".{name}".endswith(f".{t}") for t in targets)
        if adapted and not _is_linear(module):
            raise ModelError(
                f"method.pissa_init works on linear layers, and {name} (method.lora_target) is none; leave one of "
                "them out"
            )
        if adapted and min(module.weight.shape) < method.lora_rank:
            raise ModelError(
                f"method.pissa_init takes lora_rank = {method.lora_rank} singular values of each weight, and {name} "
                f"has {min(module.weight.shape)}; lower lora_rank, or leave pissa_init out"
            )


def _whole_modules(model: Any, method: MethodTable) -> list[str]:
    """The modules named in method.additional_target, each of which has to be there and to hold numbers that can train.

    Of two that are one weight (embeddings that are the head too) the embeddings are taken: peft ties the head to them.
    """
    named = names_in(method.additional_target)
    for name in named:
        found = [m for n, m in model.named_modules() if f".{n}".endswith(f".{name}")]
        weights = [p for module in found for p in module.parameters()]
        if not weights:
            raise ModelError(
                f"method.additional_target: this model has no module {name} with weights; outside of its layers it has "
                f"{', '.join(_module_names(model, _LAYER, inside=False))}"
            )
        if not all(weight.is_floating_point() for weight in weights):
            raise ModelError(
                f"method.additional_target: {name} is quantised, so that it cannot train whole; give it an adapter "
                "(method.lora_target)"
            )
    tied = _tied_names(model)
    if not tied & {n.rpartition(".")[2] for n in named}:
        return named
    words = next(n for n, m in model.named_modules() if m is model.get_input_embeddings())
    others = [n for n in named if n.rpartition(".")[2] not in tied]
    return [*others, words.rpartition(".")[2]]


def _tied_names(model: Any) -> set[str]:
    """The last parts of the names of embeddings and head where both are one weight; empty where they are two."""
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    if words is None or head is None or getattr(head, "weight", None) is not words.weight:
        return set()
    return {n.rpartition(".")[2] for n, m in model.named_modules() if m is words or m is head}


def _targets(model: Any, text: str) -> list[str]:
    """The modules named in `text`, each of which has to be there: peft passes over a name that is misspelt."""
    named = names_in(text)
    takes = {name for name, module in model.named_modules() if _can_be_adapted(module)}
    wrong = [n for n in named if not any(f".{name}".endswith(f".{n}") for name in takes)]
    if wrong or not named:
        linear = ", ".join(_linear_names(model)) or "none"
        raise ModelError(
            f"method.lora_target: this model has no layer {' or '.join(wrong) or text}; its linear layers are "
            f'{linear} ("all": all of them but the output head)'
        )
    return named


def _freeze(model: Any, method: MethodTable, heads: Sequence[str]) -> None:
    """Train the last layers (the first, for a negative number), or the modules named inside of them."""
    pattern = _LAYER
    depth = _depth(model)
    wanted = abs(method.freeze_trainable_layers)
    first = method.freeze_trainable_layers < 0
    chosen = set(range(wanted)) if first else set(range(max(0, depth - wanted), depth))
    inside = (
        None
        if method.freeze_trainable_modules == "all"
        else names_in(method.freeze_trainable_modules)
    )
    outside = names_in(method.freeze_extra_modules)
    met: set[str] = set()
    trained: set[int] = set()
    # Embeddings that are the head too go by either name.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found = pattern.search(name)
        if found:
            parts = name[found.end() :].split(".")
            hits = {n for n in inside or () if n in parts}
            train = int(found.group(1)) in chosen and (inside is None or bool(hits))
        else:
            hits = {n for n in outside if n in name.split(".")}
            train = bool(hits) or not set(heads).isdisjoint(name.split("."))
        met |= hits
        trained |= {id(parameter)} if train else set()
        parameter.requires_grad_(id(parameter) in trained)
    for key, names in (
        ("freeze_trainable_modules", inside or []),
        ("freeze_extra_modules", outside),
    ):
        missing = [n for n in names if n not in met]
        if missing:
            has = ", ".join(_module_names(model, pattern, inside=key == "freeze_trainable_modules"))
            raise ModelError(
                f"method.{key}: this model has no module {' or '.join(missing)} there; it has {has}"
            )


def _depth(model: Any) -> int:
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if not depth:
        raise ModelError(
            'this model does not say how many layers it has, so that finetuning_type = "freeze" cannot work'
        )
    return int(depth)


def _module_names(model: Any, pattern: re.Pattern[str], *, inside: bool) -> list[str]:
    names: dict[str, None] = {}
    for name, _ in model.named_parameters():
        found = pattern.search(name)
        if inside and found:
            names.update(dict.fromkeys(name[found.end() :].split(".")[:-1]))
        elif not inside and not found:
            names.update(dict.fromkeys(name.split(".")[:-1]))
    return list(names)


def _linear_names(model: Any) -> list[str]:
    names = (name.split(".")[-1] for name, m in model.named_modules() if _is_linear(m))
    return list(dict.fromkeys(names))


def _can_be_adapted(module: Any) -> bool:
    import torch

    return _is_linear(module) or isinstance(module, torch.nn.Embedding)


def _is_linear(module: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    # Conv1D is a linear layer with its weight transposed (GPT-2's).
    return isinstance(module, torch.nn.Linear | Conv1D)
