"""The lines of the Configure form: groups and fields, and which of them are shown. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.catalogue import Parameter, parameters
from core.params import TABLES, When
from core.problems import Problem
from core.values import toml_value
from tui.draft import SPACE, Draft, Review, text_of
from tui.rates import RATE, usual_rates

TITLES: Mapping[str, str] = {
    "profile": "Profile",
    "model": "Model",
    "method": "Method",
    "alignment": "Alignment",
    "data": "Data",
    "train": "Training",
    "generation": "Generation",
    "memory": "Memory",
    "resources": "Resources",
    "search": "Search",
    "tuned": "Tuned",
}
"""The groups of the form."""


@dataclass(frozen=True, slots=True)
class Group:
    """A heading of the form."""

    key: str
    title: str
    note: str


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter's line."""

    key: str
    title: str
    value: str
    """What the line shows: the text, or the entry of the search space."""
    hint: str
    """A problem, why it has no effect, or what works."""
    changed: bool
    applies: bool
    searched: bool
    wrong: bool


Line = Group | Field


@dataclass(frozen=True, slots=True)
class Shown:
    """Which lines are wanted."""

    advanced: bool = False
    without_effect: bool = False
    query: str = ""
    keep: str = ""
    """A field that stays whatever else is wanted: the one that is being changed."""


def lines(
    draft: Draft, review: Review, problems: Mapping[str, Problem], shown: Shown
) -> list[Line]:
    """The lines of the form, each group that has any under its heading."""
    listed: list[Line] = []
    for table, model in TABLES.items():
        if table == "tuned" and draft.tuned is None:
            continue
        fields = [
            field(p, draft, review, problems)
            for p in parameters()
            if p.table == table and _wanted(p, draft, review, problems, shown)
        ]
        if fields:
            note = (model.__doc__ or "").strip().rstrip(".")
            listed += [Group(table, TITLES[table], note), *fields]
    return listed


def _wanted(
    parameter: Parameter,
    draft: Draft,
    review: Review,
    problems: Mapping[str, Problem],
    shown: Shown,
) -> bool:
    """A search looks everywhere; what was changed by a person or is wrong is never hidden."""
    if shown.query:
        return matches(parameter, shown.query) or parameter.key == shown.keep
    key = parameter.key
    if key in problems or key in draft.space or key == shown.keep:
        return True
    if not shown.without_effect and not review.applies(parameter):
        return False
    return shown.advanced or not parameter.doc.advanced or not draft.is_default(key)


def matches(parameter: Parameter, query: str) -> bool:
    """Whether each word of the query is in the parameter's title, name or explanation."""
    doc = parameter.doc
    text = f"{doc.title} {parameter.key} {doc.llamafactory or ''} {parameter.help}".lower()
    return all(word in text for word in query.lower().split())


def field(
    parameter: Parameter, draft: Draft, review: Review, problems: Mapping[str, Problem]
) -> Field:
    """A parameter's line."""
    key = parameter.key
    applies = review.applies(parameter)
    problem = problems.get(key)
    if problem:
        hint = problem.wrong
    elif not applies:
        hint = needs(parameter.doc.when, review)
    else:
        hint = works(parameter, review) or _bounds(parameter)
    return Field(
        key=key,
        title=parameter.doc.title,
        value=shown_value(parameter, draft),
        hint=hint,
        changed=not draft.is_default(key) if parameter.table != "tuned" else False,
        applies=applies,
        searched=key in draft.space,
        wrong=problem is not None,
    )


def shown_value(parameter: Parameter, draft: Draft) -> str:
    """What stands in the value's column."""
    key = parameter.key
    if parameter.table == "tuned":
        return text_of(parameter, getattr(draft.tuned, parameter.name, None))
    if key == SPACE:
        names = [k.rpartition(".")[2] for k in draft.space]
        return ", ".join(names) if names else "nothing yet: x on a parameter"
    return draft.space.get(key, draft.text(key))


def works(parameter: Parameter, review: Review) -> str:
    """What usually works; for the learning rate with the draft's stage and method."""
    return (
        usual_rates(review.values).words() if parameter.key == RATE else parameter.doc.works or ""
    )


def needs(when: Sequence[When], review: Review) -> str:
    """Why a parameter has no effect now."""
    for condition in when:
        value = review.values.get(condition.key)
        if value not in condition.values:
            name = condition.key.rpartition(".")[2]
            values = " or ".join(
                str(v) if isinstance(v, str) else toml_value(v) for v in condition.values
            )
            return f"only with {name} = {values}"
    return "has no effect now"


def _bounds(parameter: Parameter) -> str:
    return parameter.allowed() if parameter.kind in ("int", "float") else ""
