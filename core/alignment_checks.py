"""What does not go together where a model learns from preferences (stages dpo and kto)."""

from collections.abc import Iterator, Mapping
from typing import cast

from core.params import (
    AlignmentTable,
    DataTable,
    MethodTable,
    ModelTable,
    ResourcesTable,
    Table,
    TrainTable,
)
from core.problems import Problem
from core.values import toml_value

_WITHOUT_REFERENCE = ("orpo", "simpo")
"""Values of alignment.pref_loss that compare with no reference."""


def alignment_problems(tables: Mapping[str, Table]) -> Iterator[Problem]:
    """What is wrong between [alignment] and the other tables; one that is itself wrong is left out."""
    method = cast(MethodTable | None, tables.get("method"))
    if method is None or method.stage not in ("dpo", "kto"):
        return
    alignment = cast(AlignmentTable | None, tables.get("alignment"))
    train = cast(TrainTable | None, tables.get("train"))
    if alignment and method.stage == "dpo":
        yield from _loss(alignment)
    resources = cast(ResourcesTable | None, tables.get("resources"))
    if train:
        yield from _training(method.stage, train, resources.gpus_per_trial if resources else 1)
    yield from _beside(method, cast(ModelTable | None, tables.get("model")), alignment)
    data = cast(DataTable | None, tables.get("data"))
    if data and data.train_on_prompt:
        yield Problem(
            "data.train_on_prompt",
            f'true does not go with stage = "{method.stage}", which judges answers: prompts are no part of them',
            'leave it out, or stage = "sft"',
        )


def _loss(alignment: AlignmentTable) -> Iterator[Problem]:
    loss = alignment.pref_loss
    if loss in _WITHOUT_REFERENCE and alignment.ref_model is not None:
        yield Problem(
            "alignment.ref_model",
            f'{toml_value(alignment.ref_model)} is of no use to pref_loss = "{loss}", which compares with no reference',
            'leave it out, or pref_loss = "sigmoid"',
        )
    if loss != "sigmoid" and alignment.dpo_label_smoothing:
        yield Problem(
            "alignment.dpo_label_smoothing",
            f'{toml_value(alignment.dpo_label_smoothing)} does nothing with pref_loss = "{loss}"',
            'leave it out, or pref_loss = "sigmoid"',
        )
    if loss == "orpo" and alignment.pref_ftx:
        yield Problem(
            "alignment.pref_ftx",
            f"{toml_value(alignment.pref_ftx)} would add the supervised loss a second time: orpo has it already",
            "leave it out, or another pref_loss (with orpo, pref_beta weighs the odds ratio beside that loss)",
        )


def _training(stage: str, train: TrainTable, gpus: int) -> Iterator[Problem]:
    batch, steps = train.per_device_train_batch_size, train.gradient_accumulation_steps
    if stage == "kto" and batch * steps * gpus < 2:
        yield Problem(
            "train.per_device_train_batch_size",
            "1 with gradient_accumulation_steps = 1 is too few rows for kto, which estimates a KL divergence from the "
            "other answers of an update",
            "2 or more of either; 16 or more together estimate it well",
        )
    if train.neftune_noise_alpha is not None:
        yield Problem(
            "train.neftune_noise_alpha",
            f'{toml_value(train.neftune_noise_alpha)} does not go with stage = "{stage}": the policy would be compared '
            "with a reference that has no noise",
            'leave it out, or stage = "sft"',
        )
    if train.loss_chunk_tokens is not None:
        yield Problem(
            "train.loss_chunk_tokens",
            f'{train.loss_chunk_tokens} does nothing with stage = "{stage}", whose log probabilities are computed in '
            "parts as it is",
            "leave it out",
        )


def _beside(
    method: MethodTable, model: ModelTable | None, alignment: AlignmentTable | None
) -> Iterator[Problem]:
    """Adapters on what log probabilities are computed from, and a reference that is no other model."""
    targets = [name.strip() for name in method.lora_target.split(",")]
    if method.finetuning_type == "lora" and "lm_head" in targets:
        yield Problem(
            "method.lora_target",
            f'lm_head does not go with stage = "{method.stage}", whose log probabilities are computed from the weights '
            "of the head: an adapter on it would never learn",
            'leave lm_head out, or train it whole: additional_target = "lm_head"',
        )
    if (
        alignment
        and model
        and alignment.ref_model == model.model_name_or_path
        and model.adapter_name_or_path is None
        and (method.stage == "kto" or alignment.pref_loss not in _WITHOUT_REFERENCE)
    ):
        yield Problem(
            "alignment.ref_model",
            f"{toml_value(alignment.ref_model)} is the model that trains, which is the reference anyway",
            "leave it out: with LoRA that saves the memory of a second copy",
        )
