"""Running the dashboard in a terminal."""

import argparse
import sys

import pytest

from tui.commands.run import dashboard
from tui.dashboard import draws_unicode


@pytest.mark.parametrize(
    ("encoding", "terminal", "drawn"),
    [
        ("utf-8", "tmux-256color", True),
        ("UTF8", "xterm", True),
        ("iso8859-1", "xterm", False),
        ("ascii", "xterm", False),
        ("utf-8", "linux", False),
    ],
)
def test_unicode_is_drawn_where_it_can_be_shown(encoding: str, terminal: str, drawn: bool) -> None:
    assert draws_unicode(encoding, terminal) is drawn


def test_a_terminal_without_a_cursor_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert dashboard(argparse.Namespace(ascii=False)) == 2
    assert "TERM is dumb" in capsys.readouterr().err
