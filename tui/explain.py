"""What is said about a parameter beside the form. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.catalogue import Parameter
from core.problems import Problem
from tui.draft import SPACE, Draft, Review, default_text
from tui.form import needs, works
from tui.space_text import how_to


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one parameter, in the order in which it matters."""

    title: str
    key: str
    problem: str
    note: str
    """How to write what is being typed, or empty."""
    help: str
    facts: tuple[tuple[str, str], ...]
    """(label, text): what works, what is allowed, the default, the name elsewhere."""


def explain(
    parameter: Parameter,
    draft: Draft,
    review: Review,
    problems: Mapping[str, Problem],
    *,
    searching: bool = False,
) -> Explanation:
    """The explanation of `parameter` as the draft stands; `searching`: while its search is being typed."""
    problem = problems.get(parameter.key)
    facts: list[tuple[str, str]] = []
    if parameter.table != "tuned":
        if usual := works(parameter, review):
            facts.append(("Works", usual))
        if not review.applies(parameter):
            facts.append(("Now", needs(parameter.doc.when, review)))
        if parameter.key in draft.space:
            facts.append(("Searched", draft.space[parameter.key]))
        if parameter.key != SPACE:
            facts.append(("Takes", parameter.allowed()))
            default = default_text(parameter.key) or ("none" if parameter.required else "not set")
            facts.append(("Default", default))
    if parameter.doc.llamafactory:
        facts.append(("LLaMA-Factory", parameter.doc.llamafactory))
    return Explanation(
        title=parameter.doc.title,
        key=parameter.key,
        problem=problem_text(problem) if problem else "",
        note=how_to(parameter) if searching else "",
        help=parameter.help,
        facts=tuple(facts),
    )


def problem_text(problem: Problem) -> str:
    """What is wrong and what would be right, without the key."""
    return f"{problem.wrong}: {problem.right}" if problem.right else problem.wrong


def as_text(explanation: Explanation) -> str:
    """The whole explanation as lines of plain text."""
    parts = [explanation.problem, explanation.help] if explanation.problem else [explanation.help]
    facts = "\n".join(f"{label}: {text}" for label, text in explanation.facts)
    return "\n\n".join([explanation.key, *parts, facts])
