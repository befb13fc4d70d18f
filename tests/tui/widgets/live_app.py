"""A small dashboard whose keys do what time does in the real one: `t` is a tick.

Run as a program on a pseudo-terminal by the tests that count bytes. Arguments: the number of
rows, and "ascii" for the plain characters.
"""

import random
import sys
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.repaint import LeanApp
from tui.widgets.gauge import Gauge, HistoryLine
from tui.widgets.loss_chart import ChartSeries, LossChart
from tui.widgets.trial_table import Column, LiveTable, Row, Trend

LIVE = 8
COLUMNS = [
    Column("id", "Trial", 5, "right", priority=9),
    Column("state", "State", 9, priority=8),
    Column("rate", "Rate", 9, "right", priority=7),
    Column("step", "Step", 8, "right", priority=4),
    Column("loss", "Loss", 7, "right", priority=8),
    Column("trend", "Trend", min_width=8, max_width=16, priority=3),
    Column("eta", "ETA", 6, "right", priority=1),
    Column("note", "Note", min_width=8, priority=0),
]


class Help(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        yield Static("the keys that work here")


class LiveApp(LeanApp[None]):
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, count: int, *, ascii: bool) -> None:
        super().__init__()
        self.count = count
        self.step = 0
        self.random = random.Random(1)
        self.losses = [[2.5] for _ in range(count)]
        self.table = LiveTable(COLUMNS, ascii=ascii)
        self.chart = LossChart(ascii=ascii)
        self.gauge = Gauge("memory", 0.5, "12.0 / 24.0 GB", ascii=ascii)
        self.history = HistoryLine("util", ascii=ascii)

    def compose(self) -> ComposeResult:
        yield self.table
        yield self.chart
        yield self.gauge
        yield self.history

    def on_mount(self) -> None:
        self.table.focus()
        self.key_t()

    def key_t(self) -> None:
        """A tick: eight trials report a new loss."""
        self.step += 1
        for losses in self.losses[:LIVE]:
            losses.append(losses[-1] * 0.995 + self.random.uniform(-0.05, 0.05))
        self.table.set_rows([self.row(i) for i in range(self.count)])
        points = list(enumerate(self.losses[3]))
        self.chart.set_series(
            [ChartSeries("train", points), ChartSeries("eval", points[::10], "eval")], x_end=500
        )
        self.gauge.update(fraction=0.5 + 0.01 * (self.step % 40))
        self.history.push(self.random.uniform(20, 99))

    def row(self, i: int) -> Row:
        live = i < LIVE
        return Row(
            f"t{i}",
            {
                "id": str(i),
                "state": Text("running", style="green") if live else "done",
                "rate": f"{1e-4 * (i % 9 + 1):.1e}",
                "step": f"{self.step if live else 500}/500",
                "loss": f"{self.losses[i][-1]:.4f}",
                "trend": Trend(self.losses[i]),
                "eta": f"{500 - self.step}s" if live else "",
                "note": "ok 中文",
            },
            marked=i == 2,
        )

    def key_r(self) -> None:
        """Repaint everything."""
        self.redraw()

    def key_e(self) -> None:
        """Ask Textual to repaint everything, which changes nothing."""
        self.screen.refresh()

    def key_o(self) -> None:
        """Turn the order round."""
        self.table.set_rows(self.table.rows[::-1])

    def key_l(self) -> None:
        self.chart.toggle_log()

    def key_s(self) -> None:
        self.chart.toggle_smooth()

    def key_z(self) -> None:
        self.chart.zoom(2)

    def key_x(self) -> None:
        """Ring once everything before this key has been painted."""
        self.call_after_refresh(self.bell)

    def key_left(self) -> None:
        self.chart.cursor_left()

    def key_h(self) -> None:
        self.push_screen(Help())


if __name__ == "__main__":
    LiveApp(int(sys.argv[1]), ascii="ascii" in sys.argv).run()
