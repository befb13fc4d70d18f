"""The process that looks at data: what it tells arrives as it comes, and it never outlives its client."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.engine import preview
from core.engine.preview import Preview, PreviewError, request
from core.profile import DEMO_DATA, Profile, load
from core.study.preview import Began, Counted, Progress, Shown, encode

PROGRAM = Path(preview.__file__).parents[2] / "tunedeck.py"


@pytest.fixture
def demo() -> Profile:
    return load(DEMO_DATA.with_name("demo.toml"))


def test_a_real_process_tells_of_the_demo(demo: Profile) -> None:
    with Preview(request(demo, examples=2)) as looked:
        told = list(looked)
    assert [type(t) for t in told if not isinstance(t, Progress)] == [Began, Shown, Shown, Counted]
    counted = told[-1]
    assert isinstance(counted, Counted) and counted.looked == counted.of == 800


def test_closing_ends_the_process_in_the_middle(demo: Profile) -> None:
    with Preview(request(demo)) as looked:
        for _ in looked:
            threading.Thread(target=looked.close).start()
        child = looked._child
    assert child.poll() is not None


def test_it_ends_with_its_client(demo: Profile) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM), "_data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(encode(request(demo)))
    child.stdin.flush()
    assert json.loads(child.stdout.readline())["type"] == "progress"
    child.stdin.close()
    assert child.wait(timeout=240) is not None
    child.stdout.close()


def _program(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "program.py"
    file.write_text(text)
    monkeypatch.setattr(preview, "_PROGRAM", file)


def test_a_process_that_dies_is_told_with_its_last_words(
    demo: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, "import sys; sys.exit('no such thing')", monkeypatch)
    with Preview(request(demo)) as looked, pytest.raises(PreviewError, match="no such thing"):
        list(looked)


def test_a_kill_is_said_to_be_one(
    demo: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    _program(tmp_path, text, monkeypatch)
    with Preview(request(demo)) as looked, pytest.raises(PreviewError, match="memory runs out"):
        list(looked)


def test_what_is_no_message_is_refused(
    demo: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, "print('hello')", monkeypatch)
    with Preview(request(demo)) as looked, pytest.raises(PreviewError, match="no message"):
        list(looked)


def test_nothing_of_it_is_left_open(
    demo: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, "import sys; sys.stdin.readline()", monkeypatch)
    before = set(os.listdir("/proc/self/fd"))
    with Preview(request(demo)) as looked:
        assert list(looked) == []
    assert set(os.listdir("/proc/self/fd")) == before
