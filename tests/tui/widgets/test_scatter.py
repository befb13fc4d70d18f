"""Trials as dots over a parameter: what is where, what is sent, and every odd value."""

import math
from typing import Any

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.widgets.scatter import Dot, Horizontal, ScatterPlot, place_labels, value_range

SIZES = [(1, 1), (7, 3), (60, 15), (80, 24), (160, 45), (300, 80)]
BELOW = Horizontal(((0.0, "1e-5"), (0.5, "1e-4"), (1.0, "1e-3")), safe=0.6, bad=0.8)
DOTS = (
    Dot(1, 0.2, 2.0, "done", "trial 1: 2.0000"),
    Dot(2, 0.5, 1.8, "best", "trial 2: 1.8000"),
    Dot(3, 0.4, 2.1, "dropped"),
    Dot(4, 0.9, None, "diverged"),
    Dot(5, 0.1, None, "out"),
)
ODD: tuple[tuple[Dot, ...], ...] = (
    (),
    DOTS[:1],
    tuple(Dot(i, 0.5, 1.0, "done") for i in range(5)),
    tuple(Dot(i, i / 9, None, "diverged") for i in range(10)),
    (Dot(1, 0.0, math.nan, "done"), Dot(2, 1.0, math.inf, "done"), Dot(3, 0.5, -1e300, "done")),
    (Dot(1, 0.0, 1e300, "done"), Dot(2, 1.0, -1e300, "best"), Dot(3, 0.3, 0.0, "done")),
    tuple(Dot(i, (i * 0.618) % 1, 2 + (i * 0.37) % 1, "done", "x" * 400) for i in range(2000)),
)


class PlotApp(App[None]):
    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self.plot = ScatterPlot(ascii=ascii)
        self.picked: list[int] = []

    def compose(self) -> ComposeResult:
        yield self.plot

    def on_scatter_plot_picked(self, event: ScatterPlot.Picked) -> None:
        self.picked.append(event.key)


def shown(plot: ScatterPlot) -> list[str]:
    return [plot.build_line(y, plot.size.width).text for y in range(plot.size.height)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("high_is_good", [False, True])
async def test_any_dots_are_drawn_in_the_exact_width(
    size: tuple[int, int], ascii: bool, high_is_good: bool
) -> None:
    app = PlotApp(ascii=ascii)
    async with app.run_test(size=size):
        for dots in ODD:
            for below in (BELOW, Horizontal(((0.5, "名前" * 40),), choices=1)):
                app.plot.set_dots(dots, below, high_is_good=high_is_good)
                app.plot.choose(1)
                for _ in range(2):
                    app.plot.toggle_log()
                    for y in range(size[1]):
                        strip = app.plot.build_line(y, size[0])
                        assert strip.cell_length == size[0]
                        assert not ascii or below is not BELOW or strip.text.isascii()


async def test_the_best_lies_below_and_what_diverged_at_the_top_edge() -> None:
    app = PlotApp()
    async with app.run_test(size=(60, 14)):
        app.plot.set_dots(DOTS, BELOW)
        lines = shown(app.plot)
    assert lines[0].startswith("★ best  ● whole probe  ○ dropped  ↑ diverged  ✗ no value")
    assert lines[1].startswith("no value") and "↑" in lines[1] and "✗" in lines[1]
    at = {sign: next(y for y, text in enumerate(lines[1:], 1) if sign in text) for sign in "★●○"}
    assert at["★"] > at["●"] > at["○"]


async def test_where_high_is_good_what_has_no_value_lies_below() -> None:
    app = PlotApp()
    async with app.run_test(size=(60, 14)):
        app.plot.set_dots(DOTS, BELOW, high_is_good=True)
        lines = shown(app.plot)
    assert lines[-3].startswith("no value") and "↑" in lines[-3]


async def test_the_axis_says_what_is_safe_and_what_diverged() -> None:
    app = PlotApp()
    async with app.run_test(size=(59, 14)):
        app.plot.set_dots(DOTS, BELOW)
        axis = shown(app.plot)[-2]
        app.plot.ascii = True
        plain = shown(app.plot)[-2]
    # 50 columns: up to 0.6 of them it is safe, from 0.8 on something diverged.
    assert axis == " " * 8 + "└" + "━" * 30 + "─" * 9 + "╌" * 11
    assert plain == " " * 8 + "+" + "=" * 30 + "-" * 9 + "x" * 11


async def test_a_far_worse_value_does_not_press_the_others_flat() -> None:
    dots = [Dot(i, i / 9, 2 + i / 100, "done") for i in range(9)] + [Dot(9, 1.0, 900.0, "done")]
    app = PlotApp()
    async with app.run_test(size=(60, 20)):
        app.plot.set_dots(dots, BELOW)
        lines = shown(app.plot)
    assert "above" in lines[1] and "●" in lines[1]
    assert sum("●" in line for line in lines[2:]) >= 5


def test_the_scale_holds_all_but_what_is_far_off() -> None:
    assert value_range([2.0, 2.1, 2.2, 2.3], high_is_good=False) == (2.0, 2.3)
    assert value_range([2.0, 2.1, 2.2, 2.3, 9.0], high_is_good=False) == (2.0, 2.3)
    assert value_range([0.9, 0.88, 0.86, 0.85, 0.1], high_is_good=True) == (0.85, 0.9)
    assert value_range([1.0], high_is_good=False) == (1.0, 1.0)
    assert value_range([1.0, 1.0, 1.0, 1.0, 50.0], high_is_good=False) == (1.0, 50.0)


async def test_moving_the_cursor_repaints_two_dots_and_the_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = PlotApp()
    async with app.run_test(size=(100, 20)) as pilot:
        app.plot.set_dots(DOTS, BELOW)
        app.plot.choose(1)
        await pilot.pause()
        asked: list[Region | None] = []
        monkeypatch.setattr(app.plot, "refresh", lambda *r, **_: asked.extend(r or [None]))
        app.plot.choose(2)
        app.plot.choose(2)
        app.plot.set_dots(DOTS, BELOW)
        regions = [r for r in asked if r is not None]
        assert len(regions) == len(asked) == 3
        assert sorted(r.width for r in regions)[:2] == [1, 1]


async def test_the_next_trial_is_the_one_beside_it_in_the_picture() -> None:
    app = PlotApp()
    async with app.run_test(size=(60, 20)):
        app.plot.set_dots(DOTS, BELOW)
        order = []
        everyone = {dot.key for dot in DOTS}
        while (key := app.plot.beside(1, everyone)) is not None:
            order.append(key)
            app.plot.choose(key)
        assert order == [5, 1, 3, 2, 4] and app.plot.beside(-1, everyone) == 2
        assert app.plot.beside(-1, everyone - {2, 3}) == 1
        app.plot.set_dots((), BELOW)
        assert app.plot.beside(1, everyone) is None


async def test_a_click_picks_the_nearest_dot() -> None:
    app = PlotApp()
    async with app.run_test(size=(60, 14)) as pilot:
        app.plot.set_dots(DOTS, BELOW)
        await pilot.pause()
        lines = shown(app.plot)
        y = next(y for y, text in enumerate(lines[1:], 1) if "★" in text)
        await pilot.click(ScatterPlot, offset=(lines[y].index("★") + 1, y))
        await pilot.click(ScatterPlot, offset=(30, 13))
        assert app.picked == [2]


async def test_trials_of_one_choice_stand_side_by_side() -> None:
    below = Horizontal(((0.25, "linear"), (0.75, "cosine")), choices=2)
    dots = [Dot(i, 0.25, 2.0, "done") for i in range(5)] + [Dot(9, 0.75, 2.0, "best")]
    app = PlotApp()
    async with app.run_test(size=(60, 10)):
        app.plot.set_dots(dots, below)
        row = next(text for text in shown(app.plot)[1:] if "★" in text)
    assert "●●●●●" in row and row.count("★") == 1


def test_labels_that_would_touch_are_left_out() -> None:
    assert place_labels([(0.0, "aa"), (0.1, "bb"), (1.0, "cc")], 10, ascii=True) == "aa      cc"
    assert len(place_labels([(0.5, "a" * 50)], 20, ascii=True)) <= 20


@pytest.mark.parametrize("no_color", [False, True])
async def test_the_cursor_is_seen_without_colour(
    no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = PlotApp()
    async with app.run_test(size=(60, 14)):
        app.plot.set_dots(DOTS, BELOW)
        app.plot.choose(1)
        segments: list[Any] = [
            s
            for y in range(1, 11)
            for s in app.plot.build_line(y, 60)
            if s.style and s.style.reverse
        ]
    assert [s.text for s in segments] == ["●"]
