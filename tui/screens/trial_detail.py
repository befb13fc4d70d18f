"""The selected trial at large: chart, memory, settings, log and advice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical

from tui import detail, rung_text, theme, words
from tui.ascii_text import ascii_text
from tui.curve import LOSS
from tui.memory_chart import memory_series, memory_title
from tui.widgets.bars import Heading, Pieces
from tui.widgets.lines import Piece
from tui.widgets.loss_chart import ChartSeries, LossChart
from tui.widgets.text_pane import TextPane

if TYPE_CHECKING:
    from tui.snapshot import StudyView, TrialRow

PANES = ("chart", "settings", "log", "memory", "advice")
TROUBLE = ("oom", "skipped", "diverged", "failed", "lost")
NO_MEMORY = "no memory measured"
_ADVISING = {
    "start": "a dry run finds out whether it fits…",
    "fit": "looking for the largest batch that fits…",
    "fix": "looking for a fix that fits…",
}
NOT_STARTED = "this trial has not started yet"


class TrialDetail(Vertical):
    """In a wide terminal the chart stands above another pane; else one pane is shown at a time."""

    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__(id="detail")
        self._ascii = ascii
        self._pane: str | None = None
        self.measure = LOSS
        """What the chart shows."""
        self._wide = False
        self._composed = False
        self._view: StudyView | None = None
        self._row: TrialRow | None = None
        self._drawn: object = None
        self._text_of: object = None
        self._memory_of: object = None

    def compose(self) -> ComposeResult:
        with Vertical(id="chart-side"):
            yield Heading(ascii=self._ascii, id="trial-heading")
            yield Pieces(ascii=self._ascii, id="note")
            yield Pieces(ascii=self._ascii, id="doctor")
            yield LossChart(ascii=self._ascii, id="losses")
        with Vertical(id="pane-side"):
            yield Heading(ascii=self._ascii, id="pane-heading")
            yield LossChart(empty_text=NO_MEMORY, from_zero=True, ascii=self._ascii, id="memory")
            yield TextPane(ascii=self._ascii)

    def on_mount(self) -> None:
        self._composed = True
        self._arrange()

    @property
    def chart(self) -> LossChart:
        """The chart that keys are about: that of the losses where it is shown."""
        only_memory = self.shown_pane == "memory" and not self._wide
        return self.query_one("#memory" if only_memory else "#losses", LossChart)

    @property
    def pane(self) -> TextPane:
        return self.query_one(TextPane)

    @property
    def shown_panes(self) -> tuple[str, ...]:
        """What Tab goes through."""
        return PANES[1:] if self._wide else PANES

    @property
    def shown_pane(self) -> str:
        """The pane that Tab has come to. Until then the one that has most to say."""
        if self._pane is not None and not (self._wide and self._pane == "chart"):
            return self._pane
        if not self._wide:
            return "chart"
        return "advice" if self._row is not None and self._row.status in TROUBLE else "settings"

    @property
    def needs_curve(self) -> bool:
        # The doctor, who speaks in the advice, looks at every point as well.
        return self._wide or self.shown_pane in ("chart", "advice")

    @property
    def needs_memory(self) -> bool:
        return self.shown_pane == "memory"

    @property
    def needs_log(self) -> bool:
        return self.shown_pane == "log"

    def set_wide(self, wide: bool) -> None:
        """Whether there is room for the chart and another pane at once."""
        if wide != self._wide:
            self._wide = wide
            self._arrange()

    def cycle(self, by: int) -> None:
        """Show the next pane, or with -1 the previous one."""
        panes = self.shown_panes
        self.show_pane(panes[(panes.index(self.shown_pane) + by) % len(panes)])

    def show_pane(self, name: str) -> None:
        """Show the pane `name`, from its beginning if it is another one; a log from its end."""
        if name != self.shown_pane:
            self.pane.scroll_home_now()
        self._pane = name
        self._arrange()

    def next_measure(self) -> None:
        """Draw the next of what the trial logs, and the loss again after the last."""
        curve = self._row.curve if self._row is not None else None
        measures = curve.measures if curve is not None else (LOSS,)
        known = measures.index(self.measure) if self.measure in measures else -1
        self.measure = measures[(known + 1) % len(measures)]

    def draw_loss(self) -> None:
        """Draw the loss, which every stage logs: what was chosen in one study another one may never log."""
        self.measure = LOSS

    def focus_pane(self) -> None:
        """Let the keys scroll the text, if text is shown."""
        if self.pane.display and self.query_one("#pane-side").display:
            self.pane.focus()
        else:
            self.screen.set_focus(None)

    def cursor_off(self) -> None:
        """Take the reading line out of the charts."""
        for chart in self.query(LossChart):
            chart.cursor_off()

    def _arrange(self) -> None:
        if not self._composed:
            return
        losses = self._wide or self.shown_pane == "chart"
        self.query_one("#losses").display = self.query_one("#note").display = losses
        self._show_doctor()
        self.query_one("#chart-side").set_class(not losses, "-heading-only")
        self.query_one("#memory").display = self.shown_pane == "memory"
        self.pane.display = self.shown_pane != "memory"
        self.query_one("#pane-heading").display = self._wide
        self.query_one("#pane-side").display = self._wide or self.shown_pane != "chart"
        self._text_of = None
        self._show_headings()
        self._show_text()
        self._show_memory()

    # -- content ------------------------------------------------------------------------------

    def show(
        self, view: StudyView | None, row: TrialRow | None, marked: Sequence[TrialRow]
    ) -> None:
        """Show the trial `row`, with the curves of `marked` beside its own."""
        other = (self._row.number if self._row else None) != (row.number if row else None)
        self._view, self._row = view, row
        if other:
            self.pane.scroll_home_now()
            self._text_of = None
        self._show_headings()
        self._show_chart(row, marked)
        self._show_text()
        self._show_memory()

    def _show_headings(self) -> None:
        title = detail.heading(self._row) if self._row else ""
        top = self.query_one("#trial-heading", Heading)
        if self._wide:
            top.show(title)
            self.query_one("#pane-heading", Heading).show("", self.shown_panes, self.shown_pane)
        else:
            top.show(title, self.shown_panes, self.shown_pane)
        pieces = note(self._row, ascii=self._ascii)
        if self._ascii:
            pieces = [(ascii_text(text), style) for text, style in pieces]
        self.query_one("#note", Pieces).show(pieces)
        self._show_doctor()

    def _show_doctor(self) -> None:
        """What the doctor says, beside the chart; no line at all of a healthy run."""
        line = self.query_one("#doctor", Pieces)
        pieces = doctor(self._row)
        line.display = bool(pieces) and self.query_one("#losses").display
        line.show([(ascii_text(text), style) for text, style in pieces] if self._ascii else pieces)

    def _show_chart(self, row: TrialRow | None, marked: Sequence[TrialRow]) -> None:
        others = [r for r in marked if row is None or r.number != row.number]
        drawn = [r.curve for r in (row, *others) if r is not None]
        if row is not None and row.trial.attempts and not _is_read(row, self.measure):
            return
        key = (row.number if row else None, tuple(map(id, drawn)), tuple(r.number for r in others))
        if key == self._drawn:
            return
        self._drawn = key
        end = float(row.total_steps) if row and row.total_steps and row.trial.live else None
        losses = self.query_one("#losses", LossChart)
        title = "" if self.measure == LOSS else words.metric(self.measure)
        losses.set_series(_series(row, others, self.measure), title=title, x_end=end)

    def _show_memory(self) -> None:
        row = self._row
        chart = self.query_one("#memory", LossChart)
        curve = row.curve if row is not None else None
        if not chart.display or row is None:
            return
        key = (row, chart.size.width)
        if key == self._memory_of:
            return
        self._memory_of = key
        end = float(row.total_steps) if row.total_steps and row.trial.live else None
        series = memory_series(curve, end) if curve is not None else []
        chart.set_series(series, title=memory_title(row, chart.size.width), x_end=end)

    def _show_text(self) -> None:
        view, row = self._view, self._row
        if not self.query_one("#pane-side").display or not self.pane.display:
            return
        if view is None or row is None:
            self.pane.set_lines(())
            return
        shown = self.shown_pane
        log = view.reading.log
        state = (shown, id(row), id(log), view.reading.notices, view.ranked)
        if state == self._text_of:
            return
        self._text_of = state
        if shown == "settings":
            self.pane.set_lines(detail.settings_lines(view, row))
        elif shown == "advice":
            self.pane.set_lines(detail.advice_lines(view, row))
        elif shown == "log" and (log is None or log.trial == row.number):
            lines = log.lines if log else ()
            empty = NOT_STARTED if not row.trial.attempts else "its log is empty so far"
            self.pane.set_lines(detail.log_text(lines or (empty,)), follow=True)


def _is_read(row: TrialRow, measure: str) -> bool:
    """Whether every point of `measure` is there."""
    curve = row.curve
    return curve is not None and curve.train is not None and curve.measure == measure


def _series(
    row: TrialRow | None, others: Sequence[TrialRow], measure: str = LOSS
) -> list[ChartSeries]:
    series: list[ChartSeries] = []
    if row is not None and row.curve is not None and row.curve.train is not None:
        own, clipped = f"{row.number}" if others else "", row.status == "diverged"
        # Some measures are of evaluations alone.
        if row.curve.train or not row.curve.evals:
            series.append(ChartSeries(own or "train", row.curve.train, clipped=clipped))
        if row.curve.evals:
            label = f"{own} eval".strip()
            series.append(ChartSeries(label, row.curve.evals, "eval", clipped=clipped))
    series += [
        ChartSeries(
            f"{other.number}",
            other.curve.train or other.curve.evals or (),
            "other",
            clipped=other.status == "diverged",
        )
        for other in others
        if other.curve is not None and _is_read(other, measure)
    ]
    return series


def doctor(row: TrialRow | None) -> list[Piece]:
    """What a trial's curve shows, in a line; the advice pane says the rest. Nothing that the note says already."""
    finding = row.curve.finding if row is not None and row.curve is not None else None
    if row is None or finding is None or finding.text == row.trial.reason:
        return []
    colour = {"error": "error", "warning": "warning"}.get(finding.severity, "accent")
    return [(" doctor ", theme.style("muted")), (finding.text, theme.style(colour))]


def note(row: TrialRow | None, *, ascii: bool) -> list[Piece]:
    """What matters most about a trial, in a line above its chart."""
    if row is None:
        return []
    trial, curve, look = row.trial, row.curve, words.LOOKS[row.status]
    text, muted = theme.style("text"), theme.style("muted")
    pieces: list[Piece] = [(f" {look.text(ascii=ascii)} ", theme.style(look.colour, bold=True))]
    if trial.advising is not None:
        return [*pieces, (f" {_ADVISING[trial.advising]}", theme.style("accent"))]
    if trial.suggestion is not None:
        pieces += [(" f ", theme.style("primary", bold=True)), (trial.suggestion.text, text)]
        return pieces
    if trial.stalled and trial.live:
        stalled = words.STALLED
        sign = f" {stalled.text(ascii=ascii)} "
        return [(sign, theme.style(stalled.colour, bold=True)), (f" {trial.stalled}", text)]
    if trial.status == "rung" and trial.rungs:
        return [*pieces, (f" {rung_text.where(trial)}, with a checkpoint", text)]
    if not trial.live and trial.reason:
        return [*pieces, (f" {trial.reason}", text)]
    facts: list[tuple[str, str]] = []
    if row.total_steps:
        facts.append(("step", f"{row.step}/{row.total_steps}"))
    if curve is not None and trial.live:
        facts.append(("lr", words.setting(curve.learning_rate)))
        if curve.tokens_per_s:
            facts.append(("tokens/s", f"{curve.tokens_per_s:,.0f}"))
        if curve.grad_norm is not None and math.isfinite(curve.grad_norm):
            facts.append(("grad", f"{curve.grad_norm:.2f}"))
    elif trial.seconds:
        facts.append(("took", words.duration(trial.seconds)))
    for name, value in facts[:1] if trial.fixes else facts:
        if value:
            pieces += [(f"  {name} ", muted), (value, text)]
    if trial.fixes:
        # One that was changed before it ever ran has one attempt at most.
        crashed = len(trial.attempts) > 1 or any(a.ending == "oom" for a in trial.attempts)
        why = "  ran out of memory, then " if crashed else "  would not fit, so "
        pieces += [(why, theme.style("warning")), (trial.fixes[-1], text)]
    return pieces
