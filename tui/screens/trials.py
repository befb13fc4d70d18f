"""The open study: its trials live, and the selected one at large."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container

from core.engine.messages import Request
from core.study.state import Suggestion, Trial
from tui import detail, words
from tui.actions import Context
from tui.ascii_text import ascii_text
from tui.filtering import HELP, Order, arrange
from tui.keymap import bindings
from tui.screens.base import DeckScreen
from tui.screens.trial_detail import TrialDetail
from tui.screens.trial_rows import ROOMY, VALUE, RowLook, columns, sort_keys, trial_row
from tui.source import Wanted, shell_path
from tui.status_line import banner, study_line
from tui.widgets.bars import Heading, Pieces
from tui.widgets.trial_table import Column, LiveTable, Row

if TYPE_CHECKING:
    from tui.snapshot import StudyView, TrialRow

MOST_MARKED = 6
_ABOVE_TABLE = 3
_TWO_SIDES = 140
"""The width from which on the table may stand beside the chart instead of above it."""


class TrialsScreen(DeckScreen):
    """A table of trials and what there is to know about the one under the cursor."""

    TITLE_NAME = "trials"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("trials", "detail")
    FILTERS = HELP
    BINDINGS: ClassVar[list[BindingType]] = bindings("trials", "detail")

    def __init__(self) -> None:
        super().__init__()
        self._view: StudyView | None = None
        self._order = Order()
        self._marked: set[int] = set()
        self._rows: dict[int, tuple[TrialRow, bool, bool, Row]] = {}
        self._arranged: tuple[object, list[TrialRow]] | None = None
        self._columns_for: object = None
        self._columns: list[Column] = []
        self._roomy = False
        self._selected: int | None = None

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="status")
        yield Pieces(ascii=self.ascii, id="banner")
        with Container(id="split"):
            yield LiveTable(empty_text="no study is open", ascii=self.ascii)
            yield TrialDetail(ascii=self.ascii)

    @property
    def table(self) -> LiveTable:
        return self.query_one(LiveTable)

    @property
    def detail(self) -> TrialDetail:
        return self.query_one(TrialDetail)

    def on_mount(self) -> None:
        self.table.focus()
        self.sized()

    def focus_main(self) -> None:
        if self.large:
            self.detail.focus_pane()
        else:
            self.table.focus()

    # -- showing ------------------------------------------------------------------------------

    def show_view(self, view: StudyView | None) -> None:
        if view is None or self._view is None or view.folder != self._view.folder:
            self._marked.clear()
            self._rows.clear()
            self._selected = None
            self.detail.draw_loss()
        self._view = view
        status, line = self.query_one("#status", Pieces), self.query_one("#banner", Pieces)
        if view is None:
            status.show()
            line.add_class("-empty")
            self.table.set_empty_text("no study is open:  1 lists the studies")
            self.table.set_rows(())
            self.detail.show(None, None, ())
            return
        status.show(study_line(view, self.size.width, ascii=self.ascii))
        told = banner(view, ascii=self.ascii)
        line.set_class(not told, "-empty")
        line.show([(ascii_text(text), style) for text, style in told] if self.ascii else told)
        self._fill()
        self._show_detail()

    def _fill(self) -> None:
        view = self._view
        if view is None:
            return
        table, width = self.table, self.table.size.width or self.size.width
        best = view.best.number if view.best else None
        self._lay_out(view, width)
        shown = self._arrange(view)
        rows = [self._row(row, row.number == best) for row in shown]
        table.set_empty_text("no trial matches" if view.rows else "no trials are planned yet")
        if len(rows) != len(table.rows) or any(
            a is not b for a, b in zip(rows, table.rows, strict=True)
        ):
            table.set_rows(rows)
        self._fit_table(len(rows))
        if self._selected is None:
            first = next((r for r in shown if r.trial.live), view.best)
            first = first if first in shown else next(iter(shown), None)
            if first is not None:
                self._selected = first.number
                table.move_cursor(str(first.number))

    def _lay_out(self, view: StudyView, width: int) -> None:
        """The columns follow the width and what is searched; rows are made anew when they must."""
        if (view.reading.trials, width) == self._columns_for:
            return
        self._columns_for = (view.reading.trials, width)
        wanted = columns(view, width)
        roomy = width >= ROOMY
        if wanted != self._columns or roomy != self._roomy:
            if roomy != self._roomy or {c.key for c in wanted} != {c.key for c in self._columns}:
                self._rows.clear()
            self._columns, self._roomy = wanted, roomy
            self.table.set_columns(wanted)

    def _arrange(self, view: StudyView) -> list[TrialRow]:
        key = (view.rows, self.query_text, self._order)
        if self._arranged is not None and self._arranged[0] == key:
            return self._arranged[1]
        shown = arrange(view.rows, self.query_text, self._order)
        self._arranged = (key, shown)
        return shown

    def _row(self, row: TrialRow, best: bool) -> Row:
        marked = row.number in self._marked
        known = self._rows.get(row.number)
        if known is not None and known[0] is row and known[1] == marked and known[2] == best:
            return known[3]
        assert self._view is not None
        searched, rank_by = self._view.searched, self._view.reading.rank_by
        made = trial_row(
            row, RowLook(searched, rank_by, best, self._roomy, self.ascii), marked=marked
        )
        self._rows[row.number] = (row, marked, best, made)
        return made

    def _fit_table(self, rows: int) -> None:
        """Few trials leave their room to the chart; many get a side of their own, if there is one."""
        share = (self.size.height - _ABOVE_TABLE) * 9 // 20
        many = self.wide and self.size.width >= _TWO_SIDES and rows > share
        self.set_class(many, "-many")
        height: int | str = max(5, min(rows + 1, share))
        if many or self.large or self.narrow:
            height = "1fr"
        if self.table.styles.height is None or str(self.table.styles.height) != str(height):
            self.table.styles.height = height

    def _show_detail(self) -> None:
        view = self._view
        if view is None:
            return
        row = view.by_number.get(self._selected or -1)
        marked = [view.by_number[n] for n in sorted(self._marked) if n in view.by_number]
        self.detail.show(view, row, marked)

    def wanted(self) -> Wanted:
        """What must be read for what is on the screen."""
        selected = () if self._selected is None else (self._selected,)
        table = self.table
        visible = table.rows[table.top : table.top + table.size.height]
        chart = self.detail.needs_curve
        return Wanted(
            whole=frozenset((*selected, *self._marked)) if chart else frozenset(),
            measure=self.detail.measure,
            sparks=tuple(int(row.key) for row in visible),
            log=self._selected if self.detail.needs_log else None,
            memory=self._selected if self.detail.needs_memory else None,
        )

    def select(self, number: int) -> None:
        """Put the cursor on a trial; a filter that hides it is taken away."""
        if self._view is None or number not in self._view.by_number:
            return
        if not self.table.move_cursor(str(number)):
            self.close_filter(clear=True)
            self._fill()
            self.table.move_cursor(str(number))
        self._follow_cursor()

    def sized(self) -> None:
        self.detail.set_wide(self.wide)
        self._columns_for = None
        self.call_after_refresh(self._fill)

    def filtered(self) -> None:
        self._fill()
        self._follow_cursor()

    def _follow_cursor(self) -> None:
        key = self.table.cursor_key
        if key is not None and int(key) != self._selected:
            self._selected = int(key)
            self._show_detail()
        self.deck.poll_soon()

    def on_live_table_row_highlighted(self, event: LiveTable.RowHighlighted) -> None:
        if event.row_key == self.table.cursor_key:
            self._follow_cursor()

    def on_live_table_row_selected(self, event: LiveTable.RowSelected) -> None:
        self.action_open_trial()

    def on_live_table_header_selected(self, event: LiveTable.HeaderSelected) -> None:
        key = "number" if event.column_key in ("settings", "trend") else event.column_key
        if self._order.key == key:
            self.action_reverse()
        else:
            self._sort_by(self._order_by(key))

    def on_heading_clicked(self, event: Heading.Clicked) -> None:
        self.detail.show_pane(event.pane)
        self._pane_changed()

    @property
    def selected(self) -> Trial | None:
        """The trial under the cursor."""
        if self._view is None or self._selected is None:
            return None
        row = self._view.by_number.get(self._selected)
        return row.trial if row else None

    @property
    def large(self) -> bool:
        """Whether the selected trial has the whole screen."""
        return self.has_class("-large")

    # -- looking ------------------------------------------------------------------------------

    def action_open_trial(self) -> None:
        if self.selected is None or self._view is None:
            return
        if self.selected.kind == "range" and not self.large:
            self.deck.show_range_test(self._view.folder)
            return
        self.add_class("-large")
        self.detail.focus_pane()
        self.deck.poll_soon()

    def escape(self) -> None:
        if self.query_one("#filter").has_focus:
            self.close_filter(clear=True)
        elif self.large:
            self.remove_class("-large")
            self.table.focus()
            self._fit_table(self.table.row_count)
            self.detail.cursor_off()
        elif not self.close_filter(clear=True):
            self.detail.cursor_off()

    def action_previous_trial(self) -> None:
        self.table.action_cursor_up()

    def action_next_trial(self) -> None:
        self.table.action_cursor_down()

    def action_sort(self) -> None:
        if self._view is None:
            return
        keys = sort_keys(self._view)
        place = keys.index(self._order.key) if self._order.key in keys else -1
        self._sort_by(self._order_by(keys[(place + 1) % len(keys)]))

    def _order_by(self, key: str) -> Order:
        """Smallest first; of what the study ranks by the best first."""
        best = self._view is not None and self._view.reading.direction == "max"
        return Order(key, descending=key == VALUE and best)

    def action_reverse(self) -> None:
        self._sort_by(Order(self._order.key, not self._order.descending))

    def _sort_by(self, order: Order) -> None:
        self._order = order
        self.table.set_sort(order.key, descending=order.descending)
        self._fill()
        direction = "largest first" if order.descending else "smallest first"
        title = words.title(order.key)
        if self._view is not None and order.key == VALUE:
            title = words.metric(self._view.reading.rank_by)
        self.say(f"Sorted by {title}, {direction}.")

    def action_mark(self) -> None:
        trial = self.selected
        if trial is None:
            return
        if trial.number in self._marked:
            self._marked.discard(trial.number)
        elif len(self._marked) >= MOST_MARKED:
            self.say(f"At most {MOST_MARKED} trials can be compared: u takes the marks away.")
            return
        else:
            self._marked.add(trial.number)
        self._fill()
        self._show_detail()
        self.deck.poll_soon()

    def action_unmark_all(self) -> None:
        self._marked.clear()
        self._fill()
        self._show_detail()

    def action_next_pane(self) -> None:
        self.detail.cycle(1)
        self._pane_changed()

    def action_previous_pane(self) -> None:
        self.detail.cycle(-1)
        self._pane_changed()

    def _pane_changed(self) -> None:
        if self.narrow and not self.large:
            self.add_class("-large")
        if self.large:
            self.detail.focus_pane()
        self._show_detail()
        self.deck.poll_soon()

    def action_next_measure(self) -> None:
        self.detail.next_measure()
        self.deck.poll_soon()

    def action_log_scale(self) -> None:
        self.detail.chart.toggle_log()

    def action_smooth(self) -> None:
        self.detail.chart.toggle_smooth()

    def action_zoom_in(self) -> None:
        self.detail.chart.zoom(1.5)

    def action_zoom_out(self) -> None:
        self.detail.chart.zoom(1 / 1.5)

    def action_whole(self) -> None:
        self.detail.chart.reset_view()

    def action_pan_left(self) -> None:
        self.detail.chart.pan(-0.25)

    def action_pan_right(self) -> None:
        self.detail.chart.pan(0.25)

    def action_read_left(self) -> None:
        self.detail.chart.cursor_left()

    def action_read_right(self) -> None:
        self.detail.chart.cursor_right()

    def action_notices(self) -> None:
        if self._view is not None:
            self.deck.show_notices(self._view)

    def action_copy_command(self) -> None:
        if self._view is not None:
            self.deck.copy(f"tunedeck attach {shell_path(self._view.folder)}")

    def action_use_model(self) -> None:
        if (trial := self._trial_or_say()) and self._view is not None:
            from tui.screens.model_use import ask_use

            self.run_worker(ask_use(self, self._view, trial.number), group="dialog", exclusive=True)

    # -- steering -----------------------------------------------------------------------------

    def _trial_or_say(self) -> Trial | None:
        trial = self.selected
        if trial is None:
            self.say("No trial is selected.", "warning")
        return trial

    def action_pause_trial(self) -> None:
        if trial := self._trial_or_say():
            self.deck.ask(Request("pause", trial.number))

    def action_resume_trial(self) -> None:
        if trial := self._trial_or_say():
            self.deck.ask(Request("resume", trial.number))

    def action_retry_trial(self) -> None:
        trial = self._trial_or_say()
        if trial is not None and trial.status == "completed":
            # Another attempt would take its result away, and with it its place.
            self.say(
                f"Trial {trial.number} has completed: there is nothing to try again.", "warning"
            )
        elif trial is not None and trial.suggestion is not None and pickable(trial.suggestion):
            self.run_worker(self._retry_with(trial, trial.suggestion), group="fix", exclusive=True)
        elif trial is not None:
            self.deck.ask(Request("retry", trial.number))

    async def _retry_with(self, trial: Trial, suggestion: Suggestion) -> None:
        """Let one of several fixes be picked, or none of them."""
        from tui.fix_view import FixView, from_option
        from tui.screens.fixes import FixDialog, Found

        without = FixView(text="try again without a fix")
        fixes = (*map(from_option, suggestion.fixes), without)
        found = Found(detail.fix_headline(trial), fixes)
        dialog = FixDialog(f"Try trial {trial.number} again", found=found)
        picked = await self.app.push_screen_wait(dialog)
        if picked is not None:
            number = 0 if picked is without else fixes.index(picked) + 1
            self.deck.ask(Request("retry", trial.number, fix=number))

    def action_stop_trial(self) -> None:
        trial = self._trial_or_say()
        if trial is None:
            return
        if trial.ended:
            look = words.LOOKS[trial.status].word
            self.say(f"Trial {trial.number} has ended already ({look}).", "warning")
            return
        self.deck.confirm(
            f"Stop trial {trial.number}?",
            "It ends for good and gets no place in the ranking. Its metrics and log stay.",
            yes="Stop it",
            then=Request("stop", trial.number),
        )

    def action_promote(self) -> None:
        if (trial := self._trial_or_say()) and self._view is not None:
            self.deck.promote(self._view, trial.number)

    def action_add_trial(self) -> None:
        if self._view is not None:
            trial = self.selected
            self.deck.add_trial(trial.settings if trial else {})

    def action_start_engine(self) -> None:
        self.deck.start_engine()

    def action_pause_study(self) -> None:
        if self._view is not None:
            paused = self._view.reading.status == "paused"
            self.deck.ask(Request("resume" if paused else "pause"))

    def action_stop_study(self) -> None:
        if self._view is None:
            return
        live = words.plural(self._view.live, "running trial")
        self.deck.confirm(
            f"Stop the study {self._view.reading.name}?",
            f"{live} will end for good, and those that wait never start. What is there stays.",
            yes="Stop all",
            then=Request("stop"),
        )


def pickable(suggestion: Suggestion) -> bool:
    """Whether a person has to choose: among several fixes, or for one that makes it another run."""
    fixes = suggestion.fixes
    return len(fixes) > 1 or any(fix.numerics == "different" for fix in fixes)
