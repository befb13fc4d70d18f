"""What the study found: the trials in order, pictures of them, what to make of it, and the winner's profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.widget import Widget

from tui.actions import Context
from tui.ascii_text import ascii_text
from tui.keymap import bindings
from tui.screens.base import DeckScreen
from tui.screens.results_pictures import (
    SHARES_NOTE,
    advice_lines,
    default_axis,
    dots,
    field_series,
    horizontal,
    parallel,
    scatter_title,
    shares,
    step_title,
)
from tui.screens.results_table import COLUMNS, columns, ranked_row, verdict
from tui.source import Wanted, shell_path
from tui.widgets.bars import Heading, Pieces
from tui.widgets.lines import Piece
from tui.widgets.loss_chart import LossChart
from tui.widgets.parallel import ParallelPlot
from tui.widgets.scatter import ScatterPlot
from tui.widgets.share_bars import ShareBars
from tui.widgets.text_pane import TextPane
from tui.widgets.trial_table import LiveTable

if TYPE_CHECKING:
    from core.doctor import NextStep
    from tui.outcome import Outcome
    from tui.snapshot import StudyView, TrialRow

_TWO_SIDES = 140
_ROOMY = 24
"""From so many lines on a picture leaves some of them to the advice."""
_ADVICE = 7
"""How many it leaves."""
_LOW = 30
"""Below so many lines the table leaves more of its share to the picture."""
FIELD = 8
"""How many curves stand behind the best one: more would be a blot."""
RANKING = "ranking"
VIEWS = ("curves", "scatter", "parallel", "importance", "advice")
NOTHING_YET = "no trial has come to a value yet"


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
        self._shown: str | None = None
        self._axis: str | None = None
        self._large = False
        self._roomy = False
        self._verdict_lines = 2

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="verdict")
        with Container(id="split"):
            yield LiveTable(COLUMNS, empty_text="no study is open", ascii=self.ascii)
            with Vertical(id="field"):
                yield Heading(ascii=self.ascii, id="view-heading")
                yield LossChart(
                    empty_text="no trial has completed yet", ascii=self.ascii, id="curves"
                )
                yield ScatterPlot(empty_text=NOTHING_YET, ascii=self.ascii, id="scatter")
                yield ParallelPlot(empty_text=NOTHING_YET, ascii=self.ascii, id="parallel")
                yield ShareBars(ascii=self.ascii, id="importance")
                yield Heading("the doctor says", ascii=self.ascii, id="advice-heading")
                yield TextPane(ascii=self.ascii, id="advice")

    @property
    def table(self) -> LiveTable:
        return self.query_one(LiveTable)

    @property
    def chart(self) -> LossChart:
        return self.query_one(LossChart)

    @property
    def scatter(self) -> ScatterPlot:
        return self.query_one(ScatterPlot)

    @property
    def parallel(self) -> ParallelPlot:
        return self.query_one(ParallelPlot)

    def on_mount(self) -> None:
        self.table.focus()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.deck.poll_soon()

    def focus_main(self) -> None:
        self.table.focus()

    def escape(self) -> None:
        self.focus_main()

    # -- what is shown where ------------------------------------------------------------------

    @property
    def views(self) -> tuple[str, ...]:
        """What Tab goes through: in the smallest terminals the ranking is one of them."""
        if self.narrow:
            return (RANKING, *VIEWS)
        return VIEWS[:-1] if self._roomy else VIEWS

    @property
    def shown(self) -> str:
        """The picture that is shown."""
        return (
            self._shown if self._shown is not None and self._shown in self.views else self.views[0]
        )

    def sized(self) -> None:
        self._arrange()
        self._draw()

    def _arrange(self) -> None:
        """Few results leave their room to the picture; many get a side of their own, if there is one."""
        if not self.ready:
            return
        height = self.size.height
        # The tabs, the verdict and the footer; a low terminal leaves more of its share to the picture.
        room = height - 2 - self._verdict_lines
        rows, share = self.table.row_count, (room if height >= _LOW else room - 5) * 2 // 5
        many = self.wide and self.size.width >= _TWO_SIDES and rows > share and not self._large
        self.set_class(many, "-many")
        taken = 2 if self._large else max(4, min(rows + 1, share))
        whole = many or self.narrow
        self._roomy = not self.narrow and room - (0 if many else taken) >= _ROOMY
        shown = self.shown
        self.query_one("#field").display = shown != RANKING
        self.table.display = not self.narrow or shown == RANKING
        _set_height(self.table, "1fr" if whole else taken)
        for name in VIEWS:
            self.query_one(f"#{name}", Widget).display = name == shown
        advice = self.query_one("#advice", TextPane)
        advice.display = shown == "advice" or self._roomy
        _set_height(advice, _ADVICE if self._roomy else "1fr")
        self.query_one("#advice-heading").display = self._roomy
        self._show_heading()
        # How many axes fit is known when the picture has its room.
        self.call_after_refresh(self._show_heading)

    def _show_heading(self) -> None:
        titles = {
            "curves": "best against the field",
            "importance": "what explains the order",
            "advice": "the doctor says",
        }
        title = titles.get(self.shown, "")
        found = self._found
        if found is not None and found.dimensions:
            if self.shown == "scatter":
                title = scatter_title(found, found.dimensions[self._axis_of(found)])
            elif self.shown == "parallel":
                count = len(self.parallel.shown) - 1
                total = len(found.dimensions)
                title = "all parameters" if count >= total else f"{count} of {total} parameters"
        self.query_one("#view-heading", Heading).show(title, self.views, self.shown)

    def _show(self, name: str) -> None:
        self._shown = name
        self._arrange()
        self._draw()
        if self.focused is None or not self.focused.display:
            self.focus_main()
        self.deck.poll_soon()

    # -- content ------------------------------------------------------------------------------

    @property
    def _found(self) -> Outcome | None:
        return self._view.outcome if self._view is not None else None

    def show_view(self, view: StudyView | None) -> None:
        if view is not None and view.outcome is None:
            # It is worked out while somebody looks: the next reading has it.
            if self._view is None or self._view.folder != view.folder:
                self._view = None
                self._show_nothing("looking at what it found…")
            return
        self._view = view
        found = self._found
        if view is None or found is None:
            self._show_nothing("no study is open:  1 lists the studies")
            return
        lines = verdict(view, found, ascii=self.ascii)
        self._show_verdict(lines[: 2 if self.size.height < 20 else 3])
        if found is not self._rows_of:
            self._rows_of = found
            self.table.set_empty_text("no trial has ended yet")
            self.table.set_columns(columns(found))
            self.table.set_rows([ranked_row(s, view, ascii=self.ascii) for s in found.standings])
            self._arrange()
        self._draw()

    def _show_nothing(self, text: str) -> None:
        self._rows_of = self._drawn = None
        self._show_verdict([[]])
        self.table.set_empty_text(ascii_text(text) if self.ascii else text)
        self.table.set_rows(())
        self.chart.set_series(())
        self.scatter.set_dots((), self.scatter.horizontal)
        self.parallel.set_lines((), ())
        self.query_one(ShareBars).set_shares(())
        self.query_one("#advice", TextPane).set_lines(())

    def _show_verdict(self, lines: list[list[Piece]]) -> None:
        self._verdict_lines = len(lines)
        pieces = self.query_one("#verdict", Pieces)
        _set_height(pieces, len(lines))
        pieces.show(*lines)

    def _draw(self) -> None:
        """Draw the picture that is shown, if what it shows has changed."""
        view, found = self._view, self._found
        if view is None or found is None:
            return
        chosen = self._chosen()
        match self.shown:
            case "curves":
                self._draw_curves(view, found, chosen)
            case "scatter":
                self._draw_scatter(found)
                self.scatter.choose(chosen)
            case "parallel":
                self._draw_parallel(found)
                self.parallel.choose(chosen)
            case "importance":
                bars = shares(found.findings)
                self.query_one(ShareBars).set_shares(bars, found.findings.unknown, SHARES_NOTE)
        if self.shown == "advice" or self._roomy:
            self.query_one("#advice", TextPane).set_lines(advice_lines(found))

    def _draw_curves(self, view: StudyView, found: Outcome, chosen: int | None) -> None:
        rows = [view.by_number[n] for n in self._field() if n in view.by_number]
        ready = [r for r in rows if r.curve is not None and r.curve.train is not None]
        best = found.best.trial if found.best is not None else None
        key = ("curves", view.folder, chosen, best, tuple((r.number, id(r.curve)) for r in ready))
        if key != self._drawn:
            self._drawn = key
            self.chart.set_series(field_series(ready, best, chosen))

    def _draw_scatter(self, found: Outcome) -> None:
        index, width = self._axis_of(found), self.size.width
        key = ("scatter", found, index, width)
        if key == self._drawn or not found.dimensions:
            return
        self._drawn = key
        below = horizontal(found.dimensions[index], found.findings, max(2, width // 16))
        high = found.direction == "max"
        self.scatter.set_dots(dots(found, index), below, high_is_good=high)
        self._show_heading()

    def _draw_parallel(self, found: Outcome) -> None:
        key = ("parallel", found)
        if key != self._drawn:
            self._drawn = key
            self.parallel.set_lines(*parallel(found))
        self._show_heading()

    def _axis_of(self, found: Outcome) -> int:
        names = [d.name for d in found.dimensions]
        return names.index(self._axis) if self._axis in names else default_axis(found)

    def _chosen(self) -> int | None:
        key = self.table.cursor_key
        return int(key) if key is not None else None

    def _field(self) -> tuple[int, ...]:
        """The trials whose curves are drawn: the chosen one, the best, and the next in order.

        One that ended without a value is only drawn when it is chosen: it says nothing about the best.
        """
        found = self._found
        if found is None or self.shown != "curves":
            return ()
        ordered = [s.trial for s in (*found.standings, *found.open) if s.kind != "out"]
        chosen = self._chosen()
        first = ([chosen] if chosen is not None else []) + ordered[:1]
        return tuple(dict.fromkeys([*first, *ordered[1 : FIELD + 1]]))

    def wanted(self) -> Wanted:
        """What must be read for what is on the screen."""
        return Wanted(whole=frozenset(self._field()), results=True)

    # -- messages -----------------------------------------------------------------------------

    def on_live_table_row_highlighted(self, event: LiveTable.RowHighlighted) -> None:
        if self._view is not None:
            self._draw()
            if self.shown == "curves":
                self.deck.poll_soon()

    def on_live_table_row_selected(self, event: LiveTable.RowSelected) -> None:
        self.action_show_trial()

    def on_heading_clicked(self, event: Heading.Clicked) -> None:
        self._show(event.pane)

    def on_scatter_plot_picked(self, event: ScatterPlot.Picked) -> None:
        if not self.table.move_cursor(str(event.key)):
            self.say(f"{self.scatter.label(event.key)}: it goes on, and has no place yet.")

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

    def action_next_view(self) -> None:
        self._cycle(1)

    def action_previous_view(self) -> None:
        self._cycle(-1)

    def _cycle(self, by: int) -> None:
        views = self.views
        self._show(views[(views.index(self.shown) + by) % len(views)])

    def action_next_axis(self) -> None:
        found = self._found
        if found is None or not found.dimensions:
            self.say("There is no parameter to choose from yet.", "warning")
        elif self.shown == "scatter":
            index = (self._axis_of(found) + 1) % len(found.dimensions)
            self._axis = found.dimensions[index].name
            self._draw()
            if len(found.dimensions) == 1:
                self.say(f"Only {self._axis} was searched.")
        elif self.shown == "parallel":
            if not self.parallel.next_axes():
                self.say("All parameters are shown.")
            self._show_heading()
        else:
            self.say("Scatter and parallel have axes: Tab goes there.")

    def action_enlarge(self) -> None:
        if self.narrow:
            self.say("There is no room for more than one thing: Tab goes through them.")
            return
        self._large = not self._large
        self._arrange()

    def action_read_left(self) -> None:
        self._read(-1)

    def action_read_right(self) -> None:
        self._read(1)

    def _read(self, by: int) -> None:
        if self.shown == "scatter" and self._found is not None:
            listed = {standing.trial for standing in self._found.standings}
            if (key := self.scatter.beside(by, listed)) is not None:
                self.table.move_cursor(str(key))

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

    def action_take_over(self) -> None:
        found, view = self._found, self._view
        steps = found.findings.steps if found is not None else ()
        if view is None or not steps:
            self.say("The doctor proposes no other search so far.", "warning")
            return
        self.run_worker(self._take_over(view.folder, steps), group="dialog", exclusive=True)

    async def _take_over(self, folder: Path, steps: Sequence[NextStep]) -> None:
        """One proposal is taken at once; of several a person picks, as far as they do not want all of them."""
        if len(steps) > 1:
            from tui.screens.pick import Choice, PickDialog

            choices = [Choice("all", "All of it"), *(
                Choice(str(i), step_title(step), step.text) for i, step in enumerate(steps)
            )]  # fmt: skip
            question = PickDialog("What is to be searched on?", choices, placeholder="")
            picked = await self.app.push_screen_wait(question)
            if picked is None:
                return
            steps = steps if picked == "all" else (steps[int(picked)],)
        self.deck.search_on(folder, steps)

    def action_use_model(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            from tui.screens.model_use import ask_use

            self.run_worker(ask_use(self, self._view, row.number), group="dialog", exclusive=True)

    def action_copy_profile(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            self.deck.copy_profile(self._view.folder, row.number)

    def action_copy_command(self) -> None:
        if (row := self._selected_or_say()) and self._view is not None:
            folder = shell_path(self._view.folder)
            self.deck.copy(f"tunedeck save {folder} --trial {row.number} -o tuned.toml")

    def action_log_scale(self) -> None:
        if self.shown == "scatter":
            self.scatter.toggle_log()
        elif self.shown == "curves":
            self.chart.toggle_log()
        else:
            self.say("Curves and scatter have a scale: Tab goes there.")

    def action_smooth(self) -> None:
        if self.shown == "curves":
            self.chart.toggle_smooth()
        else:
            self.say("Only curves are smoothed: Tab goes there.")


def _set_height(widget: Widget, height: int | str) -> None:
    """Set a height, which lays the screen out anew, only where it is another."""
    if str(widget.styles.height) != str(height):
        widget.styles.height = height
