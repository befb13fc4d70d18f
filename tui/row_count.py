"""Looks at what a draft names: is the model there, do the first rows fit the stage, how many rows do the data sets
have. Runs in a thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.data_size import CountStoppedError, DataSizeError, FileSize, RowCounter
from core.dataset_info import DataSet, DataSetError, find_sets, size_of, split_names
from core.missing import missing_reward
from core.mixture import CONCAT
from core.problems import Problem
from core.profile_paths import find_path
from core.rows.first import READ_BY, Wanted, unfit
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
    dataset_dir: str | None = None
    streaming: bool = False
    """Whether the training data is only to be found, and not counted."""
    strategy: str = CONCAT
    """How several data sets become one, as `data.mix_strategy` has it, and their weights."""
    weights: tuple[float, ...] | None = None
    reward_model: str = ""
    """What scores the answers in PPO."""
    rows: Wanted | None = None
    """What the rows are to fit; None where the draft does not say."""


def names_of(review: Review, folder: Path) -> Names:
    """What a draft names; those of a parameter that has a problem of its own are left out."""

    def listed(key: str) -> tuple[str, ...]:
        value: Any = review.values[key]
        return tuple(split_names(value, folder)) if key not in review.problems else ()

    def given(key: str) -> Any:
        return None if key in review.problems else review.values[key]

    model = "model.model_name_or_path"
    one = model not in review.problems and model not in review.entries
    return Names(
        model=review.values[model] if one else "",
        train=listed("data.dataset"),
        evaluation=listed("data.eval_dataset"),
        folder=folder,
        dataset_dir=given("data.dataset_dir"),
        streaming=bool(given("data.streaming")),
        reward_model=_reward_model(review),
        rows=_rows(review),
        **_mixture(given("data.mix_strategy"), given("data.interleave_probs")),
    )


def _rows(review: Review) -> Wanted | None:
    """What the rows are to fit, where nothing is wrong with what says so, and no search decides it."""
    stage, format = "method.stage", "data.format"
    searched = {key.partition(".")[2] for key in review.entries}
    if stage in review.problems or format in review.problems or not READ_BY.isdisjoint(searched):
        return None
    values = review.values
    sampled = values["data.max_samples"] is not None or "data.max_samples" in review.entries
    return Wanted(str(values[stage]), str(values[format]), sampled=sampled)


def _reward_model(review: Review) -> str:
    key = "alignment.reward_model"
    wanted = review.values["method.stage"] == "ppo" and key not in review.problems
    return str(review.values[key] or "") if wanted else ""


def _mixture(strategy: str | None, weights: list[float] | None) -> dict[str, Any]:
    """What a draft says of mixing, where nothing is wrong with it; weights may be, and count for nothing then."""
    if strategy is None:
        return {}
    return {"strategy": strategy, "weights": tuple(weights) if weights else None}


def look(names: Names, counter: RowCounter, show: Show) -> DataCount:
    """Count everything that `names` names; `show` hears of the progress with large files.

    Raises:
        CountStoppedError: `show` returned False.
    """
    problems = [*_model_problem(names), *_reward_problem(names)]
    train: list[FileSize] = []
    evaluation: list[FileSize] = []
    shown = DataCount(strategy=names.strategy, weights=names.weights)
    for key, files, sizes in (
        ("data.dataset", names.train, train),
        ("data.eval_dataset", names.evaluation, evaluation),
    ):
        for name in files:

            def report(rows: int, share: float, sizes: list[FileSize] = sizes) -> bool:
                so_far = FileSize(rows, None)
                now = [(*s, so_far) if s is sizes else tuple(s) for s in (train, evaluation)]
                return show(
                    replace(shown, train=now[0], evaluation=now[1], share=share, known=True)
                )

            try:
                found = _find(name, names)
                streamed = names.streaming and sizes is train
                told = names.rows and unfit(found, replace(names.rows, streaming=streamed))
                if told:
                    problems.append(Problem(key, told))
                elif not streamed:
                    sizes.append(size_of(found, lambda p: counter.count(p, report)))
            except DataSetError as error:
                problems.append(Problem(key, f"{error.name}: {error.wrong}", error.right))
            except DataSizeError as error:
                problems.append(Problem(key, f"{name}: {error.wrong}", error.right))
    return replace(
        shown,
        train=tuple(train),
        evaluation=tuple(evaluation),
        problems=tuple(problems),
        known=bool(train),
    )


def quick_look(names: Names, counter: RowCounter) -> DataCount | None:
    """What can be known at once; None where a large file has not been counted before."""
    try:
        return look(names, counter, lambda _: False)
    except CountStoppedError:
        return None


def _find(name: str, names: Names) -> DataSet:
    return find_sets([name], names.dataset_dir, names.folder)[0]


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


def _reward_problem(names: Names) -> list[Problem]:
    """A reward model that is not there."""
    name = names.reward_model
    if not name:
        return []
    found = find_path(name, names.folder)
    return missing_reward(name, found is not None and found.is_dir())
