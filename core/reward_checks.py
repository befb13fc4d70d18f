"""What does not go together where a model learns to score answers (stage rm) or from their scores (stage ppo)."""

from collections.abc import Iterator, Mapping
from typing import cast

from core.params import (
    AlignmentTable,
    DataTable,
    MethodTable,
    ModelTable,
    ResourcesTable,
    SearchTable,
    Table,
    TrainTable,
)
from core.problems import Problem
from core.values import toml_value


def reward_problems(tables: Mapping[str, Table]) -> Iterator[Problem]:
    """What is wrong between the tables in stages rm and ppo; one that is itself wrong is left out."""
    method = cast(MethodTable | None, tables.get("method"))
    if method is None or method.stage not in ("rm", "ppo"):
        return
    yield from _common(
        method.stage,
        cast(TrainTable | None, tables.get("train")),
        cast(DataTable | None, tables.get("data")),
    )
    model = cast(ModelTable | None, tables.get("model"))
    if method.stage == "rm":
        yield from _scored(method, model)
        return
    resources = cast(ResourcesTable | None, tables.get("resources"))
    if resources and resources.gpus_per_trial > 1:
        yield Problem(
            "resources.gpus_per_trial",
            f'{resources.gpus_per_trial} does not go with stage = "ppo", which trains on one GPU: its answers are '
            "drawn by a policy that is whole in one process",
            "1; resources.parallel runs several trials at once, one on each GPU",
        )
    yield from _drawn(method, cast(TrainTable | None, tables.get("train")))
    yield from _budget(cast(SearchTable | None, tables.get("search")))
    alignment = cast(AlignmentTable | None, tables.get("alignment"))
    if alignment:
        yield from _models(alignment, model)
        yield from _compared(alignment, cast(TrainTable | None, tables.get("train")))


def _common(stage: str, train: TrainTable | None, data: DataTable | None) -> Iterator[Problem]:
    if train and train.loss_chunk_tokens is not None:
        why = (
            "whose model has one score and no vocabulary"
            if stage == "rm"
            else "which reads the scores of answers alone as it is"
        )
        yield Problem(
            "train.loss_chunk_tokens",
            f'{train.loss_chunk_tokens} does nothing with stage = "{stage}", {why}',
            "leave it out",
        )
    if data and data.train_on_prompt:
        yield Problem(
            "data.train_on_prompt",
            f'true does not go with stage = "{stage}", which learns from answers alone',
            'leave it out, or stage = "sft"',
        )


def _scored(method: MethodTable, model: ModelTable | None) -> Iterator[Problem]:
    if method.finetuning_type == "lora" and model and model.adapter_name_or_path is not None:
        yield Problem(
            "model.adapter_name_or_path",
            'does not go with stage = "rm" and finetuning_type = "lora": the reward model would be an adapter of '
            "model_name_or_path with that adapter merged, which nobody who loads it has",
            "make one model of both with `tunedeck export` and name that",
        )
    targets = {name.strip() for name in method.lora_target.split(",")}
    targets |= {name.strip() for name in (method.additional_target or "").split(",")}
    if method.finetuning_type == "lora" and "lm_head" in targets:
        key = "lora_target" if "lm_head" in method.lora_target else "additional_target"
        yield Problem(
            f"method.{key}",
            'lm_head does not go with stage = "rm": a reward model has a score in its place, which trains as a whole',
            "leave lm_head out",
        )


def _drawn(method: MethodTable, train: TrainTable | None) -> Iterator[Problem]:
    """Noise in training, beside answers that are drawn without."""
    if method.finetuning_type == "lora" and method.lora_dropout:
        yield Problem(
            "method.lora_dropout",
            f'{toml_value(method.lora_dropout)} does not go with stage = "ppo": answers are drawn without it, and '
            "what learns from them would be another policy",
            "0",
        )
    if train and train.neftune_noise_alpha is not None:
        yield Problem(
            "train.neftune_noise_alpha",
            f'{toml_value(train.neftune_noise_alpha)} does not go with stage = "ppo": answers are drawn without '
            "noise, and what learns from them would be another policy",
            'leave it out, or stage = "sft"',
        )


def _budget(search: SearchTable | None) -> Iterator[Problem]:
    if search and search.budget_tokens is not None:
        yield Problem(
            "search.budget_tokens",
            f"{search.budget_tokens} cannot be kept to: how long the answers of ppo become is not known before",
            "search.budget, a share of the full training",
        )


def _compared(alignment: AlignmentTable, train: TrainTable | None) -> Iterator[Problem]:
    """A round of one answer, whose advantages are brought to mean 0 by themselves."""
    if train is None:
        return
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    if batch * alignment.ppo_buffer_size == 1:
        yield Problem(
            "train.per_device_train_batch_size",
            "1 with gradient_accumulation_steps = 1 and ppo_buffer_size = 1 draws one answer at a time: ppo learns "
            "from how the answers of a round differ, and there is no other one",
            "a higher gradient_accumulation_steps or ppo_buffer_size; 8 answers or more",
        )


def _models(alignment: AlignmentTable, model: ModelTable | None) -> Iterator[Problem]:
    if alignment.reward_model is None or not alignment.reward_model.strip():
        yield Problem(
            "alignment.reward_model",
            "is missing: stage ppo needs a model that scores the answers",
            'train one with method.stage = "rm" and name its output folder (in a recipe, "step:NAME")',
        )
    elif model and alignment.reward_model == model.model_name_or_path:
        yield Problem(
            "alignment.reward_model",
            f"{toml_value(alignment.reward_model)} is the model that trains: it cannot score its own answers",
            'the output folder of a training with method.stage = "rm"',
        )
    if (
        alignment.ref_model is not None
        and model
        and alignment.ref_model == model.model_name_or_path
        and model.adapter_name_or_path is None
    ):
        yield Problem(
            "alignment.ref_model",
            f"{toml_value(alignment.ref_model)} is the model that trains, which is the reference anyway",
            "leave it out: with LoRA that saves the memory of a second copy",
        )
