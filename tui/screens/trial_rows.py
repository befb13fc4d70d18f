"""Trials as rows of a table: which columns there are, and what stands in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from tui import words
from tui.snapshot import StudyView, TrialRow
from tui.theme import BAR_BACKGROUND, COLOURS
from tui.widgets.gauge import bar
from tui.widgets.trial_table import Cell, Column, LateCells, Row, Trend

MOST_SEARCHED = 6
VALUE = "value"
"""The key of the column of what the study ranks by."""
_VALUE_WIDTH = 10
_WITH_COLUMNS = ("loss", "eval_loss", "mem_peak")
"""What is in a column of its own, whatever the study ranks by."""
ROOMY = 92
"""The width of a table from which on progress is drawn as well as written."""


def columns(view: StudyView, width: int) -> list[Column]:
    """The columns of the table in `width` cells.

    Each searched parameter has its own where all fit; else one column holds them all.
    """
    digits = len(str(max(view.by_number, default=1)))
    return [
        Column("number", "#", width=max(4, digits + 2), align="right", priority=100),
        Column("state", "state", width=11, priority=96),
        *_searched(view, width),
        Column("progress", "done", width=13 if width >= ROOMY else 4, align="right", priority=85),
        Column("loss", "loss", width=7, align="right", priority=92),
        Column("eval_loss", "eval", width=7, align="right", priority=90),
        *_ranked_by(view),
        Column("trend", "trend", min_width=6, max_width=24, priority=60),
        Column("memory", "memory", width=8, align="right", priority=40),
        Column("eta", "left", width=7, align="right", priority=50),
    ]


def _ranked_by(view: StudyView) -> list[Column]:
    """The column of what the study ranks by, where no other column has it."""
    if view.reading.rank_by in _WITH_COLUMNS:
        return []
    title = words.metric_column(view.reading.rank_by)
    return [Column(VALUE, title, width=_VALUE_WIDTH, align="right", priority=94)]


def _searched(view: StudyView, width: int) -> list[Column]:
    keys = view.searched
    widths = {key: _width(view, key) for key in keys}
    taken = sum(column.least + 2 for column in _ranked_by(view))
    room = width - taken - (74 if width >= ROOMY else 62)
    if keys and len(keys) <= MOST_SEARCHED and sum(w + 2 for w in widths.values()) <= room:
        return [
            Column(key, words.title(key), width=widths[key], align="right", priority=80 - place)
            for place, key in enumerate(keys)
        ]
    return [Column("settings", "settings", min_width=10, max_width=60, priority=80)]


def _width(view: StudyView, key: str) -> int:
    values = {row.trial.changes.get(key) for row in view.rows[:200]}
    longest = max((len(words.setting(v)) for v in values), default=0)
    return min(14, max(5, len(words.title(key)), longest))


@dataclass(frozen=True, slots=True)
class RowLook:
    """What the cells of a trial depend on besides the trial."""

    searched: tuple[str, ...]
    rank_by: str
    best: bool
    """Whether it is the best of its study."""
    roomy: bool
    """Whether there is room for a bar."""
    ascii: bool


def trial_row(row: TrialRow, look: RowLook, *, marked: bool) -> Row:
    """A trial as a row of the table."""
    return Row(str(row.number), LateCells(lambda: _cells(row, look)), marked=marked)


def _cells(row: TrialRow, drawn: RowLook) -> dict[str, Cell]:
    trial = row.trial
    best, ascii = drawn.best, drawn.ascii
    cells: dict[str, Cell] = {
        "number": _number(row, best=best, ascii=ascii),
        "state": _state(row, ascii=ascii),
        "settings": Text(words.settings_line({k: trial.changes[k] for k in trial.settings})),
        "progress": _progress(row, drawn=drawn.roomy, ascii=ascii),
        "loss": _loss(row.loss, best=best and drawn.rank_by == "loss"),
        "eval_loss": _loss(row.eval_loss, best=best and drawn.rank_by == "eval_loss"),
        VALUE: _loss(row.value, best=best),
        "trend": Trend(row.curve.spark, COLOURS[_trend_colour(row)]) if row.curve else "",
        "memory": words.size(row.peak_memory),
        "eta": words.remaining(row.eta),
    }
    for key in drawn.searched:
        changed = key in trial.overrides
        text = words.setting(trial.changes.get(key))
        cells[key] = Text(text, style=COLOURS["warning"] if changed else "")
    return cells


def _state(row: TrialRow, *, ascii: bool) -> Text:
    """The state; at a rung or dropped there, which one it was."""
    trial = row.trial
    look = words.STALLED if trial.stalled and trial.live else words.LOOKS[trial.status]
    text = look.text(ascii=ascii)
    if trial.rungs and trial.status == "rung":
        text = f"{look.ascii_glyph if ascii else look.glyph} at rung {len(trial.rungs)}"
    elif trial.rungs and trial.status == "pruned":
        text = f"{text} {len(trial.rungs)}"
    return Text(text, style=COLOURS[look.colour])


SIGNS = {"portfolio": "k", "confirm": "c"}
"""Behind the number of a trial that the search did not draw: known-good settings, a second run of a good trial."""


def _number(row: TrialRow, *, best: bool, ascii: bool) -> Text:
    if row.trial.kind in ("full", "range"):
        letter = "F" if row.trial.kind == "full" else "R"
        return Text(f"{row.number} {letter}", style=f"bold {COLOURS['accent']}")
    star = "*" if ascii else "★"
    if best:
        return Text(f"{row.number} {star}", style=f"bold {COLOURS['success']}")
    if row.trial.fixes:
        sign = words.LOOKS["oom"]
        return Text(f"{row.number} {sign.glyph}", style=COLOURS[sign.colour])
    sign_of_source = SIGNS.get(row.trial.source, " ")
    return Text(f"{row.number} {sign_of_source}", style=COLOURS["secondary"])


def _progress(row: TrialRow, *, drawn: bool, ascii: bool) -> Text:
    share = row.progress
    if share is None:
        return Text("")
    percent = f"{math.floor(share * 100)}%"
    if row.status == "completed":
        return Text(percent, style=COLOURS["muted"])
    if not row.trial.live or not drawn:
        return Text(percent)
    blocks = bar(share, 8, ascii)
    text = Text(f"{blocks} {percent:>4}")
    text.stylize(f"{COLOURS['primary']} on {BAR_BACKGROUND}", 0, len(blocks))
    return text


def _loss(value: float | None, *, best: bool) -> Text:
    text = words.loss(value)
    if value is not None and not math.isfinite(value):
        return Text(text, style=COLOURS["error"])
    return Text(text, style=f"bold {COLOURS['success']}" if best else "")


def _trend_colour(row: TrialRow) -> str:
    return (
        words.LOOKS[row.status].colour if row.status not in ("queued", "stopped") else "secondary"
    )


SORTS: tuple[str, ...] = ("number", "state", "eval_loss", "loss", "progress", "memory", "eta")


def sort_keys(view: StudyView) -> Sequence[str]:
    """What `s` goes through: the searched parameters come after the measures."""
    ranked = [column.key for column in _ranked_by(view)]
    return (*SORTS[:2], *ranked, *SORTS[2:], *view.searched)
