"""A profile: load, check, change, save. A profile is a TOML file that fully says a run.

Everything that is wrong with a profile is collected and reported at once, as `Problem`s that name the key, what is
wrong and what would be right.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import tomli_w
from pydantic import ValidationError

from core.catalogue import (
    UnknownParameterError,
    find,
    nearest,
    space_problem,
)
from core.checks import (
    joint_problems,
    space_problems,
    table_problems,
    unknown_in_space,
    validates,
)
from core.dataset_info import DEMO_SETS, split_names
from core.logged import usual_metric
from core.params import (
    TABLES,
    AlignmentTable,
    DataTable,
    GenerationTable,
    MemoryTable,
    MethodTable,
    ModelTable,
    ProfileTable,
    Range,
    ResourcesTable,
    SearchTable,
    Table,
    TrainTable,
    TunedTable,
)
from core.problems import Problem, did_you_mean, line_of
from core.profile_paths import with_absolute_paths
from core.search_keys import SUFFIX, spell
from core.space_checks import contradictions
from core.values import toml_value

ROOT = Path(__file__).resolve().parent.parent
READY_MADE = ROOT / "profiles"
"""The profiles that tunedeck ships."""
DEMO_MODEL = ROOT / "core" / "assets" / "demo" / "model"
DEMO_DATA = DEMO_SETS["demo"]
RECIPE = (
    "makes this a recipe of several steps, and here the profile of one run is wanted",
    "`tunedeck check` and `tunedeck run` take recipes",
)
"""What is wrong with a table `step`, and what would be right."""


class ProfileError(Exception):
    """A profile cannot be used. `problems` lists everything that is wrong; `source` is the file."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    def __str__(self) -> str:
        if len(self.problems) == 1 and not self.problems[0].key:
            return f"{self.source}: {self.problems[0].wrong}"
        lines = "\n".join(f"  {p}" for p in self.problems)
        many = "problem" if len(self.problems) == 1 else "problems"
        return f"{self.source}: {len(self.problems)} {many}\n{lines}"


@dataclass(frozen=True, slots=True)
class Profile:
    """A checked profile. Tables are immutable; `with_changes` makes another one."""

    model: ModelTable
    data: DataTable
    profile: ProfileTable = ProfileTable()
    method: MethodTable = MethodTable()
    alignment: AlignmentTable = AlignmentTable()
    train: TrainTable = TrainTable()
    generation: GenerationTable = GenerationTable()
    memory: MemoryTable = MemoryTable()
    resources: ResourcesTable = ResourcesTable()
    search: SearchTable = SearchTable()
    tuned: TunedTable | None = None

    def tables(self) -> dict[str, Table]:
        """The tables that are present, by name, in the order in which they are shown."""
        present = ((name, getattr(self, name)) for name in TABLES)
        return {name: table for name, table in present if table is not None}

    def value(self, key: str) -> Any:
        """The value of the parameter `key` (`table.name`, or the name alone)."""
        parameter = find(key)
        table = getattr(self, parameter.table)
        return None if table is None else getattr(table, parameter.name)

    def values(self) -> dict[str, Any]:
        """Every value by its full key."""
        return {
            f"{name}.{key}": getattr(table, key)
            for name, table in self.tables().items()
            for key in type(table).model_fields
        }

    def with_changes(self, changes: Mapping[str, Any]) -> "Profile":
        """A profile with other values (full keys or names alone → value), checked again.

        Raises:
            ProfileError: a key does not exist, a value is not allowed, or values do not go together.
        """
        document = self.to_document()
        problems = []
        for key, value in changes.items():
            try:
                parameter = find(key)
            except UnknownParameterError as error:
                problems.append(Problem(key, "is not known", did_you_mean(error.nearest)))
                continue
            table = document.setdefault(parameter.table, {})
            if value is None:
                table.pop(parameter.name, None)
            else:
                table[parameter.name] = value
        if problems:
            raise ProfileError("changes", problems)
        # A trial may well leave the space that the search keeps to.
        whole = any(find(key).table == "search" for key in changes)
        return from_document(document, source=self.profile.name, combinations=whole)

    def to_document(self) -> dict[str, dict[str, Any]]:
        """The profile as the nested mapping that a TOML file holds; values that are not set are left out."""
        return {name: table.model_dump(exclude_none=True) for name, table in self.tables().items()}

    def effective_batch(self) -> int:
        """Rows per update: per-device batch × accumulation × GPUs."""
        return self.batch_per_gpu() * self.resources.gpus_per_trial

    def passes(self) -> int:
        """How often an epoch learns from each row: in stage ppo, from the answer to each prompt."""
        return self.alignment.ppo_epochs if self.method.stage == "ppo" else 1

    def batch_per_gpu(self) -> int:
        """Rows of an update that one GPU computes: per-device batch × accumulation."""
        return self.train.per_device_train_batch_size * self.train.gradient_accumulation_steps

    def rank_by(self) -> str:
        """What trials are ranked by, with `auto` decided by the stage and by whether there is validation data."""
        if self.search.rank_by != "auto":
            return self.search.rank_by
        return usual_metric(self.method.stage, validated=self.has_validation())

    def has_validation(self) -> bool:
        """Whether the profile sets validation data aside or names some."""
        return validates(self.data)

    def as_training(self) -> "Profile":
        """The same run without a search: what a winner is saved as and what `train` runs."""
        return replace(self, search=SearchTable())


def load(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Profile:
    """Load and check a profile, with `changes` (full key, or `search.space.NAME` → value) made before it is checked.

    Relative paths in it become absolute where the file that they name exists. A profile that says no name has its
    file's.

    Raises:
        ProfileError: the file cannot be read, is not TOML, or anything in it is wrong (all of it is listed).
    """
    file = Path(path).resolve()
    loaded = loads(read_text(path), source=str(path), folder=file.parent, changes=changes)
    if "name" in loaded.profile.model_fields_set:
        return loaded
    name = find("profile.name")
    try:
        table = loaded.profile.model_copy(update={"name": name.validate(file.stem)})
    except ValueError:  # The name of a file may be longer, or hold a line's end.
        return loaded
    return replace(loaded, profile=table)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a profile's file.

    Raises:
        ProfileError: the file cannot be read, or is no text.
    """
    file = Path(path)
    source = str(path)
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ProfileError(source, [Problem("", _missing(file))]) from None
    except IsADirectoryError:
        raise ProfileError(
            source, [Problem("", "is a folder, not a profile (a .toml file)")]
        ) from None
    except UnicodeDecodeError:
        raise ProfileError(
            source, [Problem("", "is not UTF-8 text, so it is no TOML file")]
        ) from None
    except OSError as error:
        raise ProfileError(source, [Problem("", f"cannot be read: {error.strerror}")]) from None


def loads(
    text: str,
    source: str = "profile",
    folder: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Profile:
    """Check a profile given as text; `folder` is where its relative paths start, `changes` as for `load`.

    Raises:
        ProfileError: the text is not TOML, or anything in it is wrong.
    """
    document = parse(text, source)
    for key, value in (changes or {}).items():
        set_value(document, key, value)
    return from_document(document, source=source, folder=folder, text=text)


def parse(text: str, source: str) -> dict[str, Any]:
    """What the TOML text of a profile says, unchecked.

    Raises:
        ProfileError: the text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(source, [Problem("", f"is not valid TOML: {error}")]) from None


def _belongs(name: str) -> str:
    """Where a person may have meant to write `name`, which stands on its own in a profile, in words."""
    try:
        parameter = find(name.removesuffix(SUFFIX))
    except UnknownParameterError:
        return did_you_mean(nearest(name, TABLES))
    table = "search" if name.endswith(SUFFIX) else parameter.table
    return f"write it below [{table}]"


def set_value(document: dict[str, Any], key: str, value: Any) -> None:
    """Set one value (by its full key) in a document that is to be a profile; None takes it out."""
    *tables, name = key.split(".")
    table = document
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            return  # the check of the document names the table that is none
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value


def from_document(
    document: Mapping[str, Any],
    source: str = "profile",
    folder: Path | None = None,
    text: str = "",
    *,
    combinations: bool = True,
) -> Profile:
    """Check a profile given as a nested mapping; with `combinations`, also that some combination of its space can run.

    Raises:
        ProfileError: anything in it is wrong.
    """
    if "step" in document:
        raise ProfileError(source, [Problem("step", *RECIPE)])
    spelled = spell(document)
    document = spelled.document
    problems = [
        *spelled.problems,
        *(
            Problem(t, "is not a table of a profile", _belongs(t))
            for t in document
            if t not in TABLES
        ),
    ]
    tables: dict[str, Table] = {}
    for name, model in TABLES.items():
        if name == "tuned" and name not in document:
            continue
        content = document.get(name, {})
        if not isinstance(content, Mapping):
            problems.append(Problem(name, "must be a table", f"write [{name}] above its keys"))
            continue
        try:
            tables[name] = model.model_validate(_spell_out(name, content))
        except ValidationError as error:
            problems.extend(table_problems(name, error))
    if "search" not in tables:
        problems.extend(unknown_in_space(document.get("search")))
    else:
        search = cast(SearchTable, tables["search"])
        problems.extend(space_problems(search))
        tables["search"] = search.model_copy(update={"space": _spelled_space(search)})
    problems.extend(joint_problems(tables))
    if combinations and not problems:
        problems.extend(contradictions(tables))
    if problems:
        told = map(spelled.at_written, problems)
        raise ProfileError(source, [replace(p, line=line_of(text, p.key)) for p in told])
    if folder is not None:
        tables = with_absolute_paths(tables, folder)
    return Profile(**cast(dict[str, Any], tables))


def save(profile: Profile, path: str | os.PathLike[str], *, comment: str = "") -> None:
    """Write a profile as TOML, atomically: an existing file is replaced whole or not at all.

    Raises:
        OSError: the file cannot be written; it names the file, not the one that is renamed to it.
    """
    file = Path(path)
    text = dumps(profile, comment=comment)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        temporary.unlink(missing_ok=True)


def dumps(profile: Profile, *, comment: str = "") -> str:
    """A profile as TOML text; `comment` goes on top."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    document = profile.to_document()
    space = document["search"].pop("space", None)
    if not document["train"]["lr_scheduler_kwargs"]:
        del document["train"]["lr_scheduler_kwargs"]
    if profile.search == SearchTable():
        del document["search"]
    body = tomli_w.dumps(document)
    if not space:
        return head + body
    lines = "\n".join(f"{key} = {toml_value(_plain(entry))}" for key, entry in space.items())
    section, found, tail = body.partition("[tuned]")
    return f"{head}{section.rstrip()}\n\n[search.space]\n{lines}\n" + (
        f"\n{found}{tail}" if found else ""
    )


def ready_made() -> list[Path]:
    """The profiles of one run that tunedeck ships, by name; those whose name begins with a stage come last."""
    recipes, stages = ready_made_recipes(), find("method.stage").choices
    listed = [path for path in sorted(READY_MADE.glob("*.toml")) if path not in recipes]
    return sorted(listed, key=lambda path: path.stem.partition("-")[0] in stages)


def ready_made_recipes() -> list[Path]:
    """The recipes (profiles of several steps, see `core.recipe`) that tunedeck ships, by name."""
    return sorted(READY_MADE.glob("recipe-*.toml"))


def resolve(name: str) -> Path:
    """The file that a person means by `name`: a path, or the name of a ready-made profile without its folder."""
    path = Path(name)
    if path.exists() or path.suffix not in ("", ".toml") or len(path.parts) > 1:
        return path
    shipped = READY_MADE / path.with_suffix(".toml").name
    return shipped if shipped.exists() else path


def _plain(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {k: v for k, v in entry.items() if not (k == "scale" and v == "linear")}
    return entry


def _missing(file: Path) -> str:
    names = [p.stem for p in (*ready_made(), *ready_made_recipes())]
    close = nearest(file.stem, names)
    if close:
        return f"does not exist; did you mean the ready-made profile {' or '.join(close)}?"
    return (
        f"does not exist (ready-made profiles: {', '.join(names)})" if names else "does not exist"
    )


def _spell_out(table: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has one number type fewer than people use: a whole float is taken where a whole number is wanted."""
    spelled = {
        key: _whole(f"{table}.{key}", value) if key in TABLES[table].model_fields else value
        for key, value in content.items()
    }
    space = content.get("space")
    if table == "search" and isinstance(space, Mapping):
        spelled["space"] = {
            name: [_whole(name, v) for v in entry] if isinstance(entry, list) else entry
            for name, entry in space.items()
        }
    return spelled


def _whole(key: str, value: Any) -> Any:
    """A whole float as a whole number where the parameter `key` is one; everything else as it is."""
    if not isinstance(value, float) or not value.is_integer():
        return value
    try:
        return int(value) if find(key).kind == "int" else value
    except UnknownParameterError:
        return value


def _spelled_space(search: SearchTable) -> dict[str, Any]:
    """The space with full keys made names alone and values made of the parameter's type."""
    spelled: dict[str, Any] = {}
    for name, entry in search.space.items():
        try:
            parameter = find(name)
        except UnknownParameterError:
            continue
        if isinstance(entry, Range) or space_problem(parameter, entry):
            spelled[parameter.name] = entry
        else:
            spelled[parameter.name] = [parameter.validate(v) for v in entry]
    return spelled


def dataset_files(profile: Profile) -> list[str]:
    """The training data of a profile, a name each: files and folders, `demo` spelled out, and names in
    dataset_info.json as they are (`core.dataset_info` says what they mean)."""
    return _files(profile.data.dataset)


def eval_files(profile: Profile) -> list[str]:
    """The evaluation data of a profile, as `dataset_files` has it; empty where none is named."""
    return _files(profile.data.eval_dataset or [])


def is_path(name: str) -> bool:
    """Whether a model's name can only be a path: one on the hub is `owner/name`."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.endswith(".gguf")


def model_path(profile: Profile) -> str:
    """The model of a profile, `demo` spelled out."""
    name = profile.model.model_name_or_path
    return str(DEMO_MODEL) if name == "demo" else name


def _files(names: list[str] | str) -> list[str]:
    return [str(DEMO_SETS.get(name, name)) for name in split_names(names)]
