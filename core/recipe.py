"""A recipe: a profile of several steps that run in order, each starting from what an earlier one has made.

    [profile] name = …      [model] …  [method] …  [data] …  [train] …       # what all steps share
    [recipe]  keep_models = true
    [[step]]
    name = "general"        # letters, digits, - and _
    from = "base"           # or an earlier step; not set: the last step before it that made a model
    [step.data] dataset = "general.jsonl"
    [step.train] learning_rate = 3e-5
    [step.search.space] …

A step's profile is the shared tables with its own laid over them, key by key (a search space as a whole). All steps
are checked completely before anything starts.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from core.catalogue import nearest
from core.missing import unusable_files
from core.params import ProfileTable
from core.problems import Problem, did_you_mean
from core.profile import Profile, ProfileError, from_document, parse, read_text, set_value
from core.recipe_problems import BASE, STEP_KEYS, structure_problems, with_line

OF_STEP = "step:"
"""How a value names what a step of the recipe has made, as `reward_model = "step:reward"`."""
_OF_THE_BASE = ("model_name_or_path", "adapter_name_or_path", "model_revision")
"""Keys of [model] that say where the weights come from."""
_HERE = Path("/")
"""A folder that is there, for a result that will be."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a recipe."""

    name: str
    number: int
    """From 1."""
    source: str | None
    """The earlier step whose result it starts from; None: the profile's own model."""
    reward: str | None
    """The earlier step whose reward model scores for it; None where it needs none, or another one."""
    profile: Profile
    """All that it runs with. Where it starts from a step, the model named is still the recipe's own."""
    notes: str = ""

    @property
    def folder(self) -> str:
        """The name of its study's folder inside the recipe's."""
        return f"{self.number:02d}-{self.name}"

    @property
    def makes_reward_model(self) -> bool:
        """Whether its result scores answers and writes none."""
        return self.profile.method.stage == "rm"

    @property
    def searches(self) -> bool:
        return bool(self.profile.search.space)

    def starting_from(self, model: str | Path | None, reward: str | Path | None) -> Profile:
        """The profile that it runs with once the steps before it are done: `model` is the folder of the weights to
        start from (None: the profile's own model), `reward` that of the reward model.

        Raises:
            ProfileError: the profile does not bear it.
        """
        changes: dict[str, Any] = {}
        if model is not None:
            changes = {f"model.{key}": None for key in _OF_THE_BASE}
            changes["model.model_name_or_path"] = str(model)
        if reward is not None:
            changes["alignment.reward_model"] = str(reward)
        return self.profile.with_changes(changes) if changes else self.profile


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe."""

    profile: ProfileTable
    steps: tuple[Step, ...]
    keep_models: bool = True
    """Whether the models between the steps stay when the last step is done."""

    @property
    def name(self) -> str:
        return self.profile.name

    def step(self, name: str) -> Step:
        """The step of this name, which must exist."""
        return next(s for s in self.steps if s.name == name)

    def as_training(self) -> "Recipe":
        """The same steps without their searches."""
        steps = tuple(replace(s, profile=s.profile.as_training()) for s in self.steps)
        return replace(self, steps=steps)


def is_recipe(path: str | os.PathLike[str]) -> bool:
    """Whether the file is a recipe and not the profile of one run; False also for what cannot be read."""
    try:
        document = tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except (OSError, ValueError):
        return False
    return "step" in document or "recipe" in document


def steps_told(path: str | os.PathLike[str]) -> str:
    """What a recipe is, for somebody who wants the profile of one run: how many steps it has, and how it is run."""
    steps = tomllib.loads(Path(path).read_bytes().decode("utf-8")).get("step")
    listed = [s for s in steps if isinstance(s, Mapping)] if isinstance(steps, list) else []
    names = ", ".join(str(s.get("name", "?")) for s in listed)
    many = f"{len(listed)} step" + ("" if len(listed) == 1 else "s")
    return (
        f"is a recipe of {many} ({names}), and not the profile of one run. `tunedeck check {path}` tells what it runs, "
        f"`tunedeck run {path}` starts it"
    )


def load(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Recipe:
    """Load and check a recipe, with `changes` made before: `step.NAME.table.key`, or `table.key` of the shared tables.

    Raises:
        ProfileError: the file cannot be read, is not TOML, or anything in it is wrong (all of it is listed).
    """
    text = read_text(path)
    return loads(text, source=str(path), folder=Path(path).resolve().parent, changes=changes)


def loads(
    text: str,
    source: str = "recipe",
    folder: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """Check a recipe given as text; `folder` is where its relative paths start, `changes` as for `load`.

    Raises:
        ProfileError: the text is not TOML, or anything in it is wrong.
    """
    document = parse(text, source)
    problems = list(structure_problems(document))
    if not problems:
        problems = list(_make_changes(document, changes or {}))
    if problems:
        raise ProfileError(source, [with_line(p, text, document) for p in problems])
    return _checked(document, source, folder, text)


def missing_in(recipe: Recipe) -> list[Problem]:
    """What `core.missing.unusable_files` finds in the steps, the same thing once."""
    found: dict[tuple[str, str], Problem] = {}
    for step in recipe.steps:
        for problem in unusable_files(step.starting_from(None, _HERE if step.reward else None)):
            told = replace(problem, key=f"step.{step.name}.{problem.key}")
            found.setdefault((problem.key, problem.wrong), told)
    return list(found.values())


def dumps(recipe: Recipe, *, comment: str = "") -> str:
    """A recipe as TOML text that `loads` makes the same recipe of: every step with all that it runs with."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    document: dict[str, Any] = {
        "profile": recipe.profile.model_dump(exclude_none=True),
        "recipe": {"keep_models": recipe.keep_models},
        # Only the name, which every table needs: what a step does not start from must not be laid under it.
        "model": {"model_name_or_path": recipe.steps[0].profile.model.model_name_or_path},
        "step": [_step_document(step) for step in recipe.steps],
    }
    return head + tomli_w.dumps(document)


# -- reading ----------------------------------------------------------------------------------


def _make_changes(document: dict[str, Any], changes: Mapping[str, Any]) -> Iterator[Problem]:
    """Make the changes of a command line. A shared value that a step sets for itself must be changed there."""
    steps = {s["name"]: s for s in document["step"]}
    # The shared ones first: whoever changes both gives a step a value of its own.
    for key, value in sorted(changes.items(), key=lambda change: change[0].startswith("step.")):
        if key.startswith("step."):
            _, name, own_key = key.split(".", 2)
            if name not in steps:
                yield Problem(key, f"there is no step {name}", f"there are {', '.join(steps)}")
            else:
                set_value(steps[name], own_key, value)
            continue
        own = [name for name, step in steps.items() if _has(step, key.split("."))]
        if own:
            right = " and ".join(f"step.{name}.{key}" for name in own)
            yield Problem(key, f"step {', '.join(own)} has a value of its own", f"change {right}")
            continue
        set_value(document, key, value)


def _has(table: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(table, Mapping) or part not in table:
            return False
        table = table[part]
    return True


# -- checking ---------------------------------------------------------------------------------


def _checked(document: dict[str, Any], source: str, folder: Path | None, text: str) -> Recipe:
    listed: list[Mapping[str, Any]] = document["step"]
    shared = {name: table for name, table in document.items() if name not in ("step", "recipe")}
    name = _recipe_name(shared)
    problems: list[list[Problem]] = []
    steps: list[Step] = []
    for number, step in enumerate(listed, 1):
        own = {key: table for key, table in step.items() if key not in STEP_KEYS}
        whole = _overlaid(shared, own)
        if name is not None:
            whole["profile"] = {**_table(shared, "profile"), "name": _study_name(name, step)}
        wrong: list[Problem] = []
        begins, wrong_begin = _beginning(step, listed[: number - 1], document)
        try:
            profile = from_document(whole, source=source, folder=folder)
        except ProfileError as error:
            wrong += error.problems
        else:
            reward, wrong_reward = _reward(profile, listed[: number - 1], document)
            wrong += wrong_reward
            if begins is not None:
                wrong += _models_named(step, profile)
            notes = str(step.get("notes", ""))
            steps.append(Step(step["name"], number, begins, reward, profile, notes))
        problems.append([*wrong_begin, *wrong])
    found = _told_once(problems, listed)
    if found:
        raise ProfileError(source, [with_line(p, text, document) for p in found])
    keep = bool(document.get("recipe", {}).get("keep_models", True))
    table = ProfileTable.model_validate({"name": "recipe", **_table(shared, "profile")})
    return Recipe(table, tuple(steps), keep)


def _recipe_name(shared: Mapping[str, Any]) -> str | None:
    """The recipe's name; None where it is none, which the check of the first step's profile tells."""
    if not isinstance(shared.get("profile", {}), Mapping):
        return None
    name = _table(shared, "profile").get("name", "recipe")
    try:
        return ProfileTable.model_validate({"name": name}).name
    except ValidationError:
        return None


def _study_name(recipe: str, step: Mapping[str, Any]) -> str:
    """The name of a step's study, no longer than names may be. A step's name has at most 40 characters."""
    return f"{recipe[: 79 - len(step['name'])]}-{step['name']}"


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    content = document.get(name, {})
    return dict(content) if isinstance(content, Mapping) else {}


def _overlaid(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The shared tables with a step's own laid over them, key by key."""
    whole: dict[str, Any] = {
        name: dict(table) if isinstance(table, Mapping) else table for name, table in shared.items()
    }
    for name, table in own.items():
        below = whole.get(name)
        merges = isinstance(table, Mapping) and isinstance(below, Mapping)
        whole[name] = {**below, **table} if merges else table  # type: ignore[dict-item]
    return whole


def _stage(step: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """The stage of a step as it is written; "sft" where nothing is."""
    shared = _table(document, "method").get("stage", "sft")
    return str(_table(step, "method").get("stage", shared))


def _beginning(
    step: Mapping[str, Any], before: Sequence[Mapping[str, Any]], document: Mapping[str, Any]
) -> tuple[str | None, list[Problem]]:
    """The step that a step starts from (None: the profile's own model), and what is wrong with that."""
    key, wanted = f"step.{step['name']}.from", step.get("from")
    if wanted is None:
        # A reward model writes nothing, so that no step can go on from one.
        models = [s["name"] for s in before if _stage(s, document) != "rm"]
        return (models[-1] if models else None), []
    if wanted == BASE:
        return None, []
    source = next((s for s in before if s["name"] == wanted), None)
    if source is None:
        names = [BASE, *(s["name"] for s in before)]
        if wanted in [s["name"] for s in document["step"]]:
            itself = "the step itself" if wanted == step["name"] else "a step after this one"
            right = f"start from one before it: {', '.join(names)}"
            return None, [Problem(key, f"{wanted} is {itself}", right)]
        close = did_you_mean(nearest(wanted, names)) or f"there are {', '.join(names)}"
        return None, [Problem(key, f"{wanted} is no step before this one", close)]
    if _stage(source, document) == "rm":
        wrong = f"{wanted} makes a reward model, which scores answers and writes none"
        return None, [Problem(key, wrong, "start from a step of another stage")]
    return wanted, []


def _reward(
    profile: Profile, before: Sequence[Mapping[str, Any]], document: Mapping[str, Any]
) -> tuple[str | None, list[Problem]]:
    """The step whose reward model a step uses, and what is wrong with steps that its values name."""
    wrong = []
    for key, value in profile.values().items():
        named = isinstance(value, str) and value.startswith(OF_STEP)
        if named and key != "alignment.reward_model" and not key.startswith("profile."):
            right = "alignment.reward_model does; `from` says what a step starts from"
            wrong.append(Problem(key, "cannot name a step", right))
    for name, entry in profile.search.space.items():
        if isinstance(entry, list) and any(str(v).startswith(OF_STEP) for v in entry):
            wrong.append(Problem(f"search.space.{name}", "cannot name a step", "name one outside"))
    value = profile.alignment.reward_model
    if value is None or not value.startswith(OF_STEP):
        return None, wrong
    name = value.removeprefix(OF_STEP)
    models = [s["name"] for s in before if _stage(s, document) == "rm"]
    if name in models:
        return name, wrong
    there = next((s for s in before if s["name"] == name), None)
    said = f"{name} is no step before this one"
    if there is not None:
        said = f"{name} is of stage {_stage(there, document)} and makes no reward model"
    right = (
        f"reward models come from {', '.join(models)}"
        if models
        else "put a step of stage rm before it"
    )
    return None, [*wrong, Problem("alignment.reward_model", said, right)]


def _models_named(step: Mapping[str, Any], profile: Profile) -> Iterator[Problem]:
    """Models that a step names although it starts from what another one has made."""
    name = step["name"]
    for key in _OF_THE_BASE:
        if key in _table(step, "model"):
            yield Problem(
                f"step.{name}.model.{key}",
                "is given, and yet the step starts from the one before it",
                'leave it out, or set from = "base"',
            )
    for key in _OF_THE_BASE:
        if key in profile.search.space:
            wrong = "cannot be searched by a step that starts from another one"
            yield Problem(f"search.space.{key}", wrong, 'leave it out, or set from = "base"')


def _told_once(
    problems: Sequence[Sequence[Problem]], listed: Sequence[Mapping[str, Any]]
) -> list[Problem]:
    """All problems under keys that say which step; what is wrong with a shared value is told once, as such."""
    found: list[Problem] = []
    for wrong, step in zip(problems, listed, strict=True):
        for problem in wrong:
            if problem.key.startswith("step."):
                found.append(problem)
                continue
            path = problem.key.split(".")
            sharing = [each for each, s in zip(problems, listed, strict=True) if not _has(s, path)]
            shared = not _has(step, path) and all(problem in each for each in sharing)
            told = problem if shared else replace(problem, key=f"step.{step['name']}.{problem.key}")
            if told not in found:
                found.append(told)
    return found


def _step_document(step: Step) -> dict[str, Any]:
    """A step as `dumps` writes it."""
    own = step.profile.to_document()
    del own["profile"]
    own.pop("tuned", None)
    if step.source is not None:
        own["model"] = {k: v for k, v in own["model"].items() if k not in _OF_THE_BASE}
    notes = {"notes": step.notes} if step.notes else {}
    return {"name": step.name, "from": step.source or BASE, **notes, **own}
