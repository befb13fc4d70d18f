import math

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.widgets.loss_chart import EMPTY_TEXT, ChartSeries, LossChart

SIZES = [(60, 15), (80, 24), (160, 45)]


def falling(count: int) -> tuple[tuple[float, float], ...]:
    return tuple((float(i), 3.0 * math.exp(-i / 40) + 0.5) for i in range(count))


class ChartApp(App[None]):
    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self.chart = LossChart(title="trial 3", ascii=ascii)

    def compose(self) -> ComposeResult:
        yield self.chart


def shown(chart: LossChart) -> list[str]:
    return [chart.build_line(y, chart.size.width).text for y in range(chart.size.height)]


def repainted(chart: LossChart, monkeypatch: pytest.MonkeyPatch) -> list[Region | None]:
    """The regions that the chart asks to repaint from now on; None stands for all of it."""
    asked: list[Region | None] = []
    monkeypatch.setattr(chart, "refresh", lambda *regions, **_: asked.extend(regions or [None]))
    return asked


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize(
    "points",
    [
        (),
        ((0.0, 1.0),),
        ((0.0, 1.0), (1.0, 1.0)),
        ((0.0, math.nan), (5.0, math.inf)),
        ((0.0, 0.0), (1.0, -3.0), (2.0, 1e300), (3.0, -1e300)),
        falling(500),
    ],
)
async def test_any_series_is_drawn_in_the_exact_width(size, ascii, points):
    app = ChartApp(ascii=ascii)
    async with app.run_test(size=size):
        chart = app.chart
        chart.set_series([ChartSeries("train", points), ChartSeries("eval", points[::9], "eval")])
        for change in (chart.toggle_log, chart.toggle_smooth, chart.cursor_left, chart.cursor_off):
            change()
            for y in range(size[1]):
                strip = chart.build_line(y, size[0])
                assert strip.cell_length == size[0]
                assert not ascii or strip.text.isascii()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9, 3), (12, 4)])
async def test_a_tiny_chart_does_not_fail(size):
    app = ChartApp()
    async with app.run_test(size=size):
        app.chart.set_series([ChartSeries("train", (*falling(9), (9.0, math.nan)))])
        app.chart.cursor_left()
        assert all(app.chart.build_line(y, size[0]).cell_length == size[0] for y in range(size[1]))


async def test_an_empty_chart_says_when_the_first_point_comes():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        assert any(EMPTY_TEXT in text for text in shown(app.chart))
        app.chart.set_series([ChartSeries("train", ())])
        assert any(EMPTY_TEXT in text for text in shown(app.chart))


async def test_axes_and_legend_carry_round_numbers_and_names():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        app.chart.set_series(
            [ChartSeries("train", falling(101)), ChartSeries("eval", falling(101)[::10], "eval")]
        )
        lines = shown(app.chart)
        assert lines[0].split() == ["trial", "3", "─*─", "train", "─o─", "eval"]
        ticks = [text.split("┤")[0].strip() for text in lines if "┤" in text]
        assert ticks == ["3.5", "3.0", "2.5", "2.0", "1.5", "1.0", "0.5"]
        assert lines[-1].split() == ["0", "20", "40", "60", "80", "100"]


async def test_points_that_are_not_finite_are_named_at_the_top():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        app.chart.set_series([ChartSeries("train", (*falling(12), (12.0, math.nan)))])
        top = shown(app.chart)[1]
        assert "x" in top
        assert "NaN at step 12" in top
        app.chart.set_series(
            [ChartSeries("train", (*falling(12), (12.0, math.inf), (13.0, math.nan)))]
        )
        assert "inf at step 12 (+1)" in shown(app.chart)[1]


async def test_an_announced_end_keeps_the_step_axis_still():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        for count in (2, 50, 499):
            app.chart.set_series([ChartSeries("train", falling(count))], x_end=500)
            assert shown(app.chart)[-1].split()[-1] == "500"


async def test_a_new_point_repaints_few_lines(monkeypatch):
    app = ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chart.set_series([ChartSeries("train", falling(200))], x_end=500)
        await pilot.pause()
        asked = repainted(app.chart, monkeypatch)
        app.chart.set_series([ChartSeries("train", falling(200))], x_end=500)
        assert asked == []
        app.chart.set_series([ChartSeries("train", falling(203))], x_end=500)
        assert None not in asked
        assert 1 <= len(asked) <= 2


async def test_a_logarithmic_axis_labels_powers_of_ten():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        points = tuple((float(i), 10.0 ** (-i / 25)) for i in range(101))
        app.chart.set_series([ChartSeries("train", points)])
        assert app.chart.toggle_log()
        lines = shown(app.chart)
        ticks = [text.split("┤")[0].strip() for text in lines if "┤" in text]
        assert ticks[0] == "1"
        assert ticks[-1] == "1e-4"
        assert "[log]" in lines[0]
        assert not app.chart.toggle_log()


async def test_smoothing_adds_a_second_line():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        points = tuple((float(i), 1.0 + (i % 2)) for i in range(60))
        app.chart.set_series([ChartSeries("train", points)], x_end=400)
        assert app.chart.toggle_smooth()
        assert "[smooth]" in shown(app.chart)[0]
        owners = {owner for line in app.chart._picture.canvas.owner for owner in line}
        assert owners == {-1, 0, 1}


async def test_zoom_follows_the_newest_step_and_pan_moves_the_window():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        app.chart.set_series([ChartSeries("train", falling(401))], x_end=400)
        app.chart.zoom(2)
        assert shown(app.chart)[-1].split()[0] == "200"
        assert "[zoom]" in shown(app.chart)[0]
        app.chart.pan(-0.5)
        assert shown(app.chart)[-1].split()[0] == "100"
        app.chart.pan(-9)
        assert shown(app.chart)[-1].split()[0] == "0"
        app.chart.zoom(0.1)
        assert "[zoom]" not in shown(app.chart)[0]
        app.chart.zoom(4)
        app.chart.reset_view()
        assert shown(app.chart)[-1].split()[-1] == "400"


async def test_the_cursor_reads_step_and_values():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        app.chart.set_series(
            [
                ChartSeries("train", ((0.0, 3.0), (10.0, 2.0), (20.0, 1.0))),
                ChartSeries("eval", ((10.0, 2.5),), "eval"),
            ]
        )
        assert app.chart.readout == ""
        app.chart.cursor_left()
        assert app.chart.readout == "step 20  train 1  eval 2.5"
        app.chart.cursor_left()
        assert app.chart.readout == "step 10  train 2  eval 2.5"
        app.chart.cursor_left()
        app.chart.cursor_left()
        assert app.chart.readout == "step 0  train 3"
        app.chart.cursor_right()
        assert app.chart.readout.startswith("step 10")
        assert shown(app.chart)[0].endswith("step 10  train 2  eval 2.5")
        assert "▲" in shown(app.chart)[-1]


async def test_a_cursor_that_leaves_the_window_takes_it_along():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        app.chart.set_series([ChartSeries("train", falling(401))], x_end=400)
        app.chart.zoom(8)
        app.chart.cursor_left()
        for _ in range(120):
            app.chart.cursor_left()
        step = int(app.chart.readout.split()[1])
        labels = [int(label) for label in shown(app.chart)[-1].replace("▲", " ").split()]
        assert step < 340
        assert min(labels) - 20 <= step <= max(labels) + 20


async def test_a_click_puts_the_cursor_on_the_nearest_step():
    app = ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chart.set_series([ChartSeries("train", falling(101))], x_end=100)
        await pilot.pause()
        await pilot.click(app.chart, offset=(79, 10))
        assert app.chart.readout.startswith("step 100")


async def test_series_are_told_apart_without_colour():
    app = ChartApp(ascii=True)
    async with app.run_test(size=(80, 24)):
        app.chart.set_series(
            [
                ChartSeries("3e-4", tuple((float(i), 1.0) for i in range(50))),
                ChartSeries("1e-4", tuple((float(i), 2.0) for i in range(50))),
            ]
        )
        lines = shown(app.chart)
        assert "-*- 3e-4" in lines[0]
        assert "-o- 1e-4" in lines[0]
        plots = [text.partition("+")[2] + text.partition("|")[2] for text in lines[1:-1]]
        assert any(set(text.split("|")[-1].strip()) == {"*"} for text in plots)
        assert any(set(text.split("|")[-1].strip()) == {"o"} for text in plots)


async def test_dim_series_lie_behind_the_others():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        points = tuple((float(i), 1.0) for i in range(100))
        app.chart.set_series([ChartSeries("mine", points), ChartSeries("other", points, dim=True)])
        shown(app.chart)
        picture = app.chart._picture
        owners = {owner for line in picture.canvas.owner for owner in line} - {-1}
        assert [picture.looks[owner] for owner in owners] == [(0, False)]


async def test_labels_cannot_smuggle_escape_sequences():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        app.chart.set_series([ChartSeries("a\x1b[2Jb", falling(5))], title="t\x07")
        app.chart.cursor_left()
        assert not any(ord(c) < 32 for c in "".join(shown(app.chart)))


async def test_a_spike_stays_visible_when_thousands_of_points_share_the_line():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        points = [(float(i), 1.0) for i in range(50_000)]
        points[31_000] = (31_000.0, 50.0)
        app.chart.set_series([ChartSeries("train", points)])
        assert "⠀" < shown(app.chart)[1].split("┤")[1].strip()[0] <= "⣿"


async def test_a_growing_series_and_another_one_in_its_place_are_both_read():
    app = ChartApp()
    async with app.run_test(size=(80, 24)):
        points = list(falling(10))
        app.chart.set_series([ChartSeries("train", points)])
        points += [(10.0, 7.25), (11.0, math.nan)]
        app.chart.set_series([ChartSeries("train", points)])
        app.chart.cursor_left()
        assert app.chart.readout == "step 10  train 7.25"
        assert "NaN at step 11" in shown(app.chart)[1]
        app.chart.set_series([ChartSeries("train", [(float(i), 4.5) for i in range(40)])])
        assert app.chart.readout == "step 10  train 4.5"
        assert "NaN" not in shown(app.chart)[1]


async def test_an_exploding_series_that_is_clipped_leaves_the_others_their_height():
    app = ChartApp()
    exploding = tuple((float(i), 2.0 * 1.5**i) for i in range(20))
    async with app.run_test(size=(80, 24)):
        chart = app.chart
        chart.set_series([ChartSeries("good", falling(100))])
        alone = shown(chart)
        chart.set_series(
            [ChartSeries("good", falling(100)), ChartSeries("bad", exploding, clipped=True)]
        )
        both = shown(chart)
        axis = [text.partition("┤")[0] for text in alone[1:-1] if "┤" in text]
        assert [text.partition("┤")[0] for text in both[1:-1] if "┤" in text] == axis
        assert both[1].count("⠉") < 5, "it leaves at the edge instead of running along it"
        assert "o" in both[1], "its mark stands where it left"
        chart.set_series([ChartSeries("bad", exploding, clipped=True)])
        assert "5000" in "".join(shown(chart)), "alone it is drawn whole"
