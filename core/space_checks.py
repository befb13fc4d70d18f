"""What can be wrong with the combinations of a search space: parameters without effect, values that exclude each other.

A combination is a mapping of searched names to values. What it leaves alone is as the profile says.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice, product
from typing import Any, cast

from core.catalogue import find, parameters
from core.checks import joint_problems, validates
from core.params import DataTable, Range, SearchTable, Table, TrainTable
from core.problems import Problem
from core.values import Scalar, number, toml_value

BATCH = "per_device_train_batch_size"
ACCUMULATION = "gradient_accumulation_steps"

ENTANGLED = frozenset(
    {
        "quantization_bit", "finetuning_type", "freeze_trainable_layers", "val_size", "optim", "offload_optimizer",
        "precision", "adapter_precision", "early_stopping_patience", "lr_scheduler_type", BATCH, ACCUMULATION,
        "pissa_init", "use_dora", "loraplus_lr_ratio", "lora_target", "additional_target", "optim_args", "save_best",
        "stage", "pref_loss", "pref_ftx", "adapter_name_or_path", "format", "packing", "streaming", "train_on_prompt",
    }
)  # fmt: skip
"""The searchable parameters that `joint_problems` and a held batch compare. Only their combinations can be wrong."""

OVERRIDDEN = {
    "train.num_train_epochs": "train.max_steps",
    "train.warmup_ratio": "train.warmup_steps",
}
"""A parameter that has no effect while the other one is set."""

MOST_TRIED = 5000
"""So many combinations are looked at for one that can run; of a space with more nothing is told beforehand."""
MOST_TOLD = 3
"""So many reasons are told of why no combination can run."""
MOST_LISTED = 4096
"""A range of whole numbers with no more values, as any of batches, is looked at value by value, a wider one at its
ends."""


def deciding_values(tables: Mapping[str, Table]) -> dict[str, Any]:
    """The values of `tables`, by full key, that decide which other parameters have an effect."""
    return {
        key: getattr(tables[table], name)
        for key in all_controllers()
        for table, _, name in [key.partition(".")]
        if table in tables
    }


def active_part(base: Mapping[str, Any], point: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What of a combination has an effect: a rank has none in full fine-tuning. `base`: `deciding_values`."""
    values = {**base, **{find(name).key: value for name, value in point.items()}}
    return {name: value for name, value in point.items() if _has_effect(name, values)}


def _has_effect(name: str, values: Mapping[str, Any]) -> bool:
    parameter = find(name)
    over = OVERRIDDEN.get(parameter.key)
    return parameter.applies(values) and (over is None or values.get(over) is None)


@cache
def controllers(key: str) -> frozenset[str]:
    """The parameters, by full key, that decide whether the parameter `key` has an effect."""
    direct = {when.key for when in find(key).doc.when}
    direct |= {OVERRIDDEN[key]} if key in OVERRIDDEN else set()
    return frozenset(direct).union(*map(controllers, direct))


@cache
def all_controllers() -> frozenset[str]:
    """The parameters that decide whether some other one has an effect."""
    return frozenset().union(*(controllers(parameter.key) for parameter in parameters()))


def combination_problems(
    tables: Mapping[str, Table], point: Mapping[str, Scalar]
) -> Iterator[Problem]:
    """What does not go together in a trial that runs `tables` with `point`, the active part of a combination."""
    changed: dict[str, dict[str, Scalar]] = {}
    for name, value in point.items():
        changed.setdefault(find(name).table, {})[name] = value
    whole = {
        name: table.model_copy(update=changed[name]) if name in changed else table
        for name, table in tables.items()
    }
    yield from joint_problems({**whole, **_ranked_alike(tables)})
    search, train = tables.get("search"), tables.get("train")
    if isinstance(search, SearchTable) and isinstance(train, TrainTable):
        yield from _batch_problems(search, train, point)


def _ranked_alike(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The search with what `auto` ranks by by the profile's own data: trials are all judged by the same."""
    search, data = tables.get("search"), tables.get("data")
    if not (isinstance(search, SearchTable) and isinstance(data, DataTable)):
        return {}
    auto = search.rank_by == "auto" and validates(data)
    return {"search": search.model_copy(update={"rank_by": "eval_loss"})} if auto else {}


def _batch_problems(
    search: SearchTable, train: TrainTable, point: Mapping[str, Scalar]
) -> Iterator[Problem]:
    """What stands against holding the effective batch: it must be the product of two whole numbers."""
    if not search.hold_effective_batch or not {BATCH, ACCUMULATION} & set(point):
        return
    held = train.per_device_train_batch_size * train.gradient_accumulation_steps
    batch, accumulation = point.get(BATCH), point.get(ACCUMULATION)
    key, right = "search.hold_effective_batch", f"values that divide {held}, or leave it out"
    if isinstance(batch, int) and isinstance(accumulation, int):
        if batch * accumulation != held:
            yield Problem(
                key,
                f"{batch} × {accumulation} is not the profile's effective batch of {held}",
                right,
            )
        return
    name, value = (BATCH, batch) if accumulation is None else (ACCUMULATION, accumulation)
    other = ACCUMULATION if accumulation is None else BATCH
    most = find(other).high or math.inf
    if isinstance(value, int) and held % value:
        yield Problem(key, f"{name} = {value} does not divide the effective batch of {held}", right)
    elif isinstance(value, int) and held // value > most:
        wrong = f"{name} = {value} would need {other} = {held // value} for the effective batch of {held}"
        yield Problem(key, wrong, f"at most {number(most)}")


def contradictions(tables: Mapping[str, Table]) -> Iterator[Problem]:
    """What is wrong with a space of which no combination can run, or no parameter has an effect.

    `tables` are right in themselves, and so is the space parameter by parameter, its names spelled without a table.
    """
    space = cast(SearchTable, tables["search"]).space
    if not space:
        return
    idle = without_effect(tables)
    if len(idle) == len(space):
        yield Problem("search.space", "; ".join(idle), "search something else as well")
        return
    spread = [_standing_for(name, entry) for name, entry in space.items()]
    told: dict[str, Problem] = {}
    base = deciding_values(tables)
    for values in islice(product(*spread), MOST_TRIED):
        point = active_part(base, dict(zip(space, values, strict=True)))
        problems = list(combination_problems(tables, point))
        if not problems:
            return
        for problem in problems:
            told.setdefault(problem.wrong, problem)
    if math.prod(map(len, spread)) <= MOST_TRIED:
        wrong = "; ".join(str(problem) for problem in islice(told.values(), MOST_TOLD))
        yield Problem("search.space", f"no combination can run: {wrong}")


def without_effect(tables: Mapping[str, Table]) -> list[str]:
    """The searched parameters that have no effect in any combination, each with the reason in a sentence."""
    space = cast(SearchTable, tables["search"]).space
    base = deciding_values(tables)
    return [_idle(name, space, base) for name in space if not _ever_active(name, space, base)]


def _ever_active(
    name: str, space: Mapping[str, list[Scalar] | Range], base: Mapping[str, Any]
) -> bool:
    deciding = [n for n in space if find(n).key in controllers(find(name).key)]
    choices = product(*(_standing_for(n, space[n]) for n in deciding))
    anything = _standing_for(name, space[name])[0]
    return any(
        name in active_part(base, {name: anything, **dict(zip(deciding, values, strict=True))})
        for values in choices
    )


def _standing_for(name: str, entry: list[Scalar] | Range) -> list[Scalar]:
    """Values of one parameter that stand for all of them when combinations are checked."""
    parameter = find(name)
    if not isinstance(entry, Range):
        listed = list(entry)
    elif parameter.kind != "int":
        listed = [entry.low, entry.high]
    elif entry.high - entry.low < MOST_LISTED:
        step = max(1, round(entry.step or 1))
        listed = list(range(int(entry.low), int(entry.high) + 1, step))
    else:
        listed = [int(entry.low), int(entry.high)]
    counts = parameter.name in ENTANGLED or parameter.key in all_controllers()
    return listed if counts else listed[:1]


def _idle(name: str, space: Mapping[str, list[Scalar] | Range], base: Mapping[str, Any]) -> str:
    parameter = find(name)
    for when in parameter.doc.when:
        other = find(when.key)
        entry = space.get(other.name)
        values = [base.get(other.key)] if entry is None else _standing_for(other.name, entry)
        if not set(values) & set(when.values):
            tried = " or ".join(map(toml_value, values))
            return f"{name} has no effect with {other.name} = {tried}"
    if parameter.key in OVERRIDDEN:
        return f"{name} has no effect while {find(OVERRIDDEN[parameter.key]).name} is set"
    return f"{name} has no effect"
