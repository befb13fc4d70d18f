"""Which files that a profile names are not there or of no use, as far as can be seen without loading them."""

from pathlib import Path

from core.data_checks import streamed_whole
from core.dataset_info import DataSetError, find_sets
from core.problems import Problem
from core.profile import Profile, dataset_files, eval_files, model_path


def missing_files(profile: Profile) -> list[Problem]:
    """A problem for each data file, and for a model that can only be a path, that does not exist."""
    problems: list[Problem] = []
    for key, listed in (
        ("data.dataset", dataset_files(profile)),
        ("data.eval_dataset", eval_files(profile)),
    ):
        problems += _missing_data(key, listed, profile.data.dataset_dir)
    problems += _streamed_whole(profile) if profile.data.streaming else []
    problems += _missing_model("model.model_name_or_path", model_path(profile))
    if (profile.alignment.reward_model or "").startswith("step:"):
        right = "the folder of a reward model, its `output`"
        problems.append(
            Problem(
                "alignment.reward_model", "step: names a step of a recipe, which this is not", right
            )
        )
    adapter = profile.model.adapter_name_or_path
    if adapter is not None and not Path(adapter).expanduser().is_dir():
        problems.append(
            Problem(
                "model.adapter_name_or_path",
                f"{adapter} does not exist",
                "the folder of an adapter",
            )
        )
    searched = profile.search.space.get("model_name_or_path")
    for model in searched if isinstance(searched, list) else ():
        problems += _missing_model("search.space.model_name_or_path", str(model))
    return problems


def _missing_data(key: str, names: list[str], dataset_dir: str | None) -> list[Problem]:
    problems = []
    for name in names:
        try:
            found = [file for dataset in find_sets([name], dataset_dir) for file in dataset.files]
        except DataSetError as error:
            path = name.startswith(("/", "~"))
            told = Problem(key, f"{name} does not exist", error.right or "a data file")
            named = Problem(key, f"{error.name}: {error.wrong}", error.right)
            problems.append(told if path and error.name == name else named)
            continue
        problems += [
            Problem(key, f"{file} does not exist", "a data file")
            for file in found
            if not file.exists()
        ]
    return problems


def _streamed_whole(profile: Profile) -> list[Problem]:
    """A file that is to be streamed and can only be read whole, which the name of its data set does not show."""
    try:
        sets = find_sets(dataset_files(profile), profile.data.dataset_dir)
    except DataSetError:
        return []  # Told already.
    whole = [file for s in sets for file in s.files if file.suffix.lower() == ".json"]
    return [Problem("data.streaming", *streamed_whole(str(whole[0])))] if whole else []


def _missing_model(key: str, model: str) -> list[Problem]:
    looks_local = model.startswith(("/", "./", "../", "~")) or model.endswith(".gguf")
    if not looks_local or Path(model).expanduser().exists():
        return []
    return [Problem(key, f"{model} does not exist", "a folder or a .gguf file")]
