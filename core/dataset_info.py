"""What a name in `data.dataset` means: a file, a folder of files, a demo set, or an entry of dataset_info.json.

dataset_info.json is LLaMA-Factory's: it says by name where data sets lie and what their columns and roles are called.
Nothing here loads data or imports torch: clients use it to find the files that they count.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from core.catalogue import nearest
from core.data_size import SUFFIXES, FileSize

INFO = "dataset_info.json"
FOLDER = "data"
"""Where dataset_info.json is looked for when `data.dataset_dir` is not set."""
_DEMO = Path(__file__).resolve().parent / "assets" / "demo"
DEMO_SETS: Mapping[str, Path] = {
    "demo": _DEMO / "instructions.jsonl",
    "demo-text": _DEMO / "text.txt",
    "demo-pairs": _DEMO / "pairs.jsonl",
    "demo-tags": _DEMO / "tags.jsonl",
}
"""The data sets that tunedeck ships: for stage sft (and ppo), pt, rm and dpo, kto."""

Formatting = Literal["auto", "alpaca", "sharegpt", "openai", "text"]

_ELSEWHERE = {
    "hf_hub_url": "on the Hugging Face Hub",
    "ms_hub_url": "on ModelScope",
    "om_hub_url": "on Modelers",
    "cloud_file_name": "in cloud storage",
}
_SPLITS = ("train", "validation", "valid", "val", "test", "dev", "eval")
_KNOWN = (
    *_ELSEWHERE, "script_url", "file_name", "file_sha1", "formatting", "ranking", "subset", "split", "folder",
    "num_samples", "columns", "tags",
)  # fmt: skip


class DataSetError(Exception):
    """A name means no data set that can be used. `wrong` says why, `right` what would be right (or is empty)."""

    def __init__(self, name: str, wrong: str, right: str = "") -> None:
        super().__init__(name, wrong, right)
        self.name = name
        self.wrong = wrong
        self.right = right

    def __str__(self) -> str:
        return f"{self.name}: {self.wrong}" + (f" ({self.right})" if self.right else "")


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a data set are called; None: the usual names."""

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    messages: str | None = None
    system: str | None = None
    tools: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None


@dataclass(frozen=True, slots=True)
class Tags:
    """What the keys and the roles of messages are called; None: the usual names."""

    role_tag: str | None = None
    content_tag: str | None = None
    user_tag: str | None = None
    assistant_tag: str | None = None
    observation_tag: str | None = None
    function_tag: str | None = None
    system_tag: str | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set as its profile names it."""

    name: str
    files: tuple[Path, ...]
    formatting: Formatting = "auto"
    """`auto`: what `data.format` says."""
    columns: Columns = Columns()
    tags: Tags = Tags()
    num_samples: int | None = None
    """Rows to take: drawn where the files have more, repeated where they have fewer."""


@dataclass(frozen=True, slots=True)
class Info:
    """A dataset_info.json as it was read."""

    folder: Path
    entries: Mapping[str, Any]


def split_names(names: Sequence[str] | str | None, folder: Path | None = None) -> list[str]:
    """The names in a value of `data.dataset`; several may stand in one text, with commas, as LLaMA-Factory has it."""
    listed = [names] if isinstance(names, str) else list(names or ())
    found: list[str] = []
    for text in listed:
        whole = "," not in text or _find_path(text, folder) is not None
        found += [text] if whole else [part.strip() for part in text.split(",") if part.strip()]
    return found


def find_info(dataset_dir: str | None, folder: Path | None = None) -> Info | None:
    """The dataset_info.json of `data.dataset_dir`, else of the folder `data` beside `folder` or the current one.

    Raises:
        DataSetError: dataset_dir is set and has none, or the file is no JSON object.
    """
    candidates = [dataset_dir] if dataset_dir is not None else [FOLDER, "."]
    for candidate in candidates:
        file = _find_path(str(Path(candidate) / INFO), folder)
        if file is not None:
            return Info(file.parent, _read(file))
    if dataset_dir is not None:
        raise DataSetError(
            dataset_dir, f"there is no {INFO} in it", "set data.dataset_dir to its folder"
        )
    return None


def find_sets(
    names: Sequence[str] | str | None, dataset_dir: str | None, folder: Path | None = None
) -> list[DataSet]:
    """What the names mean, relative ones from `folder` (or the current one).

    Raises:
        DataSetError: a name means nothing, or something that cannot be used from here.
    """
    listed = split_names(names, folder)
    if all(name in DEMO_SETS for name in listed):
        return [DataSet(name, (DEMO_SETS[name],)) for name in listed]
    try:
        info = find_info(dataset_dir, folder)
    except DataSetError:
        # A damaged file is of no matter to those who name files.
        if all(_find_path(name, folder) is not None for name in listed):
            info = None
        else:
            raise
    return [find_set(name, info, folder) for name in listed]


def find_set(name: str, info: Info | None, folder: Path | None = None) -> DataSet:
    """What one name means.

    Raises:
        DataSetError: it means nothing, or something that cannot be used from here.
    """
    if name in DEMO_SETS:
        return DataSet(name, (DEMO_SETS[name],))
    if info is not None and name in info.entries:
        return _named(name, info)
    path = _find_path(name, folder) if name.strip() else None
    if path is None:
        raise _unknown(name, info, folder)
    return DataSet(name, _files(name, path, None))


def size_of(dataset: DataSet, count: Callable[[Path], FileSize]) -> FileSize:
    """What a data set holds, by what `count` says of each of its files.

    Raises:
        DataSizeError: as `count` raises it.
    """
    sizes = [count(file) for file in dataset.files]
    lengths = [size.longest for size in sizes]
    known = [length for length in lengths if length is not None]
    return FileSize(
        sum(size.rows for size in sizes),
        max(known) if len(known) == len(lengths) else None,
        dataset.num_samples,
        sum(size.bytes for size in sizes),
    )


def is_named(name: str, info: Info | None) -> bool:
    """Whether the name stands for itself: no path that is to be made absolute."""
    return name in DEMO_SETS or (info is not None and name in info.entries)


def _named(name: str, info: Info) -> DataSet:
    entry = info.entries[name]
    where = f"{name} in {info.folder / INFO}"
    if not isinstance(entry, Mapping):
        raise DataSetError(where, "is no object", 'as { "file_name": "rows.jsonl" }')
    strange = next((key for key in entry if key not in _KNOWN), None)
    if strange is not None:
        close = nearest(strange, _KNOWN)
        right = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(_KNOWN)}"
        raise DataSetError(where, f"{strange} is not known", right)
    if not entry.get("file_name"):
        raise _not_here(where, entry)
    subset = _optional(where, entry, "subset", str)
    path = info.folder / Path(_optional(where, entry, "file_name", str) or "").expanduser()
    if subset and (path / subset).is_dir():
        path = path / subset
    if not path.exists():
        raise DataSetError(where, f"there is no {path}", "put the file there, or set file_name")
    formatting = entry.get("formatting", "auto")
    if formatting not in ("auto", "alpaca", "sharegpt", "openai", "text"):
        raise DataSetError(
            where, f"formatting {formatting!r} is not known", "alpaca, sharegpt, openai or text"
        )
    samples = _optional(where, entry, "num_samples", int)
    if samples is not None and samples < 1:
        raise DataSetError(where, f"num_samples is {samples}", "1 or more")
    _optional(where, entry, "ranking", bool)
    return DataSet(
        name,
        _files(where, path, _optional(where, entry, "split", str)),
        formatting,
        _texts(where, entry, "columns", Columns),
        _texts(where, entry, "tags", Tags),
        samples,
    )


def _not_here(where: str, entry: Mapping[str, Any]) -> DataSetError:
    for key, place in _ELSEWHERE.items():
        if key in entry:
            return DataSetError(
                where,
                f"is {place} ({entry[key]}), and tunedeck fetches no data by itself",
                "download it first and name the files as file_name",
            )
    if "script_url" in entry:
        return DataSetError(
            where,
            f"is made by a script ({entry['script_url']}), which tunedeck does not run",
            "run it, save its rows as .jsonl and name that as file_name",
        )
    return DataSetError(where, "file_name is missing", 'as "file_name": "rows.jsonl"')


_Record = TypeVar("_Record", Columns, Tags)
_MEDIA = ("images", "videos", "audios")


def _texts(where: str, entry: Mapping[str, Any], key: str, kind: type[_Record]) -> _Record:
    given = entry.get(key) or {}
    if not isinstance(given, Mapping):
        raise DataSetError(where, f"{key} is no object")
    known = [field.name for field in fields(kind)]
    for name, value in given.items():
        if name in _MEDIA:
            raise DataSetError(where, f"{key}.{name}: only text can be learnt", f"leave {name} out")
        if name not in known:
            close = nearest(name, known)
            right = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
            raise DataSetError(where, f"{key}.{name} is not known", right)
        if value is not None and not isinstance(value, str):
            raise DataSetError(where, f"{key}.{name} must be text")
    return kind(**given)


_Value = TypeVar("_Value")


def _optional(where: str, entry: Mapping[str, Any], key: str, kind: type[_Value]) -> _Value | None:
    value = entry.get(key)
    if value is None or (isinstance(value, kind) and not (kind is int and value is True)):
        return value
    words = {str: "text", int: "a whole number", bool: "true or false"}
    raise DataSetError(where, f"{key} must be {words[kind]}")


def _files(name: str, path: Path, split: str | None) -> tuple[Path, ...]:
    """The file, or the folder's data files by name: those of `split`, or of its training split where it has one."""
    if not path.is_dir():
        return (path,)
    inside = sorted(p for p in path.rglob("*") if p.is_file() and _is_data(p, path))
    if not inside:
        raise DataSetError(
            name, f"there is no data file in {path}", f"they end in {', '.join(SUFFIXES)}"
        )
    splits = {p: _split_of(p, path) for p in inside}
    if split is None or (split == "train" and not any(splits.values())):
        return tuple(p for p in inside if splits[p] == "train") or tuple(inside)
    # A split may have a name of its own, as train_sft has, which begins as another does.
    found = tuple(p for p in inside if split in _stems(p, path)) or tuple(
        p for p in inside if splits[p] == split
    )
    if not found:
        have = ", ".join(sorted({s for s in splits.values() if s})) or "none"
        raise DataSetError(name, f"{path} has no files of split {split}", f"it has {have}")
    return found


_NO_DATA = (INFO, "README.txt", "LICENCE.txt", "LICENSE.txt", "requirements.txt")


def _is_data(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in SUFFIXES and file.name not in _NO_DATA


def _split_of(file: Path, folder: Path) -> str | None:
    """The split that a file's name or its folder tells, as on the Hugging Face Hub: train-00000-of-00002.parquet."""
    for part in _stems(file, folder):
        first = re.split(r"[-_.]", part)[0].lower()
        if first in _SPLITS:
            return first
    return None


def _stems(file: Path, folder: Path) -> list[str]:
    """The names of a file and of the folders that it is in, without what numbers the pieces of a split."""
    parts = file.relative_to(folder).with_suffix("").parts
    return [_PIECE.sub("", part) for part in reversed(parts)]


_PIECE = re.compile(r"-\d+-of-\d+.*$")

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
"""How data sets on the Hugging Face Hub are called: owner/name."""


def _unknown(name: str, info: Info | None, folder: Path | None) -> DataSetError:
    places = list(dict.fromkeys(str(p) for p in _places(folder)))
    looked = "" if Path(name).expanduser().is_absolute() else f"looked in {' and '.join(places)}"
    known = [*DEMO_SETS, *(info.entries if info is not None else ())]
    near = nearest(name, [*known, *_beside(name, folder)])
    if not near and _HUB.fullmatch(name) and not Path(name).suffix:
        return DataSetError(
            name,
            f"there is no such folder in {' and '.join(places)}, and tunedeck fetches no data by itself",
            f"if it is on the Hugging Face Hub: hf download --repo-type dataset {name} --local-dir DIR, then name DIR",
        )
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    if info is None:
        plain = not Path(name).suffix and "/" not in name
        none = f"there is no {INFO} that would say what it is; set data.dataset_dir" * plain
        parts = (hint, looked, none)
        return DataSetError(name, "there is no such file", "; ".join(p for p in parts if p))
    if not near and info.entries and not Path(name).suffix:
        hint = f"{INFO} has {', '.join(list(info.entries)[:8])}"
    wrong = f"there is no such file, nor such a name in {info.folder / INFO}"
    return DataSetError(name, wrong, "; ".join(p for p in (hint, looked) if p))


def _beside(name: str, folder: Path | None) -> Iterator[str]:
    """Data files in the folder where `name` should be, spelled as it is."""
    given = Path(name).expanduser()
    for place in _places(folder):
        parent = (place / given).parent
        try:
            inside = sorted(parent.iterdir())[:1000]
        except OSError:
            continue
        for file in inside:
            if file.suffix.lower() in SUFFIXES:
                yield str(given.parent / file.name)


def _places(folder: Path | None) -> list[Path]:
    return [Path.cwd()] if folder is None else [folder, Path.cwd()]


def _find_path(name: str, folder: Path | None) -> Path | None:
    """The existing file or folder that `name` means."""
    try:
        given = Path(name).expanduser()
        return next((p.resolve() for p in (q / given for q in _places(folder)) if p.exists()), None)
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL, no such user
        return None


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = msgspec.json.decode(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataSetError(str(file), f"is not valid JSON: {error}") from None
    except RecursionError:
        raise DataSetError(str(file), "has lists or objects too deep inside one another") from None
    except OSError as error:
        raise DataSetError(str(file), f"cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise DataSetError(
            str(file), "holds no object", 'as { "name": { "file_name": "rows.jsonl" } }'
        )
    return content
