"""What can be wrong with a profile: in a table, in the search space, and between parameters.

Every check yields `Problem`s, so that all of them can be reported at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.alignment_checks import alignment_problems
from core.catalogue import (
    MOST_VALUES,
    Parameter,
    UnknownParameterError,
    find,
    nearest,
    parameters,
    space_problem,
)
from core.data_checks import data_problems
from core.logged import EVERY_STAGE_LOGS, STAGE_LOGS
from core.method_checks import method_problems
from core.params import (
    TABLES,
    DataTable,
    MethodTable,
    ModelTable,
    Range,
    ResourcesTable,
    SearchTable,
    Table,
    TrainTable,
)
from core.problems import Problem, did_you_mean
from core.reward_checks import reward_problems
from core.values import Scalar, toml_value

_SHARDABLE = ("adamw_torch", "adamw_torch_fused")
"""Optimizers that update each number by itself, so that a part of a weight can be updated without the rest."""

_RANGE = {
    "low": "a finite number",
    "high": "a finite number",
    "scale": '"linear" or "log"',
    "step": "a number above 0",
}
"""What the keys of a range take."""


def table_problems(table: str, error: ValidationError) -> Iterator[Problem]:
    seen = set()
    errors = error.errors(include_url=False)
    for item in errors:
        name = str(item["loc"][0]) if item["loc"] else ""
        if name == "space" and len(item["loc"]) > 1:
            name = f"space.{item['loc'][1]}"
        key = f"{table}.{name}" if name else table
        if key in seen:
            continue
        seen.add(key)
        if name.startswith("space."):
            yield _entry_problem(key, [e for e in errors if e["loc"][:2] == item["loc"][:2]])
        elif item["type"] == "extra_forbidden":
            yield Problem(key, "is not known", did_you_mean(_near_key(table, name)))
        elif item["type"] == "missing":
            yield Problem(key, "is missing", find(key).help.split(". ")[0].split(": ")[-1])
        else:
            parameter = find(key)
            yield Problem(key, *parameter.refusal(item["input"]))


def _entry_problem(key: str, errors: Sequence[ErrorDetails]) -> Problem:
    """What is wrong with an entry of the space that is neither a list of values nor a range, by all errors of it."""
    # Errors come for both that it might have been; their place is (…, name, which of the two, where in it).
    inside = [e for e in errors if len(e["loc"]) > 3]
    unknown = next((e for e in inside if e["type"] == "extra_forbidden"), None)
    first = unknown or next(iter(inside), None)
    if first is None:
        right = 'write [1e-4, 3e-4] or { low = 1e-5, high = 1e-3, scale = "log" }'
        return Problem(key, "is neither a list of values nor a range", right)
    where = first["loc"][3]
    if first is unknown:
        return Problem(key, f"{where} is not known in a range", f"it has {', '.join(_RANGE)}")
    if first["type"] == "missing":
        return Problem(key, f"{where} is missing", "as { low = 1e-5, high = 1e-3 }")
    value = toml_value(first["input"])
    if where in _RANGE:
        return Problem(key, f"{where} = {value} is not allowed", _RANGE[str(where)])
    return Problem(key, f"the list holds {value}", "numbers, texts, true or false")


def _near_key(table: str, name: str) -> tuple[str, ...]:
    """Keys that `name` is probably a slip of: in its own table first, else the same name in another table."""
    own = nearest(name, TABLES[table].model_fields)
    if own:
        return tuple(f"{table}.{n}" for n in own)
    exact = tuple(p.key for p in parameters() if p.name == name)
    return exact or nearest(name)


def space_problems(search: SearchTable) -> Iterator[Problem]:
    named: dict[str, str] = {}
    for name, entry in search.space.items():
        try:
            parameter = find(name)
        except UnknownParameterError as error:
            yield Problem(f"search.space.{name}", "is not known", did_you_mean(error.nearest))
            continue
        wrong = space_problem(parameter, entry)
        first = named.setdefault(parameter.key, name)
        if first != name:
            yield Problem(
                f"search.space.{name}", f"is the same parameter as {first}", "leave one of them out"
            )
        elif wrong:
            yield Problem(f"search.space.{name}", wrong)
        elif search.strategy == "grid" and _endless(parameter, entry):
            yield Problem(
                f"search.space.{name}",
                "a grid needs a list of values, or a range with step",
                'or set strategy = "auto"',
            )


def _endless(parameter: Parameter, entry: list[Scalar] | Range) -> bool:
    if not isinstance(entry, Range) or entry.step is not None:
        return False
    return parameter.kind == "float" or entry.high - entry.low >= MOST_VALUES


def unknown_in_space(search: Any) -> Iterator[Problem]:
    """Unknown names in the space of a search table that has other problems too."""
    space = search.get("space") if isinstance(search, Mapping) else None
    for name in space if isinstance(space, Mapping) else ():
        try:
            find(name)
        except UnknownParameterError as error:
            yield Problem(f"search.space.{name}", "is not known", did_you_mean(error.nearest))


def joint_problems(tables: Mapping[str, Table]) -> Iterator[Problem]:
    """What is wrong between parameters; a table that is itself wrong is left out of the comparison."""
    model = cast(ModelTable | None, tables.get("model"))
    method = cast(MethodTable | None, tables.get("method"))
    data = cast(DataTable | None, tables.get("data"))
    train = cast(TrainTable | None, tables.get("train"))
    search = cast(SearchTable | None, tables.get("search"))
    resources = cast(ResourcesTable | None, tables.get("resources"))
    yield from method_problems(tables)
    yield from alignment_problems(tables)
    yield from reward_problems(tables)
    yield from data_problems(tables)
    if resources and resources.gpus_per_trial > 1:
        if resources.devices == "cpu":
            yield Problem(
                "resources.gpus_per_trial",
                f'{resources.gpus_per_trial} does not go with devices = "cpu"',
                "1, or other devices",
            )
        yield from _sharing_problems(resources.sharding, model, train)
    if data:
        yield from _unnamed_files(data)
    if not (data and train and search):
        return
    validated = validates(data)
    needs = "set data.val_size = 0.05, or data.eval_dataset"
    if train.early_stopping_patience and not validated:
        yield Problem("train.early_stopping_patience", "needs validation data", needs)
    if train.save_best and not validated:
        yield Problem("train.save_best", "needs validation data", needs)
    if train.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy") and not validated:
        yield Problem(
            "train.lr_scheduler_type", f"{train.lr_scheduler_type} needs validation data", needs
        )
    unlogged = list(_unlogged_metric(method.stage, search.rank_by)) if method else []
    if search.rank_by.startswith("eval_") and not validated and not unlogged:
        yield Problem("search.rank_by", f"{search.rank_by} needs validation data", needs)
    yield from unlogged
    if data.val_size > 1 and not float(data.val_size).is_integer():
        yield Problem(
            "data.val_size",
            f"{toml_value(data.val_size)} is neither a share nor a number of rows",
            "below 1, or a whole number",
        )


def validates(data: DataTable) -> bool:
    """Whether a data table sets validation data aside or names some."""
    return bool(data.eval_dataset) or data.val_size > 0


def _unlogged_metric(stage: str, name: str) -> Iterator[Problem]:
    """A metric to rank by that no trial of `stage` logs."""
    known = ("auto", *EVERY_STAGE_LOGS, *STAGE_LOGS.get(stage, ()))
    if name not in known:
        close = did_you_mean(nearest(name, known, most=1))
        yield Problem(
            "search.rank_by",
            f"no trial of stage {stage} logs {name}",
            f"{close} " * bool(close) + f"there are {', '.join(known[1:])}",
        )


def _sharing_problems(
    sharding: str, model: ModelTable | None, train: TrainTable | None
) -> Iterator[Problem]:
    """Settings that do not work with several GPUs for one trial, or with what each of them is to hold."""
    if model and model.quantization_bit and sharding == "fsdp":
        yield Problem(
            "model.quantization_bit",
            'bitsandbytes\' packed weights cannot be sharded (resources.sharding = "fsdp")',
            'sharding = "ddp" or "zero1", or leave quantization_bit out',
        )
    if not train:
        return
    if train.offload_optimizer:
        yield Problem(
            "train.offload_optimizer",
            "does not go with several GPUs: the host would hold the optimizer's numbers once for each",
            'leave it out; resources.sharding = "zero1" shares them among the GPUs',
        )
    if sharding == "ddp":
        return
    if train.optim not in _SHARDABLE:
        yield Problem(
            "train.optim",
            f'{toml_value(train.optim)} does not go with resources.sharding = "{sharding}"',
            f'optim = {" or ".join(toml_value(name) for name in _SHARDABLE)}, or sharding = "ddp"',
        )
    if train.precision == "fp16":
        yield Problem(
            "train.precision",
            f'fp16 does not go with resources.sharding = "{sharding}": its loss scaling looks at whole gradients',
            '"bf16" or "fp32", or sharding = "ddp"',
        )
    if sharding == "fsdp" and train.early_stopping_patience is not None:
        yield Problem(
            "train.early_stopping_patience",
            'does not go with resources.sharding = "fsdp": the best weights cannot be taken back into shards',
            'leave it out, or sharding = "ddp" or "zero1"',
        )
    if sharding == "fsdp" and train.offload_activations:
        yield Problem(
            "train.offload_activations",
            'does not go with resources.sharding = "fsdp": gathered weights would be taken for activations',
            'leave it out and set train.gradient_checkpointing = true, or sharding = "ddp" or "zero1"',
        )


def _unnamed_files(data: DataTable) -> Iterator[Problem]:
    for key, value in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        names = [value] if isinstance(value, str) else value or []
        if not all(n.replace(",", "").strip() for n in names) or (key == "dataset" and not names):
            yield Problem(f"data.{key}", "names no file", 'as "data.jsonl", or "demo"')
