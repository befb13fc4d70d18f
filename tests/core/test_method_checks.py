"""Every pair of settings that does not work together is refused, with the reason, both values and what to do."""

from typing import Any

import pytest

from core.method_checks import method_problems
from core.optimizer_settings import PACKAGES, PROJECTED, SETTINGS, OptimArgsError, optim_args
from core.profile import ProfileError, from_document

LORA: dict[str, Any] = {"method.finetuning_type": "lora"}
FULL: dict[str, Any] = {"method.finetuning_type": "full"}


def made(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": "demo"},
        "data": {"dataset": "demo"},
        "train": {},
    }
    for key, value in settings.items():
        table, _, name = key.partition(".")
        document.setdefault(table, {})[name] = value
    return document


def problems(settings: dict[str, Any]) -> list[str]:
    try:
        from_document(made(settings), source="test")
    except ProfileError as error:
        return [str(problem) for problem in error.problems]
    return []


REFUSED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        {"train.precision": "fp16", "resources.devices": "cpu"},
        ("train.precision", "fp16", 'devices = "cpu"', '"bf16"'),
    ),
    (
        {"train.optim": "paged_adamw_8bit", "resources.devices": "cpu"},
        ("train.optim", '"paged_adamw_8bit"', 'devices = "cpu"', '"adamw_8bit"'),
    ),
    (FULL | {"model.quantization_bit": 4}, ("model.quantization_bit", '"full"', '"lora"')),
    (
        {"method.finetuning_type": "freeze", "model.quantization_bit": 8},
        ("model.quantization_bit", '"freeze"', '"lora"'),
    ),
    (
        {"method.finetuning_type": "freeze", "method.freeze_trainable_layers": 0},
        ("method.freeze_trainable_layers", "0 would train nothing", "1 or more"),
    ),
    (
        {"method.pissa_init": True, "model.quantization_bit": 4},
        ("method.pissa_init", "quantization_bit = 4", "leave pissa_init out"),
    ),
    (
        {"method.pissa_init": True, "model.quantization_bit": 8},
        ("method.pissa_init", "quantization_bit = 8", "leave pissa_init out"),
    ),
    (
        {"method.use_dora": True, "model.quantization_bit": 8, "resources.devices": "cpu"},
        ("method.use_dora", "quantization_bit = 8", "quantization_bit = 4"),
    ),
    (
        {"model.adapter_name_or_path": "a", "model.quantization_bit": 4},
        ("model.adapter_name_or_path", "quantization_bit = 4", "`tunedeck export`"),
    ),
    (
        {"method.lora_target": "q_proj,v_proj", "method.additional_target": "v_proj"},
        ("method.additional_target", "v_proj", "lora_target", "in one of them"),
    ),
    (
        {
            "method.loraplus_lr_ratio": 8.0, "train.lr_scheduler_type": "greedy", "data.val_size": 0.1,
        },
        ("method.loraplus_lr_ratio", '"greedy"', '"cosine"'),
    ),
    (
        {"method.pissa_init": True, "resources.gpus_per_trial": 2, "resources.sharding": "fsdp"},
        ("method.pissa_init", '"fsdp"', '"ddp"'),
    ),
    (
        {
            "method.additional_target": "lm_head", "resources.gpus_per_trial": 2,
            "resources.sharding": "fsdp",
        },
        ("method.additional_target", '"fsdp"', '"ddp"'),
    ),
    (
        {"method.pissa_init": True, "method.stage": "dpo"},
        ("method.pissa_init", '"dpo"', "leave pissa_init out"),
    ),
    (
        {"method.pissa_init": True, "method.stage": "kto"},
        ("method.pissa_init", '"kto"', "leave pissa_init out"),
    ),
    *(
        (
            {"method.finetuning_type": kind, "train.optim": optim},
            ("train.optim", f'"{optim}"', f'"{kind}"', '"full"'),
        )
        for kind in ("lora", "freeze")
        for optim in sorted(PROJECTED)
    ),
    *(
        (
            FULL | {"train.optim": optim, "train.offload_optimizer": True},
            ("train.offload_optimizer", f'"{optim}"', "adamw_torch"),
        )
        for optim in ("sgd", "lion_8bit", "adamw_8bit", "paged_adamw_32bit", "galore_adamw")
    ),
    (
        {"train.precision": "fp16", "method.adapter_precision": "bf16"},
        ("method.adapter_precision", "bf16", '"fp16"', '"auto"'),
    ),
    ({"train.save_best": 2, "data.val_size": 0.0}, ("train.save_best", "validation data", "val_size")),
    (
        {"train.optim": "adamw_torch", "train.optim_args": "momentum=0.9"},
        ("train.optim_args", '"adamw_torch"', "takes none", "leave it out"),
    ),
    (
        {"train.optim": "sgd", "train.optim_args": "momentun=0.9"},
        ("train.optim_args", "momentun", "momentum, dampening, nesterov"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "told"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_does_not_go_together_is_refused_with_the_values_and_the_fix(
    settings: dict[str, Any], told: tuple[str, ...]
) -> None:
    found = problems(settings)
    hits = [text for text in found if text.startswith(f"{told[0]}:")]
    assert hits and all(part in hits[0] for part in told), found


@pytest.mark.parametrize(
    "settings",
    [
        LORA | {"model.quantization_bit": 4, "method.use_dora": True, "method.loraplus_lr_ratio": 16.0},
        LORA | {"method.pissa_init": True, "method.use_rslora": True, "train.optim": "sgd"},
        LORA | {"method.pissa_init": True, "method.use_dora": True},
        LORA | {"method.pissa_init": True, "method.stage": "dpo", "alignment.pref_loss": "orpo"},
        LORA | {"model.adapter_name_or_path": "a", "method.additional_target": "embed_tokens"},
        FULL | {"model.adapter_name_or_path": "a", "train.optim": "galore_adamw"},
        FULL | {"train.optim": "sgd", "train.optim_args": "momentum=0.9, nesterov=true"},
        FULL | {"train.precision": "pure_bf16", "train.optim": "lion_8bit"},
        # What has no effect is no contradiction: a space may well hold both methods.
        FULL | {"method.pissa_init": True, "method.loraplus_lr_ratio": 4.0},
    ],
    ids=lambda v: str(v)[:60],
)  # fmt: skip
def test_what_goes_together_is_left_alone(settings: dict[str, Any]) -> None:
    assert problems(settings) == []


def test_tables_that_are_wrong_themselves_are_left_out() -> None:
    assert list(method_problems({})) == []


@pytest.mark.parametrize(
    ("optim", "text", "expected"),
    [
        ("sgd", None, {}),
        ("sgd", " momentum = 0.9 , nesterov=True,", {"momentum": 0.9, "nesterov": True}),
        ("galore_adamw", "rank=64, scale=0.25, proj_type=right", {"rank": 64, "scale": 0.25, "proj_type": "right"}),
        ("galore_adafactor", "rank=8, proj_type=full", {"rank": 8, "proj_type": "full"}),
        ("apollo_adamw", "rank=1,scale=128,scale_type=tensor", {"rank": 1, "scale": 128.0, "scale_type": "tensor"}),
        ("apollo_adamw", "scale_type=tensor,proj_type=left", {"scale_type": "tensor", "proj_type": "left"}),
    ],
)  # fmt: skip
def test_further_settings_of_an_optimizer_are_read(
    optim: str, text: str | None, expected: dict[str, Any]
) -> None:
    assert optim_args(optim, text) == expected


@pytest.mark.parametrize(
    ("optim", "text", "wrong", "right"),
    [
        ("sgd", "momentum", '"momentum" is no setting', "name=value"),
        ("sgd", "=3", '"=3" is no setting', "name=value"),
        ("sgd", "momentum=", "momentum = nothing", "a number from 0 to 1"),
        ("sgd", "momentum=high", "momentum = high", "a number from 0 to 1"),
        ("sgd", "momentum=nan", "momentum = nan", "a number from 0 to 1"),
        ("sgd", "momentum=2", "momentum = 2", "a number from 0 to 1"),
        ("sgd", "nesterov=maybe", "nesterov = maybe", "true or false"),
        ("sgd", "nesterov=true", "nesterov needs a momentum", "momentum=0.9"),
        ("sgd", "momentum=0.9,momentum=0.8", "momentum is given twice", "leave one"),
        ("galore_adamw", "rank=1.5", "rank = 1.5", "a whole number from 1"),
        ("galore_adamw", "proj_type=up", "proj_type = up", "std, reverse_std"),
        ("apollo_adamw", "proj=svd, proj_type=full", "proj_type = full", "std, reverse_std"),
        ("apollo_adamw", "proj_type=left", "left needs scale_type = tensor", "proj_type = std"),
        ("lion_8bit", "beta=1", "takes none", "leave it out"),
    ],
)
def test_further_settings_that_are_wrong_say_what_would_be_right(
    optim: str, text: str, wrong: str, right: str
) -> None:
    with pytest.raises(OptimArgsError) as caught:
        optim_args(optim, text)
    assert wrong in str(caught.value) and right in caught.value.right


def test_every_optimizer_that_is_told_of_can_be_asked_for() -> None:
    from core.catalogue import find

    known = set(find("train.optim").choices)
    assert known >= {*PROJECTED, *SETTINGS, *PACKAGES} and set(PACKAGES) == PROJECTED
