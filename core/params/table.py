"""What every table of a profile is made of: how a parameter is described, and when it applies."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from core.values import Scalar


@dataclass(frozen=True, slots=True)
class When:
    """A parameter applies only while another one, named `table.key`, has one of `values` (None: is not set)."""

    key: str
    values: tuple[Scalar | None, ...]


@dataclass(frozen=True, slots=True)
class Doc:
    """What the form and the `params` command show beside a parameter's type and bounds."""

    title: str
    works: str = ""
    when: tuple[When, ...] = ()
    llamafactory: str | None = None
    advanced: bool = False
    refused: tuple[tuple[str, str], ...] = ()
    """Values that other tools take, each with why this parameter does not."""


LORA = (When("method.finetuning_type", ("lora",)),)
FREEZE = (When("method.finetuning_type", ("freeze",)),)
QUANTIZED = (When("model.quantization_bit", (4,)),)
CHECKPOINTED = (When("train.gradient_checkpointing", (True,)),)
SEVERAL_GPUS = (When("resources.gpus_per_trial", tuple(range(2, 65))),)


class Table(BaseModel):
    """A table of a profile: unknown keys are errors, types are not guessed, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
