import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.engine import detach
from core.engine.detach import DaemonLog

ROOT = Path(__file__).resolve().parents[3]


def run(serve: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Run `serve(tell)`, given as text, detached from a fresh interpreter."""
    code = (
        f"import sys, os; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom core.engine.detach import run_detached\n"
        f"def serve(tell):\n{serve}\nsys.exit(run_detached(serve, Path({str(log)!r})))"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=240
    )


def test_it_returns_when_the_daemon_is_ready_and_leaves_it_running(tmp_path: Path, waits) -> None:
    out, end = tmp_path / "out", tmp_path / "end"
    serve = f"""
    import time
    tell('ready')
    Path({str(out)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}} {{os.getsid(0)}}')
    while not Path({str(end)!r}).exists(): time.sleep(0.02)
    return 0"""
    done = run(serve, tmp_path / "log")
    assert (done.returncode, done.stderr) == (0, "")
    waits(lambda: out.exists() and len(out.read_text().split()) == 3)
    pid, _, session = map(int, out.read_text().split())
    assert session not in (pid, os.getsid(0))
    assert Path(f"/proc/{pid}").exists()
    end.touch()
    waits(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())


def test_a_reason_not_to_start_is_printed_and_the_exit_code_is_1(tmp_path: Path) -> None:
    done = run("    tell('the study is locked')\n    return 1", tmp_path / "log")
    assert (done.returncode, done.stderr) == (1, "the study is locked\n")


def test_a_failure_is_told_in_a_line_and_kept_whole_in_the_log(tmp_path: Path, waits) -> None:
    done = run("    raise ValueError('broken')", tmp_path / "log")
    assert (done.returncode, done.stderr) == (1, "the daemon failed: ValueError: broken\n")
    waits(lambda: (tmp_path / "log").exists() and "Traceback" in (tmp_path / "log").read_text())


def test_a_daemon_that_dies_without_a_word_is_noticed(tmp_path: Path) -> None:
    done = run("    os._exit(3)", tmp_path / "log")
    assert done.returncode == 1
    assert "ended before it was ready" in done.stderr


def test_log_lines_carry_the_time(tmp_path: Path) -> None:
    DaemonLog(tmp_path / "log").say("hello")
    day, _, text = (tmp_path / "log").read_text().partition(" ")
    assert day == time.strftime("%Y-%m-%d")
    assert text.endswith("  hello\n")


def test_a_log_never_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detach, "MOST_LOG_BYTES", 1000)
    log = DaemonLog(tmp_path / "log")
    for number in range(200):
        log.say(f"line {number}")
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert set(sizes) <= {"log", "log.1"}
    assert max(sizes.values()) < 1100
    kept = "".join(p.read_text() for p in tmp_path.iterdir())
    assert "line 199" in kept


def test_a_log_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    DaemonLog(tmp_path / "no folder" / "log").say("hello")
    assert list(tmp_path.iterdir()) == []
