"""What the study's doctor says, as the Results screen shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tui import words

if TYPE_CHECKING:
    from core.diagnosis.study import Examination, TrialFacts
    from core.search.edges import Edge

RATE = "learning_rate"


@dataclass(frozen=True, slots=True)
class Weight:
    """How much of the trials' order a parameter explains by itself, 0 … 1; None where that is not known."""

    name: str
    share: float | None
    clear: bool
    """Whether it is more than chance gives."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The study as a whole, in words and numbers."""

    importances: tuple[Weight, ...] = ()
    """The largest first."""
    unknown: str = ""
    """Why there are none."""
    safe_rate: float | None = None
    """The highest learning rate that keeps its distance from what diverged; None where that cannot be told."""
    diverged_rate: float | None = None
    """The lowest learning rate that diverged."""
    edge: str = ""
    """In a few words, that the best lies at an edge of the space; "" where it does not."""
    warnings: tuple[str, ...] = ()
    """The same of every such edge, in sentences with their numbers."""
    advice: tuple[str, ...] = ()
    """What else it says: the safe rates, what to try next, what could not be told."""


NOTHING = Findings(unknown="not known yet: no trial has come to a value")


def examined(
    facts: Sequence[TrialFacts],
    space: Mapping[str, Any],
    metric: str,
    direction: Literal["min", "max"],
) -> Findings:
    """What the doctor says of these trials, which are all of the search that have come to a value or ended."""
    # Only who looks at the results pays for them.
    from core.doctor import examine
    from core.search.metric import find

    if not facts:
        return NOTHING
    said = examine(facts, space, find(metric, direction))
    known = [Weight(i.name, i.share, i.clear) for i in said.importances]
    lost = [
        float(f.settings[RATE])
        for f in facts
        if f.status == "diverged" and isinstance(f.settings.get(RATE), int | float)
    ]
    return Findings(
        importances=tuple(known) if any(w.share is not None for w in known) else (),
        unknown=_unknown(space),
        safe_rate=said.band.high if said.band is not None else None,
        diverged_rate=said.band.diverged if said.band is not None else min(lost, default=None),
        edge=edge_text(said.edges[0]) if said.edges else "",
        warnings=tuple(_sentence(edge.text) for edge in said.edges),
        advice=_advice(said),
    )


def _advice(said: Examination) -> tuple[str, ...]:
    warned = {_sentence(edge.text) for edge in said.edges}
    texts = [said.band.text] if said.band is not None else []
    texts += [step.text for step in said.next_steps if step.text not in warned]
    return (*texts, *said.remarks)


def edge_text(edge: Edge) -> str:
    """`the best has the highest learning rate tried, 3e-4: widen to 1e-3?`"""
    where = "highest" if edge.side == "high" else "lowest"
    name = edge.name.replace("_", " ")
    value, beyond = words.setting(edge.value), words.setting(edge.widen_to)
    return f"the best has the {where} {name} tried, {value}: widen to {beyond}?"


def _unknown(space: Mapping[str, Any]) -> str:
    if not space:
        return "no parameter was searched"
    return "not known: too few trials differ enough to tell what matters"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
