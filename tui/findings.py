"""What the study's doctor says, as the Results screen shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from core.search.edges import numeric
from tui import words

if TYPE_CHECKING:
    from core.diagnosis.study import Examination, NextStep
    from core.search.edges import Edge
    from core.study.state import Trial

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
    steps: tuple[NextStep, ...] = ()
    """What it proposes to search next, as far as a profile can say it; the most useful first."""


NOTHING = Findings(unknown="not known yet: no trial has come to a value")


def examined(
    trials: Sequence[Trial],
    space: Mapping[str, Any],
    metric: str,
    direction: Literal["min", "max"],
    profile: Mapping[str, Any],
) -> Findings:
    """What the doctor says of these trials, which are all of the study: the same as `tunedeck doctor`."""
    probes = [t for t in trials if t.kind == "probe"]
    if not any(t.ended or t.rungs for t in probes):
        return NOTHING
    # Only who looks at the results pays for it.
    from core.engine.judgement import examination

    said = examination(probes, space, metric, direction, profile)
    known = [Weight(i.name, i.share, i.clear) for i in said.importances]
    rates = (t.changes.get(RATE, profile.get(RATE)) for t in probes if t.status == "diverged")
    lost = [rate for value in rates if (rate := numeric(value)) is not None]
    return Findings(
        importances=tuple(known) if any(w.share is not None for w in known) else (),
        unknown=_unknown(space),
        safe_rate=said.band.high if said.band is not None else None,
        diverged_rate=said.band.diverged if said.band is not None else min(lost, default=None),
        edge=edge_text(said.edges[0]) if said.edges else "",
        warnings=tuple(_sentence(edge.text) for edge in said.edges),
        advice=_advice(said),
        steps=tuple(step for step in said.next_steps if step.space or step.search),
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
