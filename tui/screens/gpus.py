"""The machine: each GPU over time and who is on it, and the host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll

from tui import theme, words
from tui.actions import Context
from tui.device_view import GpuView, HostView, Measure, gpu_view, host_view
from tui.keymap import bindings
from tui.screens.base import DeckScreen
from tui.widgets.bars import Heading, Pieces
from tui.widgets.gauge import HistoryLine, marked_bar
from tui.widgets.lines import Piece, fit

if TYPE_CHECKING:
    from core.devices.gpu import GpuReading
    from tui.source import DeviceReading

SECONDS = 2.0
"""How often the devices are asked while this screen is shown."""
_LABEL = 9
_BAR = 30
MOST_PROCESSES = 6


class GpuBlock(Vertical):
    """One GPU."""

    def __init__(self, view: GpuView, *, ascii: bool) -> None:
        super().__init__()
        self._ascii = ascii
        self._view = view

    def compose(self) -> ComposeResult:
        yield Heading(self._view.title, ascii=self._ascii)
        for name in ("memory", "load", "power", "heat"):
            yield HistoryLine(f" {name}", label_width=_LABEL, ascii=self._ascii, classes=name)
        yield Pieces(ascii=self._ascii)

    def on_mount(self) -> None:
        self.show(self._view)

    def show(self, view: GpuView) -> None:
        """Add a reading."""
        self._view = view
        self.query_one(Heading).show(view.title)
        for name, measure in (
            ("memory", view.memory),
            ("load", view.load),
            ("power", view.power),
            ("heat", view.temperature),
        ):
            push(self.query_one(f".{name}", HistoryLine), measure, ascii=self._ascii)
        lines = [*expected_lines(view, ascii=self._ascii), *process_lines(view)]
        pieces = self.query_one(Pieces)
        if pieces.styles.height is None or pieces.styles.height.value != len(lines):
            pieces.styles.height = len(lines)
        pieces.show(*lines)


class HostBlock(Vertical):
    """The machine's processor and memory."""

    def __init__(self, *, ascii: bool) -> None:
        super().__init__()
        self._ascii = ascii

    def compose(self) -> ComposeResult:
        yield Heading("Host", ascii=self._ascii)
        for name in ("CPU", "RAM", "swap"):
            line = HistoryLine(f" {name}", label_width=_LABEL, ascii=self._ascii, id=name)
            line.display = name != "swap"
            yield line

    def show(self, view: HostView) -> None:
        """Add a reading."""
        push(self.query_one("#CPU", HistoryLine), view.cpu, ascii=self._ascii)
        push(self.query_one("#RAM", HistoryLine), view.ram, ascii=self._ascii)
        swap = self.query_one("#swap", HistoryLine)
        swap.display = view.swap is not None
        if view.swap is not None:
            push(swap, view.swap, ascii=self._ascii)


class GpusScreen(DeckScreen):
    """Reads the devices only while it is shown."""

    TITLE_NAME = "gpus"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("gpus",)
    BINDINGS: ClassVar[list[BindingType]] = bindings("gpus")

    def __init__(self) -> None:
        super().__init__()
        self._reading = False
        self._shown: tuple[str, ...] | None = None
        self._last: DeviceReading | None = None

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="problem")
        with VerticalScroll(id="devices", can_focus=False):
            yield HostBlock(ascii=self.ascii)

    def on_mount(self) -> None:
        self.set_interval(SECONDS, self._read)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._read()

    def _read(self) -> None:
        if self.is_current and not self._reading:
            self._reading = True
            self.run_worker(self._read_devices(), group="devices")

    async def _read_devices(self) -> None:
        try:
            reading = await asyncio.to_thread(self.deck.source.devices)
            if self.ready:
                await self.show_devices(reading)
        finally:
            self._reading = False

    async def show_devices(self, reading: DeviceReading) -> None:
        """Add a reading to every line."""
        self._last = reading
        views = [gpu_view(g, self.deck.view, reading.ancestors) for g in reading.gpus.gpus]
        await self._lay_out(views)
        problem = self.query_one("#problem", Pieces)
        text = problem_text(reading.gpus)
        problem.display = bool(text)
        problem.show([(f" ! {text}", theme.style("warning"))])
        with self.app.batch_update():
            for block, view in zip(self.query(GpuBlock), views, strict=True):
                block.show(view)
            self.query_one(HostBlock).show(host_view(reading.host))

    async def _lay_out(self, views: list[GpuView]) -> None:
        """One block for each GPU; made anew only when a GPU came or went."""
        present = tuple(view.uuid for view in views)
        if present == self._shown:
            return
        self._shown = present
        await self.query(GpuBlock).remove()
        blocks = [GpuBlock(view, ascii=self.ascii) for view in views]
        await self.query_one("#devices").mount_all(blocks, before=0)
        self.set_class(len(blocks) > 1, "-several")

    def action_scroll_up(self) -> None:
        self.query_one("#devices").scroll_relative(y=-3, animate=False, immediate=True)

    def action_scroll_down(self) -> None:
        self.query_one("#devices").scroll_relative(y=3, animate=False, immediate=True)

    def action_copy_gpus(self) -> None:
        if self._last is None:
            return
        views = [gpu_view(g, self.deck.view, self._last.ancestors) for g in self._last.gpus.gpus]
        self.deck.copy("\n".join(as_text(views, host_view(self._last.host))))


def push(line: HistoryLine, measure: Measure, *, ascii: bool) -> None:
    """Add a measure to its line."""
    value, text = measure
    line.push(value, text.replace(" C", "°C") if text.endswith(" C") and not ascii else text)


def problem_text(reading: GpuReading) -> str:
    """Why GPUs are missing; "" where none are."""
    if reading.problem:
        return reading.problem
    return "" if reading.gpus else "No GPU found on this machine: trials run on the CPU."


def expected_lines(view: GpuView, *, ascii: bool) -> list[list[Piece]]:
    """The memory in use with a mark where the trials' forecast puts it; no line without a forecast."""
    found = view.expected
    if found is None:
        return []
    muted, filled = (
        theme.style("muted"),
        theme.style("primary") + Style(bgcolor=theme.BAR_BACKGROUND),
    )
    drawn, at = marked_bar(found.used, found.forecast, _BAR, ascii)
    over = found.used > found.forecast
    mark = theme.style("warning" if over else "success", bold=True) + Style(
        bgcolor=theme.BAR_BACKGROUND
    )
    return [
        [
            (" " + fit("forecast", _LABEL), muted),
            (drawn[:at], filled),
            (drawn[at : at + 1], mark),
            (drawn[at + 1 :], filled),
            (f"  {found.text}", theme.style("text")),
            ("  more is in use" if over else "", theme.style("warning")),
        ]
    ]


def process_lines(view: GpuView) -> list[list[Piece]]:
    """Who was given the GPU and what runs on it, a line each."""
    muted, text, ours = theme.style("muted"), theme.style("text"), theme.style("primary", bold=True)
    lines: list[list[Piece]] = []
    if view.leased:
        names = ", ".join(f"trial {number}" for number in view.leased)
        lines.append([(" " + fit("given to", _LABEL), muted), (names, ours)])
    for place, process in enumerate(view.processes[:MOST_PROCESSES]):
        label = "runs" if place == 0 else ""
        style = ours if process.trial is not None else text
        lines.append(
            [
                (" " + fit(label, _LABEL), muted),
                (process.memory.rjust(9) + "  ", text),
                (process.text, style),
            ]
        )
    rest = len(view.processes) - MOST_PROCESSES
    if rest > 0:
        lines.append(
            [(" " * (_LABEL + 1), muted), (f"and {words.plural(rest, 'more process')}", muted)]
        )
    if not lines:
        lines.append([(" " + fit("runs", _LABEL), muted), ("nothing", muted)])
    return lines


def as_text(views: list[GpuView], host: HostView) -> list[str]:
    """The page as plain text, for a message to a colleague."""
    lines = []
    for view in views:
        lines.append(view.title)
        lines.append(
            f"  memory {view.memory[1]}, load {view.load[1]}, power {view.power[1]}, "
            f"temperature {view.temperature[1]}"
        )
        if view.expected is not None:
            lines.append(f"  {view.expected.text}")
        lines += [
            "  " + "".join(text for text, _ in pieces).strip() for pieces in process_lines(view)
        ]
    return [*lines, f"CPU {host.cpu[1]}, RAM {host.ram[1]}"]
