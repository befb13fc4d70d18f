"""A dashboard whose terminal is gone ends at once, with and without the signal for it."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys
{ignore}
from tui.dashboard import run_dashboard
sys.exit(run_dashboard())
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(tmp_path),
        "TUNEDECK_STUDIES": str(tmp_path / "studies"),
    }


def start(ignore: str, environment: dict[str, str]) -> tuple["subprocess.Popen[bytes]", int]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(ignore=ignore)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    while b"Studies" not in seen:
        seen += os.read(master, 65536)
    return process, master


@pytest.mark.parametrize(
    "ignore", ["", "signal.signal(signal.SIGHUP, signal.SIG_IGN)"], ids=["SIGHUP", "ignored"]
)
def test_a_closed_terminal_ends_the_dashboard(ignore: str, environment: dict[str, str]) -> None:
    process, master = start(ignore, environment)
    try:
        os.close(master)
        assert process.wait(timeout=120) == 128 + signal.SIGHUP
    finally:
        process.kill()


def test_sighup_ends_the_dashboard(environment: dict[str, str]) -> None:
    process, master = start("", environment)
    try:
        time.sleep(0.2)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=120) == 128 + signal.SIGHUP
    finally:
        process.kill()
        os.close(master)


def test_without_a_terminal_it_says_so(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ignore="")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 2 and b"needs a terminal" in done.stderr
