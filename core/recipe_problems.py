"""What is wrong with a recipe's file before its steps can be made, and in which line of it something stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from core.catalogue import nearest
from core.params import TABLES
from core.problems import Problem, did_you_mean, line_of

BASE = "base"
"""What `from` says of a step that starts from the profile's own model."""
STEP_KEYS = ("name", "notes", "from")
"""A step's own keys; all others are tables of a profile."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_NO_STEP_TABLES = ("profile", "tuned", "recipe", "step")


def structure_problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong before any step's profile can be made."""
    steps = document.get("step")
    if not isinstance(steps, list) or not steps or not all(isinstance(s, Mapping) for s in steps):
        yield Problem("step", "a recipe has one table [[step]] for each step", "write [[step]]")
        return
    settings = document.get("recipe", {})
    if not isinstance(settings, Mapping):
        yield Problem("recipe", "must be a table", "write [recipe] above its keys")
    else:
        yield from _settings_problems(settings)
    yield from (
        Problem("tuned", "does not belong into a recipe: it tells how one run was found")
        for name in document
        if name == "tuned"
    )
    named: set[str] = set()
    for number, step in enumerate(steps, 1):
        yield from _step_problems(number, step, named)


def _settings_problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in settings.items():
        if key != "keep_models":
            close = nearest(key, ("keep_models",))
            yield Problem(
                f"recipe.{key}",
                "is not known",
                did_you_mean(close) or "there is keep_models",
            )
        elif not isinstance(value, bool):
            yield Problem("recipe.keep_models", f"{value!r} is not allowed", "true or false")


def _step_problems(number: int, step: Mapping[str, Any], named: set[str]) -> Iterator[Problem]:
    name = step.get("name")
    if name is None:
        yield Problem(f"step {number}", "has no name", 'as name = "general"')
        return
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield Problem(
            f"step {number}",
            f"{name!r} is no name of a step",
            "at most 40 letters, digits, - and _, the first a letter or digit",
        )
        return
    if name == BASE:
        yield Problem(
            f"step {number}",
            f'cannot be named "{BASE}"',
            'from = "base" means the profile\'s model',
        )
    elif name.lower() in named:
        yield Problem(f"step.{name}", f"there are two steps named {name}", "give one another name")
    named.add(name.lower())
    for key in STEP_KEYS[1:]:
        if not isinstance(step.get(key, ""), str):
            yield Problem(f"step.{name}.{key}", f"{step[key]!r} is not allowed", "a text")
    for key, value in step.items():
        if key in STEP_KEYS:
            continue
        if key in _NO_STEP_TABLES:
            yield Problem(f"step.{name}.{key}", "belongs to the whole recipe, not to one step")
        elif key not in TABLES:
            yield Problem(f"step.{name}.{key}", "is not known", _belongs(key, value))


def _belongs(key: str, value: Any) -> str:
    """Where a person may have meant to write `key`, which a step does not have."""
    close = nearest(key, (*STEP_KEYS, *(t for t in TABLES if t not in _NO_STEP_TABLES)))
    if isinstance(value, Mapping) or close:
        return did_you_mean(close)
    tables = [t for t, model in TABLES.items() if key in model.model_fields]
    return f"write it below [step.{tables[0]}]" if tables else ""


def with_line(problem: Problem, text: str, document: Mapping[str, Any]) -> Problem:
    """The problem with its line in the recipe's text, where it can be found."""
    steps = document.get("step")
    names = (
        [s.get("name") for s in steps if isinstance(s, Mapping)] if isinstance(steps, list) else []
    )
    if problem.key.startswith("step "):
        return replace(problem, line=_step_line(text, int(problem.key.split()[1]), ""))
    if not problem.key.startswith("step."):
        return replace(problem, line=line_of(text, problem.key))
    _, name, *path = problem.key.split(".")
    number = next((n for n, each in reversed(list(enumerate(names, 1))) if each == name), 0)
    return replace(problem, line=_step_line(text, number, ".".join(path)))


def _step_line(text: str, number: int, key: str) -> int | None:
    """The line of `key` in the step of this number: else of the key among the shared ones, else of [[step]]."""
    lines = text.splitlines()
    heads = [n for n, line in enumerate(lines) if re.match(r"\s*\[\[\s*step\s*\]\]", line)]
    if not 0 < number <= len(heads):
        return None
    first = heads[number - 1]
    last = heads[number] if number < len(heads) else len(lines)
    # As the text of a profile of its own: `[step.train]` is its `[train]`.
    own = [re.sub(r"^(\s*\[\s*)step\.", r"\1", line) for line in lines[first + 1 : last]]
    if key in STEP_KEYS:
        inside = (n for n, line in enumerate(own) if re.match(rf"\s*{key}\s*=", line))
        found = next(inside, None)
        return first + 1 if found is None else first + 2 + found
    found = line_of("\n".join(own), key) if key else None
    if found is not None:
        return first + 1 + found
    dotted = (n for n, line in enumerate(own) if re.match(rf"\s*{re.escape(key)}\s*=", line))
    found = next(dotted, None) if key else None
    if found is not None:
        return first + 2 + found
    shared = line_of("\n".join(lines[: heads[0]]), key) if key else None
    return shared if shared is not None else first + 1
