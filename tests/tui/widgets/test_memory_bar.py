"""The memory bar at several sizes, with Unicode and without."""

from dataclasses import replace

import pytest
from textual.app import App, ComposeResult

from core.memory.forecast import Target
from tests.tui.fake_memory import GIB, forecast
from tui.memory_view import Device, MemoryView, in_order, memory_line
from tui.widgets.memory_bar import MemoryBar, bar_pieces, lines_needed, memory_pieces


def device(label: str, name: str, free: float) -> Device:
    return Device(label, Target(kind="cuda", name=name, total=80 * GIB, free=int(free * GIB)))


DEVICES = (
    device("GPU 0", "NVIDIA A100-SXM4-80GB", 79.2),
    device("GPU 1", "NVIDIA GeForce RTX 4090", 23.6),
    device("GPU 2", "Tesla T4", 14.6),
    device("GPU 3", "Tesla P100", 15.9),
)


def view(rows: float = 4, *, proven: bool = False) -> MemoryView:
    found = forecast(rows, proven=proven)
    return MemoryView(in_order([memory_line(found, d) for d in DEVICES]))


def text(
    shown: MemoryView, width: int, *, y: int = 0, roomy: bool = False, ascii: bool = False
) -> str:
    pieces = memory_pieces(shown, y, width, roomy=roomy, ascii=ascii)
    return "".join(part for part, _ in pieces)


@pytest.mark.parametrize("rows", [1, 4, 8, 40])
@pytest.mark.parametrize("width", [58, 70, 78, 118, 158, 198])
@pytest.mark.parametrize("ascii", [False, True])
def test_every_line_fits_and_keeps_numbers_and_verdict(
    rows: float, width: int, ascii: bool
) -> None:
    for roomy in (False, True):
        shown = view(rows)
        for y in range(lines_needed(shown, roomy=roomy)):
            found = text(shown, width, y=y, roomy=roomy, ascii=ascii)
            assert len(found) <= width
            assert not ascii or found.isascii()
        for y in range(3 if roomy else 1):
            line = text(shown, width, y=y, roomy=roomy, ascii=ascii)
            assert " GiB" in line and "est" in line
            assert ("fits" in line) or ("too " in line)


def test_a_small_terminal_shows_the_device_that_counts_most() -> None:
    assert text(view(), 78).startswith("GPU 2 ")
    assert "13.0 of 14.6 GiB" in text(view(), 78)
    assert "(estimate)" in text(view(), 78)
    assert lines_needed(view(), roomy=False) == 1


def test_a_wide_terminal_shows_three_devices_and_what_the_first_is_made_of() -> None:
    shown = view(8)
    assert lines_needed(shown, roomy=True) == 4
    rows = [text(shown, 158, y=y, roomy=True) for y in range(4)]
    assert [row[:5] for row in rows[:3]] == ["GPU 2", "GPU 3", "GPU 1"]
    bars = {row.index(" of ") for row in rows[:3]}
    assert len(bars) == 1  # They stand under each other.
    assert "weights 6.0" in rows[3] and "activations 8.0" in rows[3]
    assert "peak in the backward pass, most: activations 43%" in rows[3]


def test_what_is_too_much_is_marked_where_the_room_ends() -> None:
    line = memory_line(forecast(16), DEVICES[2])
    drawn = "".join(part for part, _ in bar_pieces(line, 40, ascii=True))
    assert len(drawn) == 40
    assert drawn.index("|") == line.room * 40 // line.total
    assert "." not in drawn
    fits = "".join(
        part for part, _ in bar_pieces(memory_line(forecast(1), DEVICES[0]), 40, ascii=True)
    )
    assert "|" not in fits and fits.endswith("....")


def test_neighbours_in_the_bar_differ_without_colour() -> None:
    line = memory_line(forecast(16), DEVICES[0])
    drawn = [part for part, _ in bar_pieces(line, 900, ascii=False)]
    shapes = [a for a, b in zip(drawn, ["", *drawn], strict=False) if a != b]
    assert len(shapes) == len(line.segments) + 1  # And what is free.


def test_a_proof_says_so_and_a_draft_with_a_problem_keeps_the_last_forecast() -> None:
    assert "(proven)" in text(view(proven=True), 158)
    assert "(proving)" in text(replace(view(), proving=True), 158)
    stale = text(replace(view(), stale="before the problem"), 158)
    assert "before the problem" in stale and "fits" not in stale


def test_no_forecast_says_why() -> None:
    why = "no forecast: the folder has no config.json"
    assert text(MemoryView(problem=why), 78) == f"memory {why}"
    assert lines_needed(MemoryView(problem=why), roomy=True) == 1
    assert text(MemoryView(), 78) == ""


class Bars(App[None]):
    def compose(self) -> ComposeResult:
        yield MemoryBar()


async def test_the_bar_takes_the_lines_that_it_needs() -> None:
    app = Bars()
    async with app.run_test(size=(160, 10)) as pilot:
        bar = app.query_one(MemoryBar)
        for roomy, height in ((False, 1), (True, 4), (False, 1)):
            bar.show(view(), roomy=roomy)
            await pilot.pause()
            assert bar.size.height == height
            assert len(bar.text.splitlines()) == height


async def test_a_forecast_that_looks_the_same_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Bars()
    async with app.run_test(size=(80, 5)) as pilot:
        bar = app.query_one(MemoryBar)
        bar.show(view(), roomy=False)
        await pilot.pause()
        asked: list[object] = []
        monkeypatch.setattr(bar, "refresh", lambda *regions, **_: asked.extend(regions))
        bar.show(view(), roomy=False)
        assert asked == []
        bar.show(view(proven=True), roomy=False)
        assert asked
