"""What goes over the wire, counted on a real pseudo-terminal."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.wire import Wire

ROOT = Path(__file__).parents[2]
APP = Path(__file__).parent / "widgets" / "live_app.py"
BELL = b"\x07"


def dashboard(columns: int, rows: int, count: int, *options: str, **env: str) -> Wire:
    wire = Wire(
        [sys.executable, str(APP), str(count), *options],
        columns=columns,
        rows=rows,
        env={"PYTHONPATH": str(ROOT), **env},
        cwd=ROOT,
    )
    wire.wait_for("Trial")
    rest(wire)
    return wire


def rest(wire: Wire) -> None:
    """Read until the program has painted all that it has to: it rings then.

    Three times, as what is painted may lead to more; a silence alone may mean that it gets no time.
    """
    for _ in range(3):
        rung = wire.output.count(BELL)
        wire.send("x")
        until(lambda rung=rung: wire.output.count(BELL) > rung, wire)


def until(condition: Callable[[], bool], wire: Wire) -> None:
    """Read until the condition holds."""
    end = time.monotonic() + 120
    while not condition():
        wire.count(0.02)
        assert time.monotonic() < end, wire.screen()


def ask(wire: Wire, key: str) -> bytes:
    """Press a key; what comes of it."""
    before = len(wire.output)
    wire.send(key)
    rest(wire)
    return bytes(wire.output[before:]).replace(BELL, b"")


def cost(wire: Wire, key: str) -> int:
    """How many bytes come of a key."""
    return len(ask(wire, key))


def everything(wire: Wire) -> list[list[tuple[str, str, str, bool, bool]]]:
    """Each cell of the screen with its colours, boldness and reversal."""
    terminal = wire.terminal()
    return [
        [
            (cell.data, cell.fg, cell.bg, cell.bold, cell.reverse)
            for cell in (terminal.buffer[y][x] for x in range(wire.columns))
        ]
        for y in range(wire.rows)
    ]


def test_a_dashboard_in_which_nothing_happens_sends_nothing():
    with dashboard(80, 24, 8) as wire:
        assert wire.count(2) == 0


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (160, 45)])
def test_a_tick_of_eight_live_trials_costs_less_than_five_kilobytes(size):
    with dashboard(*size, 8) as wire:
        ticks = [cost(wire, "t") for _ in range(5)]
    assert min(ticks) > 0
    assert max(ticks) < 5_000


def test_two_thousand_trials_cost_no_more_than_eight_while_eight_are_live():
    with dashboard(80, 24, 8) as few, dashboard(80, 24, 2000) as many:
        few_bytes = sum(cost(few, "t") for _ in range(3))
        many_bytes = sum(cost(many, "t") for _ in range(3))
    assert many_bytes < few_bytes * 1.5


def test_moving_the_cursor_costs_less_than_a_kilobyte():
    with dashboard(80, 24, 8) as wire:
        assert 0 < cost(wire, "j") < 1_000


@pytest.mark.parametrize(
    ("size", "options", "env"),
    [
        ((60, 15), (), {}),
        ((80, 24), ("ascii",), {}),
        ((80, 24), (), {"NO_COLOR": "1"}),
        ((160, 45), (), {"COLORTERM": "truecolor"}),
    ],
)
def test_partial_repaints_leave_the_screen_as_a_full_one_does(size, options, env):
    with dashboard(*size, 40, *options, **env) as wire:
        for key in ("t", "j", "t", "\x1b[D", "s", "t", "z", "l", "o", "t", "G", "t", "g", "k"):
            ask(wire, key)
        patched = everything(wire)
        assert cost(wire, "r") > 1000
        assert everything(wire) == patched


def test_what_textual_repaints_without_need_is_not_sent():
    with dashboard(80, 24, 8) as wire:
        everything_again, focus_lost = cost(wire, "e"), cost(wire, "\x1b[O")
    assert everything_again < 20
    assert focus_lost < 500


def test_the_first_frame_is_sent_once():
    with dashboard(80, 24, 8) as wire:
        assert bytes(wire.output).count(b"Trial") == 1


def test_no_colour_means_none():
    with dashboard(80, 24, 8, NO_COLOR="1") as wire:
        ask(wire, "j")
        output = bytes(wire.output)
    assert not re.search(rb"\x1b\[[0-9;]*\b[34]8;[25];", output)
    assert b"\x1b[1;7;39;49m" in output


def test_updates_beneath_a_dialog_leave_the_screen_whole():
    with dashboard(80, 24, 8) as wire:
        wire.send("h")
        until(lambda: any("the keys that work here" in text for text in wire.screen()), wire)
        wire.send("\x1b")
        until(lambda: not any("the keys that work here" in text for text in wire.screen()), wire)
        ask(wire, "t")
        patched = everything(wire)
        ask(wire, "r")
        assert everything(wire) == patched


def test_a_terminal_that_synchronizes_gets_each_tick_as_one_update():
    argv = [sys.executable, str(APP), "8"]
    with Wire(argv, env={"PYTHONPATH": str(ROOT)}, cwd=ROOT, answers_sync=True) as wire:
        wire.wait_for("Trial")
        rest(wire)
        tick = ask(wire, "t")
    assert tick.startswith(b"\x1b[?2026h")
    assert tick.endswith(b"\x1b[?2026l")


def test_a_resize_draws_the_new_size_whole():
    with dashboard(80, 24, 40) as wire:
        wire.resize(60, 15)
        rest(wire)
        ask(wire, "t")
        patched = everything(wire)
        ask(wire, "r")
        assert everything(wire) == patched


def test_coming_back_from_the_shell_paints_the_whole_screen():
    with dashboard(80, 24, 8) as wire:
        seen = len(wire.output)
        os.kill(wire.process.pid, signal.SIGTSTP)
        state = Path(f"/proc/{wire.process.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", wire)
        os.kill(wire.process.pid, signal.SIGCONT)
        rest(wire)
        shown = wire.screen()
        words = [line.split()[0] for line in shown if line.split() and line.split()[0].isalnum()]
        assert words and all(word.encode() in wire.output[seen:] for word in words)
