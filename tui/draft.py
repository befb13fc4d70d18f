"""A profile while a person edits it: texts as they are typed, what they mean, and what is wrong with them. Pure.

A draft is immutable: each change makes another one, so undo is a stack of drafts. Reading a file is the one thing
here that touches the disk.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from core.catalogue import Parameter, UnknownParameterError, find, parameters
from core.params import Range, TunedTable
from core.problems import Problem
from core.profile import Profile, ProfileError, from_document, load
from core.recipe import is_recipe, steps_told
from core.search_keys import spell
from core.values import number, toml_value
from tui.space_text import Entry, parse_space, space_text

SPACE = "search.space"
"""Shown by the marks of other parameters; it has no text of its own."""
_PLACEHOLDER = "demo"


@cache
def editable() -> tuple[Parameter, ...]:
    """The parameters that a person can set, in the order in which they are shown."""
    return tuple(p for p in parameters() if p.table != "tuned" and p.key != SPACE)


def text_of(parameter: Parameter, value: Any) -> str:
    """A value as it stands in the form; `Parameter.parse` reads it back. Not set is the empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return value.replace("\r\n", "\\n").replace("\n", "\\n")
    if isinstance(value, list) and parameter.table == "resources":
        return ", ".join(str(v) for v in value)
    if isinstance(value, Mapping) and not value:
        return "{}"
    return toml_value(value)


@cache
def default_text(key: str) -> str:
    """What the form shows where nothing was set."""
    parameter = find(key)
    return text_of(parameter, parameter.default)


@dataclass(frozen=True)
class Draft:
    """What was typed: texts by full key where they differ from the default, and searched parameters by full key."""

    texts: Mapping[str, str] = field(default_factory=dict)
    space: Mapping[str, str] = field(default_factory=dict)
    loaded: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Values as the file has them: a text that still says the same keeps its value to the last digit."""
    tuned: TunedTable | None = None
    folder: Path | None = field(default=None, compare=False)
    """Where relative paths start."""

    def text(self, key: str) -> str:
        """The text of the parameter `key`."""
        return self.texts.get(key, default_text(key))

    def is_default(self, key: str) -> bool:
        """Whether nothing but the default was set."""
        return key not in self.texts

    def with_text(self, key: str, text: str) -> "Draft":
        """A draft in which the parameter says `text`. How the profile was tuned is no longer true of it."""
        if text == self.text(key):
            return self
        texts = {k: t for k, t in self.texts.items() if k != key}
        if text != default_text(key):
            texts[key] = text
        return replace(self, texts=texts, tuned=None)

    def with_default(self, key: str) -> "Draft":
        """A draft in which the parameter has its default and is not searched."""
        return self.with_text(key, default_text(key)).without_space(key)

    def with_space(self, key: str, text: str) -> "Draft":
        """A draft that searches the parameter over `text`."""
        if self.space.get(key) == text:
            return self
        return replace(self, space={**self.space, key: text}, tuned=None)

    def without_space(self, key: str) -> "Draft":
        """A draft that does not search the parameter."""
        if key not in self.space:
            return self
        left = {k: t for k, t in self.space.items() if k != key}
        return replace(self, space=left, tuned=None)

    def value(self, parameter: Parameter) -> Any:
        """The value that the parameter's text means.

        Raises:
            ValueError: it means none; the message says what would be allowed.
        """
        text = self.text(parameter.key)
        if parameter.key in self.loaded:
            loaded = self.loaded[parameter.key]
            if text == text_of(parameter, loaded):
                return parameter.validate(loaded)
        if parameter.key == "profile.notes":
            return parameter.parse(text).replace("\\n", "\n")
        return parameter.parse(text)


def from_profile(profile: Profile, folder: Path | None = None) -> Draft:
    """A draft that says what `profile` says."""
    values = profile.values()
    texts = {p.key: text_of(p, values[p.key]) for p in editable()}
    return Draft(
        texts={k: t for k, t in texts.items() if t != default_text(k)},
        space={find(n).key: space_text(e) for n, e in profile.search.space.items()},
        loaded={p.key: values[p.key] for p in editable()},
        tuned=profile.tuned,
        folder=folder,
    )


def open_file(path: Path) -> tuple[Draft, list[str]]:
    """A draft of the profile in `path`, and what had to be left out of it (unknown keys, one of two that differ).

    A profile with mistakes in it opens all the same, so that they can be put right.

    Raises:
        ProfileError: the file cannot be read, is no TOML, or is a recipe.
    """
    folder = path.resolve().parent
    if is_recipe(path):
        raise ProfileError(str(path), [Problem("", steps_told(path))])
    try:
        return from_profile(load(path), folder), []
    except ProfileError as error:
        if all(not problem.key for problem in error.problems):
            raise
        problems = error.problems
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    spelled = spell(document)
    twice = {problem.key for problem in spelled.problems}
    left_out = ("is not known", "is not a table of a profile")
    unknown = [str(p) for p in problems if p.wrong in left_out or p.key in twice]
    return replace(_from_document(spelled.document), folder=folder), unknown


def _from_document(document: Mapping[str, Any]) -> Draft:
    draft = Draft()
    for parameter in editable():
        table = document.get(parameter.table)
        if isinstance(table, Mapping) and parameter.name in table:
            draft = draft.with_text(parameter.key, text_of(parameter, table[parameter.name]))
    search = document.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    for name, entry in space.items() if isinstance(space, Mapping) else ():
        try:
            key = find(name).key
        except UnknownParameterError:
            continue
        draft = draft.with_space(key, _raw_space_text(entry))
    return draft


def with_proposal(draft: Draft, space: Mapping[str, Any], search: Mapping[str, Any]) -> Draft:
    """The draft with other entries of its search space, as a profile's file has them, and other values of [search].

    Raises:
        UnknownParameterError: a name is of no parameter.
    """
    for name, entry in space.items():
        draft = draft.with_space(find(name).key, _raw_space_text(entry))
    for name, value in search.items():
        parameter = find(f"search.{name}")
        draft = draft.with_text(parameter.key, text_of(parameter, value))
    return draft


def _raw_space_text(entry: Any) -> str:
    if isinstance(entry, Mapping):
        try:
            return space_text(Range.model_validate(dict(entry)))
        except ValueError:
            return toml_value(entry)
    return space_text(entry) if isinstance(entry, list) else toml_value(entry)


@dataclass(frozen=True)
class Review:
    """What a draft means: values by full key (the default where a text means none), entries, problems by row."""

    values: Mapping[str, Any]
    entries: Mapping[str, Entry]
    problems: Mapping[str, Problem]
    """By the full key of the parameter on whose line it is shown, in the order of the form."""
    profile: Profile | None
    """The profile, when there is no problem."""

    def applies(self, parameter: Parameter) -> bool:
        """Whether the parameter has an effect, or may have one in some trial."""
        if parameter.applies(self.values):
            return True
        searched = [w for w in parameter.doc.when if w.key in self.entries]
        for when in searched:
            entry = self.entries[when.key]
            if isinstance(entry, list) and any(value in when.values for value in entry):
                return True
        return False


def review(draft: Draft) -> Review:
    """Check everything that a draft says, each field and all of them together."""
    values: dict[str, Any] = {}
    found: dict[str, Problem] = {}
    document: dict[str, dict[str, Any]] = {}
    for parameter in editable():
        key = parameter.key
        try:
            value = draft.value(parameter)
        except ValueError as error:
            found[key] = Problem(key, *_split(str(error)))
            value = _PLACEHOLDER if parameter.required else parameter.default
        values[key] = value
        if value is not None:
            document.setdefault(parameter.table, {})[parameter.name] = value
    entries: dict[str, Entry] = {}
    for key, text in draft.space.items():
        try:
            entries[key] = parse_space(find(key), text)
        except ValueError as error:
            found[key] = Problem(f"{SPACE}.{find(key).name}", *_split(str(error)))
    document["search"]["space"] = {find(k).name: _plain(e) for k, e in entries.items()}
    if draft.tuned is not None:
        document["tuned"] = draft.tuned.model_dump(exclude_none=True)
    profile = None
    try:
        profile = from_document(document, folder=draft.folder or Path.cwd())
    except ProfileError as error:
        for problem in error.problems:
            found.setdefault(_row_of(problem.key), problem)
    order = {p.key: i for i, p in enumerate(parameters())}
    ordered = dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))
    return Review(values, entries, ordered, None if found else profile)


def _plain(entry: Entry) -> Any:
    return entry.model_dump(exclude_none=True) if isinstance(entry, Range) else entry


def _split(message: str) -> tuple[str, str]:
    """What is wrong and what would be right, of a message that says both."""
    wrong, _, right = message.partition(": ")
    return wrong, right


def _row_of(key: str) -> str:
    """The line on which a problem is shown: that of the parameter which is searched, for an entry of the space."""
    name = key.removeprefix(f"{SPACE}.")
    try:
        return find(name).key if name != key else key
    except UnknownParameterError:
        return SPACE


@dataclass(frozen=True)
class History:
    """The present draft, with those before it and those that an undo took back."""

    present: Draft
    past: tuple[Draft, ...] = ()
    future: tuple[Draft, ...] = ()

    def then(self, draft: Draft) -> "History":
        """Go on with `draft`; undo comes back to the present one."""
        if draft == self.present:
            return self
        return History(draft, (*self.past, self.present)[-200:], ())

    def undo(self) -> "History":
        """The draft before the last change; the same history where there is none."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future))

    def redo(self) -> "History":
        """Take the last undo back."""
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:])


def changed_key(one: Draft, other: Draft) -> str | None:
    """The first parameter that two drafts do not agree on."""
    for parameter in editable():
        key = parameter.key
        if one.text(key) != other.text(key) or one.space.get(key) != other.space.get(key):
            return key
    return None
