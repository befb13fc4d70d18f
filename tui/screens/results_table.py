"""The ranking as rows of a table, and how the search came out in two or three lines. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from tui import theme, words
from tui.ascii_text import ascii_text
from tui.theme import COLOURS
from tui.widgets.lines import Piece
from tui.widgets.trial_table import Cell, Column, LateCells, Row

if TYPE_CHECKING:
    from core.study.state import TrialStatus
    from tui.outcome import Cost, Outcome, Standing
    from tui.snapshot import StudyView, TrialRow

_CROWDED = 26
"""The least room for the settings where more than two parameters were searched."""
_OUTCOME = Column("outcome", "outcome", width=17, priority=93)
COLUMNS = (
    Column("place", "place", width=6, align="right", priority=100),
    Column("trial", "trial", width=5, align="right", priority=95),
    Column("value", "value", width=9, align="right", priority=98),
    Column("gap", "to best", width=9, align="right", priority=90),
    Column("settings", "settings", min_width=16, max_width=70, priority=92),
    Column("seconds", "took", width=8, align="right", priority=50),
    Column("memory", "memory", width=8, align="right", priority=60),
)
_GONE: tuple[TrialStatus, ...] = (
    "pruned", "diverged", "oom", "failed", "lost", "skipped", "stopped",
)  # fmt: skip


def columns(found: Outcome) -> tuple[Column, ...]:
    """The table's columns: how trials came out only where not all of them simply completed; many settings need room."""
    told = any(s.kind != "placed" or s.runs > 1 for s in found.standings)
    wide = replace(COLUMNS[4], min_width=_CROWDED if len(found.dimensions) > 2 else 16)
    value = replace(COLUMNS[2], title=words.metric_column(found.metric))
    return (*COLUMNS[:2], value, COLUMNS[3], *((_OUTCOME,) if told else ()), wide, *COLUMNS[5:])


def ranked_row(standing: Standing, view: StudyView, *, ascii: bool) -> Row:
    """A trial's standing as a row of the table."""
    row = view.by_number[standing.trial]
    return Row(str(standing.trial), LateCells(lambda: _cells(standing, row, ascii=ascii)))


def _cells(standing: Standing, row: TrialRow, *, ascii: bool) -> dict[str, Cell]:
    look = words.LOOKS[standing.status]
    best = standing.place == 1
    style = f"bold {COLOURS['success']}" if best else ""
    if standing.place is None:
        sign = look.ascii_glyph if ascii else look.glyph
        place = Text(f"{sign} ", style=COLOURS[look.colour])
    else:
        place = Text(f"{standing.place}{'=' if standing.tied else ' '}", style=style)
    faint = COLOURS["muted"] if standing.kind == "dropped" else style
    gap = "" if standing.gap is None else f"{standing.gap:+.4f}"
    return {
        "place": place,
        "trial": Text(str(standing.trial), style=style),
        "value": Text(words.loss(standing.value), style=faint),
        "gap": Text(gap, style=COLOURS["muted"]),
        "outcome": _came_out(standing, ascii=ascii),
        "settings": Text(words.settings_line(row.trial.changes)),
        "seconds": words.duration(row.trial.seconds or None),
        "memory": words.size(row.peak_memory),
    }


def _came_out(standing: Standing, *, ascii: bool) -> Text:
    look = words.LOOKS[standing.status]
    if standing.kind == "out" and standing.status == "completed":
        return Text(standing.reason, style=COLOURS["warning"])
    if standing.kind == "placed":
        return Text(confirmed(standing, ascii=ascii), style=COLOURS["secondary"])
    if standing.kind == "dropped" and standing.share:
        return Text(f"dropped at {words.percent(standing.share)}", style=COLOURS[look.colour])
    return Text(look.word, style=COLOURS[look.colour])


def confirmed(standing: Standing, *, ascii: bool) -> str:
    """`±0.0031, 3 seeds`; "" for a single run."""
    if standing.spread is None:
        return ""
    sign = "+-" if ascii else "±"
    return f"{sign}{words.loss(standing.spread)}, {standing.runs} seeds"


def verdict(view: StudyView, found: Outcome, *, ascii: bool) -> list[list[Piece]]:
    """How the search came out: the best, what it took and, where there is one, what to be wary of."""
    muted = theme.style("muted")
    best = found.best
    first: list[Piece] = [(_nothing(view, found), muted)]
    if best is not None:
        first = _winner(view, found, best, ascii=ascii)
    lines = [first, [(" ", muted), *_price(found)]]
    wary = found.findings.edge if best is not None else _why(view)
    if wary:
        said = ascii_text(wary) if ascii else wary
        lines.append([(f" ! {said}", theme.style("warning"))])
    return lines


def _why(view: StudyView) -> str:
    """Why the study stands still or ended without a winner, as its engine says it."""
    ended = view.reading.status in ("finished", "paused")
    return view.reading.reason if ended else ""


def _nothing(view: StudyView, found: Outcome) -> str:
    kinds = {row.trial.kind for row in view.rows}
    if kinds == {"range"}:
        return " This is a learning-rate range test, no search: 3 shows it."
    if kinds == {"full"}:
        return " This is a training, no search: 3 shows it."
    waiting = to_go(view)
    if waiting or not found.standings:
        return f" No trial has completed yet; {words.plural(waiting, 'trial')} to go."
    if found.count("diverged") == len(found.standings):
        return " All trials diverged: there is no winner. Lower learning rates come next."
    return " No trial completed: there is no winner."


def to_go(view: StudyView) -> int:
    """How many trials of the search have not ended; 0 in a study that is over, whatever was planned."""
    if view.reading.status in ("finished", "stopped"):
        return 0
    besides = sum(1 for row in view.rows if row.trial.kind != "probe" and not row.trial.ended)
    return max(0, view.planned - view.done - besides)


def _winner(view: StudyView, found: Outcome, best: Standing, *, ascii: bool) -> list[Piece]:
    muted, text, lit = theme.style("muted"), theme.style("text"), theme.style("success", bold=True)
    row = view.by_number[best.trial]
    pieces: list[Piece] = [
        (" Best: ", muted),
        (f"trial {best.trial}", lit),
        (f", {words.metric(found.metric)} ", muted),
        (words.loss(best.value), lit),
    ]
    if sure := confirmed(best, ascii=ascii):
        pieces.append((f" {sure}", text))
    # What cannot be seen in the table comes before what can: a narrow terminal cuts the end off.
    if found.direction == "max":
        pieces.append((" (high is good)", muted))
    if ties := found.ties:
        again = "" if best.runs > 1 else ", one run each"
        pieces.append((f" ({words.plural(ties, 'other')} as good: tie{again})", muted))
    pieces.append((f", {words.settings_line(row.trial.changes)}", text))
    if left := to_go(view):
        pieces.append((f"   {left} to go", muted))
    return pieces


def _price(found: Outcome) -> list[Piece]:
    """What it took, what became of those that have no place, and what the price holds besides."""
    muted, text = theme.style("muted"), theme.style("secondary")
    cost = found.cost
    pieces: list[Piece] = [(took, text)] if (took := cost_text(cost)) else []
    counted = [(found.count(status), words.LOOKS[status].word) for status in _GONE]
    if any(count for count, _ in counted):
        told = ", ".join(f"{count} {word}" for count, word in counted if count)
        pieces.append((f"   {told}", muted))
    if cost.share is not None and cost.confirmations:
        again = words.plural(cost.confirmations, "confirmation")
        pieces.append((f"   {again} counted in", muted))
    return pieces


def cost_text(cost: Cost) -> str:
    """`Took 23 % of running all, 3h 10m of GPU`; "" before anything ran."""
    if cost.share is None:
        return ""
    time = f", {words.duration(cost.seconds)} of {'GPU' if cost.on_gpu else 'CPU'}"
    return f"Took {words.percent(cost.share)} of running all{time if cost.seconds else ''}"
