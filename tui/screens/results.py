"""What the study found: the trials in order, the best one against the field, and its profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical

from tui import theme, words
from tui.actions import Context
from tui.keymap import bindings
from tui.screens.base import DeckScreen
from tui.source import Wanted, shell_path
from tui.theme import COLOURS
from tui.widgets.bars import Heading, Pieces
from tui.widgets.lines import Piece
from tui.widgets.loss_chart import ChartSeries, LossChart
from tui.widgets.trial_table import Cell, Column, LateCells, LiveTable, Row

if TYPE_CHECKING:
    from core.search.ranking import Ranked
    from tui.snapshot import StudyView, TrialRow

_TWO_SIDES = 140
FIELD = 8
"""How many curves stand behind the best one: more would be a blot."""
COLUMNS = (
    Column("place", "place", width=6, align="right", priority=100),
    Column("trial", "trial", width=5, align="right", priority=95),
    Column("value", "value", width=9, align="right", priority=98),
    Column("gap", "to best", width=9, align="right", priority=90),
    Column("settings", "settings", min_width=16, max_width=70, priority=92),
    Column("seconds", "took", width=8, align="right", priority=50),
    Column("memory", "memory", width=8, align="right", priority=60),
)


class ResultsScreen(DeckScreen):
    """The ranking, and what to do with it."""

    TITLE_NAME = "results"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("results",)
    BINDINGS: ClassVar[list[BindingType]] = bindings("results")

    def __init__(self) -> None:
        super().__init__()
        self._view: StudyView | None = None
        self._rows_of: object = None
        self._drawn: object = None

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="verdict")
        with Container(id="split"):
            yield LiveTable(COLUMNS, empty_text="no study is open", ascii=self.ascii)
            with Vertical(id="field"):
                yield Heading("best against the field", ascii=self.ascii)
                yield LossChart(empty_text="no trial has completed yet", ascii=self.ascii)

    @property
    def table(self) -> LiveTable:
        return self.query_one(LiveTable)

    @property
    def chart(self) -> LossChart:
        return self.query_one(LossChart)

    def on_mount(self) -> None:
        self.table.focus()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.deck.poll_soon()

    def focus_main(self) -> None:
        self.table.focus()

    def sized(self) -> None:
        """Few results leave their room to the chart; many get a side of their own, if there is one."""
        rows, share = self.table.row_count, (self.size.height - 3) // 2
        many = self.wide and self.size.width >= _TWO_SIDES and rows > share
        self.set_class(many, "-many")
        height: int | str = "1fr" if many or self.narrow else max(5, min(rows + 1, share))
        if self.table.styles.height is None or str(self.table.styles.height) != str(height):
            self.table.styles.height = height

    def show_view(self, view: StudyView | None) -> None:
        self._view = view
        if view is None:
            self.query_one("#verdict", Pieces).show()
            self.table.set_empty_text("no study is open:  1 lists the studies")
            self.table.set_rows(())
            self.chart.set_series(())
            return
        self.query_one("#verdict", Pieces).show(verdict(view))
        if (view.ranked, view.searched) != self._rows_of:
            self._rows_of = (view.ranked, view.searched)
            self.table.set_empty_text("no trial has ended yet")
            self.table.set_rows([ranked_row(r, view, ascii=self.ascii) for r in view.ranked])
            self.sized()
        self._draw(view)

    def _draw(self, view: StudyView) -> None:
        chosen = self._chosen()
        numbers = self._field()
        rows = [view.by_number[n] for n in numbers if n in view.by_number]
        ready = [r for r in rows if r.curve is not None and r.curve.train is not None]
        key = (view.folder, chosen, tuple((r.number, id(r.curve)) for r in ready))
        if key == self._drawn:
            return
        self._drawn = key
        self.chart.set_series(field_series(view, ready, chosen))

    def _chosen(self) -> int | None:
        key = self.table.cursor_key
        return int(key) if key is not None else None

    def _field(self) -> tuple[int, ...]:
        """The trials whose curves are drawn: the chosen one, the best, and the next in order.

        One without a place is only drawn when it is chosen: it says nothing about the best.
        """
        if self._view is None:
            return ()
        ordered = [r.trial for r in self._view.ranked if r.place is not None]
        chosen = self._chosen()
        first = ([chosen] if chosen is not None else []) + ordered[:1]
        return tuple(dict.fromkeys([*first, *ordered[1 : FIELD + 1]]))

    def wanted(self) -> Wanted:
        """What must be read for what is on the screen."""
        return Wanted(whole=frozenset(self._field()))

    def on_live_table_row_highlighted(self, event: LiveTable.RowHighlighted) -> None:
        if self._view is not None:
            self._draw(self._view)
            self.deck.poll_soon()

    def on_live_table_row_selected(self, event: LiveTable.RowSelected) -> None:
        self.action_show_trial()

    @property
    def selected(self) -> TrialRow | None:
        """The trial under the cursor."""
        number = self._chosen()
        if self._view is None or number is None:
            return None
        return self._view.by_number.get(number)

    # -- actions ------------------------------------------------------------------------------

    def _selected_or_say(self) -> TrialRow | None:
        row = self.selected
        if row is None:
            self.say("No trial has ended yet: there is nothing to choose from.", "warning")
        return row

    def action_show_trial(self) -> None:
        if row := self._selected_or_say():
            self.deck.show_trial(row.number)

    def action_save(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            name = self._view.folder.name
            self.deck.save_profile(self._view.folder, row.number, Path(f"{name}-{row.number}.toml"))

    def action_promote(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            self.deck.promote(self._view, row.number)

    def action_copy_profile(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            self.deck.copy_profile(self._view.folder, row.number)

    def action_copy_command(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            folder = shell_path(self._view.folder)
            self.deck.copy(f"tunedeck save {folder} --trial {row.number} -o tuned.toml")

    def action_log_scale(self) -> None:
        self.chart.toggle_log()

    def action_smooth(self) -> None:
        self.chart.toggle_smooth()


def verdict(view: StudyView) -> list[Piece]:
    """How the search came out, in a line."""
    muted, text = theme.style("muted"), theme.style("text")
    placed = [r for r in view.ranked if r.place is not None]
    if not placed or view.best is None:
        waiting = view.planned - view.done
        return [(f" No trial has completed yet; {words.plural(waiting, 'trial')} to go.", muted)]
    best = placed[0]
    name = "eval loss" if view.reading.rank_by == "eval_loss" else "loss"
    pieces: list[Piece] = [
        (" Best: ", muted),
        (f"trial {best.trial}", theme.style("success", bold=True)),
        (f", {name} ", muted),
        (words.loss(best.value), theme.style("success", bold=True)),
        (f", {words.settings_line(view.best.trial.changes)}", text),
    ]
    ties = sum(1 for r in placed[1:] if r.tied and _close(r, best))
    if ties:
        pieces.append((f"   {words.plural(ties, 'other')} as good (tie)", muted))
    if view.done < view.planned:
        pieces.append((f"   {view.planned - view.done} to go", muted))
    return pieces


def _close(one: Ranked, best: Ranked) -> bool:
    from core.search.ranking import TIE_TOLERANCE

    if one.value is None or best.value is None:
        return False
    return abs(one.value - best.value) <= TIE_TOLERANCE * abs(best.value)


def ranked_row(ranked: Ranked, view: StudyView, *, ascii: bool) -> Row:
    """A trial's place as a row of the table."""
    row, first = view.by_number[ranked.trial], view.ranked[0].value
    return Row(str(ranked.trial), LateCells(lambda: _cells(ranked, row, first, ascii=ascii)))


def _cells(ranked: Ranked, row: TrialRow, first: float | None, *, ascii: bool) -> dict[str, Cell]:
    look = words.LOOKS[row.status]
    best = ranked.place == 1
    style = f"bold {COLOURS['success']}" if best else ""
    gap = ""
    if ranked.place is not None and ranked.value is not None and first is not None and not best:
        gap = f"{ranked.value - first:+.4f}"
    place: Text
    if ranked.place is None:
        place = Text(look.ascii_glyph if ascii else look.glyph, style=COLOURS[look.colour])
    else:
        tie = "=" if ranked.tied else " "
        place = Text(f"{ranked.place}{tie}", style=style)
    reason = "" if ranked.place is not None else f"   {look.word}"
    settings = Text(words.settings_line(row.trial.changes))
    settings.append(reason, style=COLOURS[look.colour])
    return {
        "place": place,
        "trial": Text(str(ranked.trial), style=style),
        "value": Text(words.loss(ranked.value) if ranked.place else "", style=style),
        "gap": Text(gap, style=COLOURS["muted"]),
        "settings": settings,
        "seconds": words.duration(row.trial.seconds or None),
        "memory": words.size(row.peak_memory),
    }


def field_series(view: StudyView, rows: list[TrialRow], chosen: int | None) -> list[ChartSeries]:
    """The best trial's curve and the chosen one's bright, all others dim."""
    best = view.best.number if view.best else None
    series = []
    for row in sorted(rows, key=lambda r: (r.number != best, r.number != chosen)):
        assert row.curve is not None
        bright = row.number in (best, chosen)
        label = f"best ({row.number})" if row.number == best else f"{row.number}"
        points, diverged = row.curve.train or (), row.status == "diverged"
        series.append(ChartSeries(label, points, dim=not bright, clipped=diverged))
    return series
