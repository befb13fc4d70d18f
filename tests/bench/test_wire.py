import signal
import sys

import pytest

from bench.wire import NotQuietError, Wire


def script(text: str, **options) -> Wire:
    return Wire([sys.executable, "-c", text], **options)


def test_every_byte_is_counted():
    with script("print('x' * 5000, end='')") as wire:
        assert wire.settle(quiet=60) == 5000


def test_the_terminal_has_the_size_that_was_asked_for():
    with script("import os; print(*os.get_terminal_size())", columns=60, rows=15) as wire:
        wire.wait_for("60 15")


def test_the_screen_shows_what_a_terminal_would():
    with script(r"print('\x1b[2J\x1b[3;5Hhere\x1b[>9u\x1b[?2026$p\x1b[?2026h', end='')") as wire:
        wire.settle(quiet=60)
        assert wire.screen()[2].rstrip() == "    here"
        assert "".join(wire.screen()).split() == ["here"]


def test_keys_reach_the_program():
    with script("print(input() * 2)") as wire:
        wire.send("ab\n")
        wire.wait_for("abab")


def test_a_program_that_never_falls_silent_is_an_error():
    with script("while True: print('x', flush=True)") as wire, pytest.raises(NotQuietError):
        wire.settle(quiet=60, timeout=0.5)


def test_text_that_never_comes_is_an_error_that_shows_the_screen():
    with script("print('something else')") as wire, pytest.raises(NotQuietError, match="else"):
        wire.wait_for("expected")


def test_leaving_ends_the_program():
    with script("import time; time.sleep(600)") as wire:
        pass
    assert wire.process.returncode is not None


def test_a_resize_reaches_the_program():
    program = "import os, signal; signal.sigwait([signal.SIGWINCH]); print(*os.get_terminal_size())"
    program = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH]); print('ready'); {program}"
    with script(program) as wire:
        wire.wait_for("ready")
        wire.resize(61, 16)
        wire.wait_for("61 16")


def test_a_hang_up_reaches_the_program():
    with script("print('ready'); import time; time.sleep(600)") as wire:
        wire.wait_for("ready")
        wire.hang_up()
        assert wire.process.wait(timeout=120) == -signal.SIGHUP
