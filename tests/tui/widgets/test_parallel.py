"""Parallel coordinates: which axes fit, which line is in front, and what is sent."""

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.widgets.parallel import BAD, Line, ParallelPlot, Upright, fitting

AXES = (
    Upright("lr", ((0.0, "1e-5"), (1.0, "1e-3"))),
    Upright("rank", ((0.25, "8"), (0.75, "16"))),
    Upright("schedule", ((0.5, "constant_with_warmup"),)),
    Upright("eval loss", ((0.0, "1.80"), (1.0, "2.00"))),
)
LINES = (
    Line(1, (0.5, 0.25, 0.5, 0.0), 0),
    Line(2, (1.0, 0.75, None, 1.0), 3),
    Line(3, (0.0, 0.75, 0.5, 1.0), BAD),
)


class PlotApp(App[None]):
    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self.plot = ParallelPlot(ascii=ascii)

    def compose(self) -> ComposeResult:
        yield self.plot


def shown(plot: ParallelPlot) -> list[str]:
    return [plot.build_line(y, plot.size.width).text for y in range(plot.size.height)]


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (60, 15), (80, 24), (160, 45), (300, 80)])
@pytest.mark.parametrize("ascii", [False, True])
async def test_any_lines_are_drawn_in_the_exact_width(size: tuple[int, int], ascii: bool) -> None:
    many = [Line(i, ((i * 0.6) % 1, (i * 0.7) % 1, 0.5, i / 499), i % 5) for i in range(500)]
    wide = (Upright("名前" * 30, ((0.5, "値" * 30),)), *AXES[1:])
    app = PlotApp(ascii=ascii)
    async with app.run_test(size=size):
        for axes, lines in (
            ((), ()), (AXES[:1], [Line(1, (0.5,), 0)]), (AXES, LINES), (AXES, many), (wide, LINES),
            (AXES, [Line(1, (None, None, None, None), BAD)]),
        ):  # fmt: skip
            app.plot.set_lines(axes, lines)
            app.plot.choose(1)
            for y in range(size[1]):
                strip = app.plot.build_line(y, size[0])
                assert strip.cell_length == size[0]
                assert not ascii or axes is wide or strip.text.isascii()


def test_the_value_is_always_in_sight_and_the_others_take_turns() -> None:
    assert fitting(4, 160, 0) == (0, 1, 2, 3)
    assert fitting(8, 60, 0) == (0, 1, 2, 3, 7)
    assert fitting(8, 60, 4) == (4, 5, 6, 0, 7)
    assert fitting(3, 5, 1) == (1, 2)
    assert fitting(1, 80, 0) == (0,) and fitting(0, 80, 0) == ()


async def test_every_axis_comes_round() -> None:
    axes = tuple(Upright(str(i)) for i in range(9))
    app = PlotApp()
    async with app.run_test(size=(60, 15)):
        app.plot.set_lines(axes, [Line(1, (0.5,) * 9, 0)])
        seen = set(app.plot.shown)
        assert app.plot.shown == ("0", "1", "2", "3", "8")
        for _ in range(2):
            assert app.plot.next_axes()
            seen |= set(app.plot.shown)
        assert seen == set("012345678")
        app.plot.set_lines(AXES, LINES)
        assert app.plot.shown == ("lr", "rank", "schedule", "eval loss")
        assert not app.plot.next_axes()


async def test_titles_and_labels_stand_at_their_axes() -> None:
    app = PlotApp()
    async with app.run_test(size=(80, 10)):
        app.plot.set_lines(AXES, LINES[:1])
        lines = shown(app.plot)
    for title in ("lr", "rank", "schedule", "eval loss"):
        at = lines[0].index(title)
        assert all(line[at] in "│├" or line[at] > "⠀" for line in lines[1:])
    assert "├1e-3" in lines[1] and "├1e-5" in lines[-1] and "├1.80" in lines[-1]
    assert any("├consta" in line for line in lines)


async def test_a_line_without_a_value_on_an_axis_is_broken_there() -> None:
    app = PlotApp()
    async with app.run_test(size=(80, 10)):
        app.plot.set_lines(AXES, LINES[1:2])
        lines = shown(app.plot)
        rank = lines[0].index("rank")
    behind = {c for line in lines[1:] for c in line[rank + 1 :]} - set(" │├constaw…12.800168")
    assert not behind


async def test_the_chosen_line_is_in_front_and_only_it_is_repainted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = PlotApp(ascii=True)
    async with app.run_test(size=(80, 12)) as pilot:
        app.plot.set_lines(AXES, LINES)
        await pilot.pause()
        before = shown(app.plot)
        assert not any("@" in line for line in before)
        asked: list[Region | None] = []
        monkeypatch.setattr(app.plot, "refresh", lambda *r, **_: asked.extend(r or [None]))
        app.plot.choose(1)
        after = shown(app.plot)
        changed = [y for y, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert any("@" in line for line in after) and None not in asked
        assert {r.y for r in asked if r is not None} == set(changed)
        asked.clear()
        app.plot.choose(1)
        app.plot.set_lines(AXES, LINES)
        assert asked == []


async def test_the_best_line_hides_the_others() -> None:
    app = PlotApp(ascii=True)
    async with app.run_test(size=(80, 10)):
        same = [Line(i, (0.5, 0.5, 0.5, 0.5), shade) for i, shade in enumerate((BAD, 0, 3))]
        app.plot.set_lines(AXES, same)
        text = "".join(shown(app.plot)[1:])
    assert "#" in text and "!" not in text


async def test_the_chosen_line_is_seen_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = PlotApp()
    async with app.run_test(size=(80, 10)):
        app.plot.set_lines(AXES, LINES)
        app.plot.choose(1)
        segments = [s for y in range(1, 10) for s in app.plot.build_line(y, 80)]
    assert any(s.style and s.style.reverse for s in segments)
    assert not any(s.style and s.style.reverse and not s.text.strip() for s in segments)
