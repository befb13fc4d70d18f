import base64
import subprocess

import pytest

from tui.clipboard import MAX_OSC52_BYTES, copy, run_command


class Terminal:
    """Takes what is written to it, and plays a tmux that ends with `status`."""

    def __init__(self, status: int | Exception = 0) -> None:
        self.status = status
        self.ran: list[tuple[list[str], bytes]] = []
        self.written: list[str] = []

    def run(self, argv, data):
        self.ran.append((list(argv), data))
        if isinstance(self.status, Exception):
            raise self.status
        return self.status

    def copy(self, text, **env):
        return copy(text, env=env, run=self.run, write_osc52=self.written.append)


def test_inside_tmux_the_text_goes_through_tmux_alone():
    terminal = Terminal()
    assert terminal.copy("naïve", TMUX="/s,1,0").method == "tmux"
    assert terminal.ran == [(["tmux", "load-buffer", "-w", "-"], "naïve".encode())]
    assert terminal.written == []


@pytest.mark.parametrize(
    "status", [1, FileNotFoundError("tmux"), subprocess.TimeoutExpired("tmux", 2)]
)
def test_a_tmux_that_refuses_or_is_missing_leaves_it_to_the_terminal(status):
    terminal = Terminal(status)
    assert terminal.copy("text", TMUX="/s,1,0").method == "osc52"
    assert terminal.written == ["text"]


def test_outside_tmux_nothing_is_run():
    terminal = Terminal()
    assert terminal.copy("text").method == "osc52"
    assert terminal.ran == []


def test_a_text_that_fills_the_sequence_is_sent_and_one_byte_more_is_shown():
    terminal = Terminal()
    longest = "é" * (MAX_OSC52_BYTES // 2)
    assert terminal.copy(longest).method == "osc52"
    assert len(base64.b64encode(longest.encode())) + 8 == 100_000
    result = terminal.copy(longest + "x")
    assert result.method == "shown"
    assert "74,995 bytes" in result.message
    assert terminal.written == [longest]


def test_tmux_takes_what_the_sequence_cannot():
    assert Terminal().copy("x" * 200_000, TMUX="/s,1,0").method == "tmux"


def test_a_lone_surrogate_does_not_stop_the_copy():
    assert Terminal().copy("\ud800", TMUX="/s,1,0").method == "tmux"


def test_run_command_feeds_standard_input_and_returns_the_status():
    assert run_command(["sh", "-c", 'test "$(cat)" = hello'], b"hello") == 0
    assert run_command(["sh", "-c", "exit 3"], b"") == 3
