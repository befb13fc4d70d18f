import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.widgets.gauge import Gauge, HistoryLine, bar

shares = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(shares, st.integers(0, 60), st.booleans())
def test_a_bar_is_exactly_as_wide_as_asked(fraction, width, ascii):
    text = bar(fraction, width, ascii)
    assert len(text) == width
    assert not ascii or text.isascii()


@given(st.floats(0, 1), st.integers(2, 60))
def test_only_nothing_looks_empty_and_only_all_looks_full(fraction, width):
    assert (bar(fraction, width) == " " * width) == (fraction == 0)
    assert (bar(fraction, width) == "█" * width) == (fraction == 1)


@pytest.mark.parametrize(
    ("fraction", "text", "plain"),
    [
        (0.0, "    ", "----"),
        (0.5, "██  ", "##--"),
        (1.0, "████", "####"),
        (7.0, "████", "####"),
        (0.2, "▊   ", "#---"),
        (None, "n/a ", "n/a "),
        (math.nan, "n/a ", "n/a "),
    ],
)
def test_bars(fraction, text, plain):
    assert bar(fraction, 4) == text
    assert bar(fraction, 4, ascii=True) == plain


class Lines(App[None]):
    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self.gauge = Gauge("memory", 0.5, "12 / 24 GB", ascii=ascii)
        self.history = HistoryLine("util", per_column=2, ascii=ascii)

    def compose(self) -> ComposeResult:
        yield self.gauge
        yield self.history


def text_of(widget: Gauge | HistoryLine) -> str:
    return widget.render_line(0).text


async def test_a_gauge_shows_label_bar_and_text_in_its_width():
    app = Lines()
    async with app.run_test(size=(40, 5)):
        shown = text_of(app.gauge)
        assert len(shown) == 40
        assert shown.startswith("memory █")
        assert shown.endswith(" 12 / 24 GB")


async def test_a_narrow_gauge_keeps_its_number():
    app = Lines()
    async with app.run_test(size=(14, 5)):
        assert text_of(app.gauge).endswith("12 / 24 GB")


async def test_a_gauge_repaints_only_when_it_looks_different(monkeypatch):
    app = Lines()
    async with app.run_test(size=(40, 5)) as pilot:
        await pilot.pause()
        asked: list[Region] = []
        monkeypatch.setattr(app.gauge, "refresh", lambda *regions, **_: asked.extend(regions))
        app.gauge.update(fraction=0.5, text="12 / 24 GB")
        app.gauge.update(fraction=0.5001)
        assert asked == []
        app.gauge.update(fraction=0.6, text="14 / 24 GB")
        assert len(asked) == 1


async def test_a_gauge_without_a_value_says_so():
    app = Lines()
    async with app.run_test(size=(40, 5)):
        app.gauge.update(fraction=None, text="")
        assert "n/a" in text_of(app.gauge)


async def test_a_history_shares_a_cell_between_samples_and_shows_the_highest():
    app = Lines()
    async with app.run_test(size=(40, 5)):
        app.history.set_values([0, 100, 50, 0])
        assert text_of(app.history).startswith("util █▅ ")
        assert text_of(app.history).endswith("   0%")
        app.history.push(None)
        assert text_of(app.history).startswith("util █▅  ")
        assert text_of(app.history).endswith(" n/a")


async def test_a_history_shows_the_newest_when_it_outgrows_the_line():
    app = Lines()
    async with app.run_test(size=(20, 5)):
        app.history.set_values([0] * 1000 + [100, 100])
        shown = text_of(app.history)
        assert len(shown) == 20
        assert shown.removeprefix("util ").split()[0].endswith("▁█")


async def test_ascii_lines_are_ascii():
    app = Lines(ascii=True)
    async with app.run_test(size=(40, 5)):
        app.history.set_values([0, 30, 100])
        assert text_of(app.gauge).isascii()
        assert text_of(app.history).isascii()
