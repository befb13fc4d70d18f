"""Which files that a profile names are not there, as far as can be seen without loading them."""

from pathlib import Path

from core.problems import Problem
from core.profile import Profile, dataset_files, eval_files, model_path


def missing_files(profile: Profile) -> list[Problem]:
    """A problem for each data file, and for a model that can only be a path, that does not exist."""
    problems = []
    for key, listed in (
        ("data.dataset", dataset_files(profile)),
        ("data.eval_dataset", eval_files(profile)),
    ):
        absent = (name for name in listed if not Path(name).expanduser().exists())
        problems += [Problem(key, f"{name} does not exist", "a data file") for name in absent]
    problems += _missing_model("model.model_name_or_path", model_path(profile))
    searched = profile.search.space.get("model_name_or_path")
    for model in searched if isinstance(searched, list) else ():
        problems += _missing_model("search.space.model_name_or_path", str(model))
    return problems


def _missing_model(key: str, model: str) -> list[Problem]:
    looks_local = model.startswith(("/", "./", "../", "~")) or model.endswith(".gguf")
    if not looks_local or Path(model).expanduser().exists():
        return []
    return [Problem(key, f"{model} does not exist", "a folder or a .gguf file")]
