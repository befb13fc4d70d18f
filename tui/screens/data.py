"""A profile's data as its training sees it: examples, lengths, and what looks like a mistake.

A process of its own reads the data. It is asked when the screen opens and when a key asks again, and ends with the
screen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.worker import Worker, get_current_worker

from core.profile import Profile
from core.study.preview import FIRST_ROWS, PreviewRequest, Told
from tui import data_view, theme
from tui.actions import Context
from tui.data_look import EXAMPLES, DataLook
from tui.data_view import Line, Role, Style
from tui.keymap import bindings
from tui.screens.base import DeckScreen
from tui.source import DataPreview, SourceError
from tui.widgets.bars import Pieces
from tui.widgets.length_chart import COLOURS, LengthChart
from tui.widgets.text_pane import TextPane

MOST_TOKENS = 3000
"""Tokens of a part that the pane lays out: of a longer one its two ends are shown."""


class DataScreen(DeckScreen):
    """Shows the data of one profile. `keep` gets what is known when the screen is left."""

    TITLE_NAME = "configure"
    CSS_PATH = "../styles/data.tcss"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("data",)
    BINDINGS: ClassVar[list[BindingType]] = bindings("data")

    def __init__(
        self,
        profile: Profile,
        look: DataLook | None = None,
        *,
        keep: Callable[[DataLook], None],
    ) -> None:
        """`look` is what is known already; without it the data is read."""
        super().__init__()
        self._profile = profile
        self.look = look or DataLook()
        self._keep = keep
        self._all = False
        self._tokens = self._ids = False
        self._at = 0
        self._worker: Worker[None] | None = None
        self._preview: DataPreview | None = None

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="data-status")
        with Container(id="data-body"):
            with Container(id="data-left"):
                yield Pieces(ascii=self.ascii, id="data-head")
                yield TextPane(ascii=self.ascii, id="data-example")
            with Container(id="data-side"):
                yield LengthChart(ascii=self.ascii, id="data-lengths")
                yield TextPane(ascii=self.ascii, id="data-findings")

    def on_mount(self) -> None:
        self.focus_main()
        self._show_all()
        if not self.look.ended:
            self._read()

    def on_unmount(self) -> None:
        self._give_up()

    def focus_main(self) -> None:
        self.query_one("#data-example", TextPane).focus()

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> None:
        """Ask for the data."""
        self._give_up()
        self.look, self._at = DataLook(), 0
        self._show_all()
        document = self._profile.as_training().to_document()
        most = None if self._all else FIRST_ROWS
        asked = PreviewRequest(document, EXAMPLES, most=most)
        self._worker = self.run_worker(
            lambda: self._listen(asked), group="data", exclusive=True, thread=True
        )

    def _listen(self, asked: PreviewRequest) -> None:
        """Runs in a thread."""
        worker = get_current_worker()
        try:
            with self.deck.source.preview(asked) as preview:
                if worker.is_cancelled:
                    return
                self._preview = preview
                for told in preview:
                    if worker.is_cancelled:
                        return
                    self.app.call_from_thread(self._take, worker, told)
        except SourceError as error:
            if not worker.is_cancelled:
                self.app.call_from_thread(self._fail, worker, str(error))

    def _take(self, worker: Worker[None], told: Told) -> None:
        if worker is self._worker and self.ready:
            before, self.look = self.look, self.look.with_told(told)
            self._show_changes(before)

    def _fail(self, worker: Worker[None], problem: str) -> None:
        if worker is self._worker and self.ready:
            self.look = DataLook(self.look.began, self.look.examples, problem=problem)
            self._show_all()

    def _give_up(self) -> None:
        """End the process, if one is at work."""
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None
        preview, self._preview = self._preview, None
        if preview is not None:
            preview.close()

    # -- showing ------------------------------------------------------------------------------

    def _show_changes(self, before: DataLook) -> None:
        now = self.look
        with self.app.batch_update():
            self._show_status()
            if now.examples != before.examples or now.problem != before.problem:
                self._show_example(moved=len(before.examples) <= self._at)
            if now.counted is not before.counted or now.problem != before.problem:
                self._show_counts()

    def _show_all(self) -> None:
        with self.app.batch_update():
            self._show_status()
            self._show_example(moved=True)
            self._show_counts()

    def _show_status(self) -> None:
        look = self.look
        if look.problem:
            pieces = [(" This data cannot be shown.", theme.style("error"))]
        elif look.progress is not None or look.began is None:
            told = look.progress.doing if look.progress is not None else "the data's process starts"
            far = ""
            if look.progress is not None and look.progress.of:
                far = f": {look.progress.done:,} of {look.progress.of:,}"
            pieces = [(f" {told[:1].upper()}{told[1:]}{far}", theme.style("primary"))]
        else:
            told = data_view.began_text(look.began).removeprefix("stage ")
            pieces = [(f" {told}", theme.style("text"))]
        self.query_one("#data-status", Pieces).show(pieces)

    def _show_example(self, *, moved: bool) -> None:
        examples = self.look.examples
        pane, head = (
            self.query_one("#data-example", TextPane),
            self.query_one("#data-head", Pieces),
        )
        if moved:
            pane.scroll_home_now()
        if not examples:
            head.show([("", theme.style("text"))])
            pane.set_lines(self._without_examples())
            return
        self._at = min(self._at, len(examples) - 1)
        shown = examples[self._at]
        stage = self.look.began.stage if self.look.began else "sft"
        told = data_view.example_head(shown, stage=stage, ascii=self.ascii)
        place = f" {self._at + 1}/{len(examples)} "
        head.show(
            [(place, theme.style("primary", bold=True)), (told, theme.style("text"))],
        )
        style = Style(
            ascii=self.ascii, tokens=self._tokens or self._ids, ids=self._ids, most=MOST_TOKENS
        )
        pane.set_lines([_text(line) for line in data_view.example_lines(shown, style)])

    def _without_examples(self) -> list[Text]:
        if self.look.problem:
            words = data_view.spelled_out(self.look.problem, ascii=self.ascii)
            return [
                Text(words, style=theme.COLOURS["error"]),
                Text(""),
                Text("Esc goes back to the form; r reads again.", style=theme.COLOURS["muted"]),
            ]
        if self.look.counted is not None:
            return [Text("There are no rows.", style=theme.COLOURS["muted"])]
        return [Text("The first examples come in a second or two.", style=theme.COLOURS["muted"])]

    def _show_counts(self) -> None:
        look = self.look
        self.query_one(LengthChart).show(look.counted, look.began)
        self.query_one("#data-findings", TextPane).set_lines(self._count_lines())

    def _count_lines(self) -> list[Text]:
        counted, began = self.look.counted, self.look.began
        if counted is None or began is None:
            if self.look.problem and self.look.examples:
                return [
                    Text(data_view.spelled_out(self.look.problem), style=theme.COLOURS["error"])
                ]
            return []
        lines = []
        for finding in counted.findings:
            role: Role = finding.severity
            text = Text()
            text.append(f"{finding.severity}: ", style=f"bold {theme.COLOURS[COLOURS[role]]}")
            text.append(data_view.finding_text(finding, ascii=self.ascii))
            lines.append(text)
        if not counted.findings:
            lines.append(
                Text("None of the usual mistakes was found.", style=theme.COLOURS["success"])
            )
        lines.append(Text(""))
        lengths = data_view.length_text(counted, began)
        about = data_view.rows_text(counted)
        muted = theme.COLOURS["secondary"]
        lines.append(Text(f"Lengths {about}: {lengths}.", style=muted))
        lines.append(Text(f"{data_view.amount_text(counted, began)}.", style=muted))
        if counted.looked < counted.of:
            lines.append(Text("a examines every row.", style=theme.COLOURS["muted"]))
        return lines

    # -- keys ---------------------------------------------------------------------------------

    def escape(self) -> None:
        """Esc: back to the form."""
        self._give_up()
        if self.look.ended:
            self._keep(self.look)
        self.dismiss()

    def action_next_example(self) -> None:
        """The next example."""
        self._go(self._at + 1)

    def action_previous_example(self) -> None:
        """The one before."""
        self._go(self._at - 1)

    def action_next_finding(self) -> None:
        """The next row that a finding is about."""
        examples = self.look.examples
        found = [i for i, shown in enumerate(examples) if shown.why is not None]
        if not found:
            self.say("No finding is about a single row." if self.look.ended else "Not yet known.")
            return
        self._go(next((i for i in found if i > self._at), found[0]))

    def _go(self, at: int) -> None:
        if not self.look.examples:
            return
        at = min(max(0, at), len(self.look.examples) - 1)
        if at != self._at:
            self._at = at
            self._show_example(moved=True)

    def action_next_pane(self) -> None:
        """The other pane gets the keys that scroll."""
        self.focus_next(TextPane)

    def action_toggle_tokens(self) -> None:
        """Each token apart, or the text."""
        self._tokens, self._ids = not (self._tokens or self._ids), False
        self._show_example(moved=False)

    def action_toggle_ids(self) -> None:
        """Each token with its number, or without."""
        self._ids = not self._ids
        self._show_example(moved=False)

    def action_read_again(self) -> None:
        """Read the data anew: files may have changed."""
        self._read()

    def action_examine_all(self) -> None:
        """Examine all rows, where only the first were."""
        counted = self.look.counted
        if counted is not None and counted.looked == counted.of:
            self.say("Every row has been examined.")
            return
        self._all = True
        self._read()


def _text(line: Line) -> Text:
    text = Text()
    for told, role in line:
        weight = "bold " if role == "head" else ""
        text.append(told, style=f"{weight}{theme.COLOURS[COLOURS[role]]}")
    return text
