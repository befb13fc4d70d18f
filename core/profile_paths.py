"""Paths in a profile: relative ones start from the folder of its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from core.dataset_info import DataSetError, find_info, is_named, split_names
from core.params import AlignmentTable, DataTable, ModelTable, SearchTable, Table


def find_path(name: str, folder: Path) -> Path | None:
    """The existing file or folder that `name` means: from `folder`, else from the current one; or None."""
    given = Path(name).expanduser()
    candidates = [given] if given.is_absolute() else [folder / given, Path.cwd() / given]
    return next((c.resolve() for c in candidates if c.exists()), None)


def with_absolute_paths(tables: Mapping[str, Table], folder: Path) -> dict[str, Table]:
    """A profile's tables with absolute paths where what they name exists; `folder` is where relative ones start."""
    model = cast(ModelTable, tables["model"])
    adapter = model.adapter_name_or_path
    of_model = {
        "model_name_or_path": _absolute(model.model_name_or_path, folder),
        "adapter_name_or_path": adapter and _absolute(adapter, folder),
    }
    alignment = cast(AlignmentTable, tables["alignment"])
    beside = {
        key: name and _absolute(name, folder)
        for key, name in (
            ("ref_model", alignment.ref_model),
            ("reward_model", alignment.reward_model),
        )
    }
    search = cast(SearchTable, tables["search"])
    space = dict(search.space)
    models = space.get("model_name_or_path")
    if isinstance(models, list):
        space["model_name_or_path"] = [_absolute(str(m), folder) for m in models]
    return {
        **tables,
        "model": model.model_copy(update=of_model),
        "alignment": alignment.model_copy(update=beside),
        "search": search.model_copy(update={"space": space}),
        "data": _with_absolute_data(cast(DataTable, tables["data"]), folder),
    }


def _absolute(name: str, folder: Path) -> str:
    """A model's name: a path where there is one of it."""
    found = None if name == "demo" else find_path(name, folder)
    return str(found) if found else name


def _with_absolute_data(data: DataTable, folder: Path) -> DataTable:
    """The data table with absolute paths. Names in dataset_info.json stay, and its folder is kept for them."""
    try:
        info = find_info(data.dataset_dir, folder)
    except DataSetError:
        info = None  # Whoever reads the data says what is wrong with it.

    def absolute(name: str) -> str:
        found = None if is_named(name, info) else find_path(name, folder)
        return str(found) if found else name

    def each(names: list[str] | str | None) -> list[str] | str | None:
        if names is None:
            return None
        listed = [absolute(name) for name in split_names(names, folder)]
        return listed[0] if isinstance(names, str) and len(listed) == 1 else listed

    train, evaluation = each(data.dataset), each(data.eval_dataset)
    listed = [*split_names(train), *split_names(evaluation)]
    used = info is not None and any(name in info.entries for name in listed)
    place = data.dataset_dir and str(find_path(data.dataset_dir, folder) or data.dataset_dir)
    return data.model_copy(
        update={
            "dataset": train,
            "eval_dataset": evaluation,
            "dataset_dir": str(info.folder) if info is not None and used else place,
        }
    )
