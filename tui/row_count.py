"""Looks at the files that a draft names: is the model there, how many rows do the data files have. Runs in a thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data_size import CountStoppedError, DataSizeError, FileSize, RowCounter
from core.problems import Problem
from core.profile import DEMO_DATA, find_path
from tui.draft import Review
from tui.plan import DataCount

Show = Callable[[DataCount], bool]
"""Called with what is known so far; False stops the count."""


@dataclass(frozen=True, slots=True)
class Names:
    """What is to be looked at."""

    model: str
    train: tuple[str, ...]
    evaluation: tuple[str, ...]
    folder: Path


def names_of(review: Review, folder: Path) -> Names:
    """The files that a draft names; those of a parameter that has a problem of its own are left out."""

    def listed(key: str) -> tuple[str, ...]:
        value: Any = review.values[key]
        if key in review.problems or not value:
            return ()
        return tuple(value) if isinstance(value, list) else (value,)

    model = "model.model_name_or_path"
    one = model not in review.problems and model not in review.entries
    return Names(
        model=review.values[model] if one else "",
        train=listed("data.dataset"),
        evaluation=listed("data.eval_dataset"),
        folder=folder,
    )


def look(names: Names, counter: RowCounter, show: Show) -> DataCount:
    """Count everything that `names` names; `show` hears of the progress with large files.

    Raises:
        CountStoppedError: `show` returned False.
    """
    problems = [*_model_problem(names)]
    train: list[FileSize] = []
    evaluation: list[FileSize] = []
    for key, files, sizes in (
        ("data.dataset", names.train, train),
        ("data.eval_dataset", names.evaluation, evaluation),
    ):
        for name in files:

            def report(rows: int, share: float, sizes: list[FileSize] = sizes) -> bool:
                so_far = FileSize(rows, None)
                now = (train, evaluation)
                shown = [(*s, so_far) if s is sizes else tuple(s) for s in now]
                return show(DataCount(shown[0], shown[1], share, known=True))

            try:
                sizes.append(_size(name, names.folder, counter, report))
            except DataSizeError as error:
                problems.append(Problem(key, f"{name}: {error.wrong}", error.right))
    return DataCount(tuple(train), tuple(evaluation), None, tuple(problems), known=bool(train))


def quick_look(names: Names, counter: RowCounter) -> DataCount | None:
    """What can be known at once; None where a large file has not been counted before."""
    try:
        return look(names, counter, lambda _: False)
    except CountStoppedError:
        return None


def _size(
    name: str, folder: Path, counter: RowCounter, report: Callable[[int, float], bool]
) -> FileSize:
    if name == "demo":
        return counter.count(DEMO_DATA, report)
    path = find_path(name, folder)
    if path is None:
        raise DataSizeError(name, "there is no such file", _looked_in(name, folder))
    return counter.count(path, report)


def _looked_in(name: str, folder: Path) -> str:
    if Path(name).expanduser().is_absolute():
        return ""
    places: Sequence[str] = list(dict.fromkeys([str(folder), str(Path.cwd())]))
    return f"looked in {' and '.join(places)}"


def _model_problem(names: Names) -> list[Problem]:
    """A model that can only be a path and does not exist. Any other name may be one on the hub."""
    name = names.model
    if not (name.startswith(("/", ".", "~")) or name.endswith(".gguf")):
        return []
    if find_path(name, names.folder) is not None:
        return []
    wrong = f"{name}: there is no such folder or file"
    return [Problem("model.model_name_or_path", wrong, _looked_in(name, names.folder))]
