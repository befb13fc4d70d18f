"""Which files that a profile names are not there or of no use, as far as their names and their first rows tell."""

from contextlib import suppress
from pathlib import Path

from core.data_checks import unfit_files
from core.data_size import SUFFIXES
from core.dataset_info import DataSetError, find_sets
from core.optimizer_settings import lacking
from core.problems import Problem
from core.profile import Profile, dataset_files, eval_files, is_path, model_path
from core.rows.first import READ_BY, Wanted, unfit
from core.values import toml_value


def unusable_files(profile: Profile) -> list[Problem]:
    """What `missing_files` finds or, where that is nothing, data whose first rows do not fit the stage."""
    return missing_files(profile) or unfit_rows(profile)


def unfit_rows(profile: Profile) -> list[Problem]:
    """A problem for each data set whose first rows do not fit the stage: the file, the row, the field and what to do.

    Names that mean nothing are left out. Where a search decides how rows are read, nothing is told: some of its trials
    may well run.
    """
    space, data, problems = profile.search.space, profile.data, list[Problem]()
    if not READ_BY.isdisjoint(space):
        return problems
    sampled = data.max_samples is not None or "max_samples" in space
    for key, listed in (
        ("data.dataset", dataset_files(profile)),
        ("data.eval_dataset", eval_files(profile)),
    ):
        streamed = data.streaming and key == "data.dataset"
        wanted = Wanted(profile.method.stage, data.format, streamed, sampled)
        for name in listed:
            with suppress(DataSetError):
                for dataset in find_sets([name], data.dataset_dir):
                    told = unfit(dataset, wanted)
                    problems += [Problem(key, told)] if told else []
    return problems


def missing_files(profile: Profile) -> list[Problem]:
    """A problem for each data file, and for a model that can only be a path, that does not exist."""
    problems: list[Problem] = []
    for key, listed in (
        ("data.dataset", dataset_files(profile)),
        ("data.eval_dataset", eval_files(profile)),
    ):
        problems += _missing_data(key, listed, profile)
    problems += _missing_model("model.model_name_or_path", model_path(profile))
    reward = profile.alignment.reward_model
    if profile.method.stage == "ppo" and reward is not None:
        problems += missing_reward(reward, Path(reward).expanduser().is_dir())
    adapter = profile.model.adapter_name_or_path
    if adapter is not None and not Path(adapter).expanduser().is_dir():
        problems.append(
            Problem(
                "model.adapter_name_or_path",
                f"there is no folder {adapter}",
                "the folder of an adapter; one on the hub is fetched with `hf download NAME --local-dir FOLDER`",
            )
        )
    problems += _missing_packages(profile)
    searched = profile.search.space.get("model_name_or_path")
    for model in searched if isinstance(searched, list) else ():
        problems += _missing_model("search.space.model_name_or_path", str(model))
    return problems


def missing_reward(name: str, there: bool) -> list[Problem]:
    """What is wrong with the name of a reward model that is no folder here (`there`), and cannot be one on the hub."""
    key, right = "alignment.reward_model", "the `output` folder of a training of stage rm"
    if name.startswith("step:"):
        return [Problem(key, "step: names a step of a recipe, which this is not", right)]
    # One on the hub is owner/name; a word alone is a folder.
    if there or (not is_path(name) and name.count("/") == 1):
        return []
    return [Problem(key, f"there is no folder {name}", right)]


def _missing_data(key: str, names: list[str], profile: Profile) -> list[Problem]:
    problems: list[Problem] = []
    for name in names:
        try:
            sets = find_sets([name], profile.data.dataset_dir)
            found = [file for dataset in sets for file in dataset.files]
        except DataSetError as error:
            path = name.startswith(("/", "~"))
            told = Problem(key, f"{name} does not exist", error.right or "a data file")
            named = Problem(key, f"{error.name}: {error.wrong}", error.right)
            problems.append(told if path and error.name == name else named)
            continue
        for file in found:
            if not file.exists():
                problems.append(Problem(key, f"{file} does not exist", "a data file"))
            elif file.suffix.lower() not in SUFFIXES:
                problems.append(
                    Problem(
                        key, f"{file}: is no data file", f"one that ends in {', '.join(SUFFIXES)}"
                    )
                )
        # What the name of a data set does not show: that of a file would have been refused before.
        problems += unfit_files(key, map(str, found), profile.method.stage)
    return problems


def _missing_packages(profile: Profile) -> list[Problem]:
    """Optimizers whose packages are not installed here, where the trials run too."""
    searched = profile.search.space.get("optim")
    named: list[tuple[str, str]] = []
    if searched is None:
        named.append(("train.optim", profile.train.optim))
    named += (
        [("search.space.optim", str(v)) for v in searched] if isinstance(searched, list) else []
    )
    return [
        Problem(
            key,
            f"{toml_value(optim)} needs the package {package.install}, which is not installed",
            f"pip install {package.install}",
        )
        for key, optim in named
        if (package := lacking(optim)) is not None
    ]


def _missing_model(key: str, model: str) -> list[Problem]:
    looks_local = model.startswith(("/", "./", "../", "~")) or model.endswith(".gguf")
    if not looks_local or Path(model).expanduser().exists():
        return []
    return [Problem(key, f"{model} does not exist", "a folder or a .gguf file")]
