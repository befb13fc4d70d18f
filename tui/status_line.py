"""The line on top of the Trials screen that says how the study stands, and the banner under it."""

from rich.cells import cell_len
from rich.style import Style

from tui import theme, words
from tui.rung_text import decision_text
from tui.snapshot import StudyView
from tui.widgets.gauge import bar
from tui.widgets.lines import Piece

_BAR = 12
_METRICS = {"eval_loss": "eval", "loss_fall": "loss fall"}


def study_line(view: StudyView, width: int, *, ascii: bool) -> list[Piece]:
    """State, progress, best value and time left; what does not fit is left out from the end."""
    look = words.STUDY_LOOKS.get(view.status, words.STUDY_LOOKS[""])
    muted, text = theme.style("muted"), theme.style("text")
    groups: list[list[Piece]] = [
        [(f" {look.text(ascii=ascii)}", theme.style(look.colour, bold=True))]
    ]
    if view.reading.recipe is not None:
        groups.append([(view.reading.recipe.short, text)])
    share = view.done / view.planned if view.planned else None
    done: list[Piece] = [(f"{view.done}/{view.planned}", text), (" done", muted)]
    if share is not None and width >= 72:
        shaded = theme.style("primary") + Style(bgcolor=theme.BAR_BACKGROUND)
        done = [(bar(share, _BAR, ascii), shaded), (" ", text), *done]
    groups.append(done)
    if view.live:
        groups.append([(f"{view.live}", text), (" live", muted)])
    waiting = sum(t.status == "rung" for t in view.reading.trials)
    if waiting:
        groups.append([(f"{waiting}", text), (" at a rung", muted)])
    if view.best is not None:
        first = next((r for r in view.ranked if r.trial == view.best.number), None)
        value = words.loss(first.value if first is not None else view.best.value)
        runs = f", mean of {first.runs}" if first is not None and first.runs > 1 else ""
        name = _METRICS.get(view.reading.rank_by, view.reading.rank_by)
        groups.append(
            [
                (f"best {name} ", muted),
                (value, theme.style("success", bold=True)),
                (f" (trial {view.best.number}{runs})", muted),
            ]
        )
    if view.eta is not None:
        groups.append([(words.remaining(view.eta), text), (" left", muted)])
    pieces: list[Piece] = []
    used = 0
    for group in groups:
        cells = sum(cell_len(t) for t, _ in group) + (3 if pieces else 0)
        if used + cells > width:
            break
        if pieces:
            pieces.append(("   ", muted))
        pieces += group
        used += cells
    return pieces


def banner(view: StudyView, *, ascii: bool) -> list[Piece]:
    """What a person must know or do before anything goes on; empty where there is nothing."""
    reading = view.reading
    sign, colour = " ! ", theme.style("warning", bold=True)
    if reading.problem:
        return [(sign, colour), (reading.problem, theme.style("error"))]
    if reading.engine == "missing":
        unfinished = sum(1 for row in view.rows if not row.trial.ended)
        what = f"The engine is not running, and {words.plural(unfinished, 'trial')} did not end:  "
        key = theme.style("primary", bold=True)
        return [
            (sign, colour),
            (what, theme.style("text")),
            ("e", key),
            (" starts it", theme.style("text")),
        ]
    if reading.recipe is not None and reading.recipe.after:
        waits, text = reading.recipe.waits, reading.recipe.after
        return [
            (sign if waits else " ", colour),
            (text, theme.style("text" if waits else "secondary")),
        ]
    if any(t.kind == "range" for t in reading.trials):
        key = theme.style("primary", bold=True)
        said = " shows the loss over the rates, and takes a range over"
        return [(" Enter", key), (said, theme.style("text"))]
    if reading.status == "finished" and view.best is None and reading.reason:
        return [(sign, colour), (reading.reason, theme.style("text"))]
    if reading.status == "finished" and view.best is not None:
        key = theme.style("primary", bold=True)
        return [
            (" 5", key),
            (" shows the ranking and saves a winner as a profile", theme.style("text")),
        ]
    if reading.reason and reading.status in ("paused", "stopped"):
        return [(sign, colour), (f"{reading.status}: {reading.reason}", theme.style("text"))]
    if reading.decisions and reading.status == "running":
        text = decision_text(reading.decisions[-1])
        return [(f" {text}", theme.style("secondary"))]
    return []
