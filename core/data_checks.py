"""What does not go together in the table [data], nor with the stage: told before any data is read."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import cast

from core.dataset_info import split_names
from core.params import DataTable, MethodTable, SearchTable, Table, TrainTable
from core.problems import Problem
from core.values import toml_value

_PACKED = ("pt", "sft")
_INTERLEAVED = ("interleave_under", "interleave_over")


def data_problems(tables: Mapping[str, Table]) -> Iterator[Problem]:
    """What is wrong between the parameters of [data], the stage and the length; a table that is itself wrong is left
    out."""
    data = cast(DataTable | None, tables.get("data"))
    method = cast(MethodTable | None, tables.get("method"))
    train = cast(TrainTable | None, tables.get("train"))
    search = cast(SearchTable | None, tables.get("search"))
    if data is None:
        return
    yield from _mixing_problems(data)
    if data.streaming:
        yield from _streaming_problems(data, train, search)
    if method is not None:
        yield from _stage_problems(data, method.stage)
    stage = None if method is None else method.stage
    for key, names in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        yield from unfit_files(f"data.{key}", split_names(names), stage)


def _mixing_problems(data: DataTable) -> Iterator[Problem]:
    weights, names = data.interleave_probs, split_names(data.dataset)
    if weights is None:
        return
    if data.mix_strategy not in _INTERLEAVED:
        yield Problem(
            "data.interleave_probs",
            f"weights do nothing with mix_strategy = {toml_value(data.mix_strategy)}",
            'mix_strategy = "interleave_under" or "interleave_over", or leave them out',
        )
    if len(weights) != len(names):
        yield Problem(
            "data.interleave_probs",
            f"{toml_value(weights)} has {len(weights)} weights, and dataset names {len(names)}: {', '.join(names)}",
            "one weight for each data set, in their order",
        )
    # NaN is neither above 0 nor below infinity.
    if not all(0 < weight < float("inf") for weight in weights):
        yield Problem(
            "data.interleave_probs",
            f"{toml_value(weights)} has a weight that is not above 0",
            "weights above 0, as [0.7, 0.3]; leave a data set out that is not to be drawn from",
        )


def _streaming_problems(
    data: DataTable, train: TrainTable | None, search: SearchTable | None
) -> Iterator[Problem]:
    searched = search is not None and "max_steps" in search.space
    if train is not None and train.max_steps is None and not searched:
        yield Problem(
            "data.streaming",
            "true needs train.max_steps: how many rows a stream has is not known",
            "set train.max_steps, or streaming = false",
        )
    if searched:
        yield Problem(
            "search.space.max_steps",
            "does not go with data.streaming = true: trials would see different rows of the stream",
            "set train.max_steps, or streaming = false",
        )
    if not data.eval_dataset and 0 < data.val_size < 1:
        yield Problem(
            "data.val_size",
            f"{toml_value(data.val_size)} is a share, and data.streaming = true has no number of rows to take it of",
            "a number of rows, as 500; or 0, or set eval_dataset",
        )


def _stage_problems(data: DataTable, stage: str) -> Iterator[Problem]:
    if data.format == "text" and stage != "pt":
        yield Problem(
            "data.format",
            f'"text" is for method.stage = "pt", and the stage is "{stage}"',
            'format = "auto", or method.stage = "pt"',
        )
    if data.format in ("sharegpt", "openai") and stage == "pt":
        yield Problem(
            "data.format",
            f'"{data.format}" holds conversations, and method.stage = "pt" learns plain text',
            'format = "auto" or "text", or method.stage = "sft"',
        )
    if data.packing and stage not in _PACKED:
        yield Problem(
            "data.packing",
            f'true does not go with method.stage = "{stage}", whose batches are of whole rows',
            'leave it out, or method.stage = "sft"',
        )


def unfit_files(key: str, names: Iterable[str], stage: str | None) -> Iterator[Problem]:
    """Files of which the name alone says that the stage cannot use them."""
    for name in names:
        suffix = PurePath(name).suffix.lower()
        if suffix == ".txt" and stage not in ("pt", None):
            yield Problem(
                key,
                f'{name} is plain text, and method.stage = "{stage}" needs rows with fields',
                'method.stage = "pt", or a .jsonl file',
            )
