"""The search as articles about LLaMA-Factory write it, said in a profile's own words.

`learning_rate_list = [1e-4, 3e-4]` means `search.space.learning_rate`, and so for every parameter that can be searched,
in [search], [search.space] or any table that holds such parameters; `search_algorithm` means `search.strategy`,
`max_search_trials` means `search.trials`, and `do_search = false` that nothing is searched. (No released LLaMA-Factory
reads any of them, but people have such files.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.catalogue import UnknownParameterError, find
from core.params import SEARCHABLE_TABLES, TABLES
from core.problems import Problem
from core.values import toml_value

SUFFIX = "_list"

RENAMED = {"search_algorithm": "strategy", "max_search_trials": "trials"}
"""Keys of [search] that have another name here."""

ALGORITHMS = {"bayes": "bayesian", "tpe": "bayesian", "optuna": "bayesian", "grid_search": "grid"}
"""Other names for strategies."""


@dataclass(slots=True)
class Spelled:
    """A profile's document in its own words."""

    document: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    """Where a key was written otherwise: `table.key` → the `table.key` in the document as it was given."""

    def at_written(self, problem: Problem) -> Problem:
        """A problem of the document, told of the key that a person wrote."""
        return replace(problem, key=self.written.get(problem.key, problem.key))


def spell(document: Mapping[str, Any]) -> Spelled:
    """The document without article keys, what contradicts itself in them, and where its keys were written.

    What is no article key stays as it is, right or wrong. The document given is not changed.
    """
    spelled = Spelled(dict(document))
    for table in ("search", *SEARCHABLE_TABLES):
        content = document.get(table)
        if not isinstance(content, Mapping):
            continue
        for key, value in content.items():
            name = _searched(table, key)
            if name is not None:
                _move(spelled, (table, key), ("search.space", name), value)
            elif table == "search" and key in RENAMED:
                value = ALGORITHMS.get(value, value) if isinstance(value, str) else value
                _move(spelled, (table, key), (table, RENAMED[key]), value)
    space = _table(document, "search.space")
    for key, value in space.items():
        name = _searched("search.space", key)
        if name is not None:
            _move(spelled, ("search.space", key), ("search.space", name), value)
    _switch(spelled)
    return spelled


def _searched(table: str, key: str) -> str | None:
    """The parameter that `key` lists values of, or None where it is no such key."""
    name = key.rpartition(".")[2]
    if not name.endswith(SUFFIX) or (table in TABLES and key in TABLES[table].model_fields):
        return None
    try:
        parameter = find(key.removesuffix(SUFFIX))
    except UnknownParameterError:
        return None
    return parameter.name if parameter.searchable else None


def _move(spelled: Spelled, source: tuple[str, str], target: tuple[str, str], value: Any) -> None:
    """Take a key out of its table and say it where it belongs; tell where that says something else already."""
    _writable(spelled.document, source[0]).pop(source[1], None)
    table = _writable(spelled.document, target[0])
    before, after = ".".join(source), ".".join(target)
    there = next((k for k in table if k.rpartition(".")[2] == target[1]), None)
    if there is None:
        table[target[1]] = value
        spelled.written[after] = before
    elif table[there] != value:
        other = spelled.written.get(after, f"{target[0]}.{there}")
        spelled.problems.append(
            Problem(
                before,
                f"{toml_value(value)} contradicts {other} = {toml_value(table[there])}",
                "leave one of them out",
            )
        )


def _switch(spelled: Spelled) -> None:
    """`do_search`: true asks for a space, false leaves it out."""
    search = spelled.document.get("search")
    if not isinstance(search, Mapping) or "do_search" not in search:
        return
    wanted = _writable(spelled.document, "search").pop("do_search")
    if not isinstance(wanted, bool):
        spelled.problems.append(
            Problem("search.do_search", f"{toml_value(wanted)} is not allowed", "true or false")
        )
    elif wanted and not _table(spelled.document, "search.space"):
        spelled.problems.append(
            Problem(
                "search.do_search",
                "is true, and nothing is searched",
                'say what, as [search.space] learning_rate = { low = 1e-5, high = 1e-3, scale = "log" }',
            )
        )
    elif not wanted:
        _writable(spelled.document, "search").pop("space", None)


def _table(document: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    content: Any = document
    for part in path.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _writable(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The table at `path`, copied so that it can be changed; made where it is missing."""
    table = document
    for part in path.split("."):
        content = table.get(part, {})
        # What is no table is told of by the check that follows; here it only must not be lost.
        table[part] = dict(content) if isinstance(content, Mapping) else content
        if not isinstance(content, Mapping):
            return {}
        table = table[part]
    return table
