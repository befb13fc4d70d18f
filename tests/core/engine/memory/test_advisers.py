import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.engine.memory.advisers import Advisers, Ticket
from core.engine.memory.jobs import Job, Result
from core.study.files import read_record
from tests.core.engine.memory.findings import target

TICKET = Ticket(1, 1, "fix", "s")
JOB = Job(about="fix", shape="s", profile="", target=target(), guard=0.08, lengths="lengths.json")
ANSWER = '{"about":"fix","shape":"s","summary":"logits"}'


def script(code: str) -> Callable[[Path], Sequence[str]]:
    """An adviser that runs `code`, in which FOLDER is the trial's folder."""
    start = "import os,sys,time,pathlib\nFOLDER=pathlib.Path(sys.argv[1]).parent\n"
    return lambda job: [sys.executable, "-I", "-S", "-c", start + code, str(job)]


def answer_of(advisers: Advisers) -> tuple[Ticket, Result]:
    until = time.monotonic() + 120
    while (done := advisers.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return done


def run(folder: Path, code: str, **more: Any) -> Result:
    advisers = Advisers(script(code), **more)
    advisers.start(TICKET, JOB, folder)
    assert advisers.busy
    ticket, result = answer_of(advisers)
    assert (ticket, advisers.busy, advisers.poll()) == (TICKET, False, None)
    return result


def test_an_adviser_finds_its_job_and_its_result_is_read(tmp_path: Path) -> None:
    code = (
        f"assert (FOLDER/'advice-job.json').exists()\n(FOLDER/'advice.json').write_text('{ANSWER}')"
    )
    result = run(tmp_path / "0001", code)
    assert (result.problem, result.summary) == ("", "logits")
    assert sorted(os.listdir(tmp_path / "0001")) == ["advice.json"]


def test_the_job_is_written_whole(tmp_path: Path) -> None:
    advisers = Advisers(script("time.sleep(60)"))
    advisers.start(TICKET, JOB, tmp_path)
    assert read_record(tmp_path / "advice-job.json", Job) == JOB
    advisers.close()


def test_one_that_falls_over_says_why_in_its_last_words(tmp_path: Path) -> None:
    result = run(tmp_path, "sys.exit('no more memory')")
    assert result.problem == "the dry run ended with code 1: no more memory"
    assert "no more memory" in (tmp_path / "advice.log").read_text()


def test_an_older_result_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    (tmp_path / "advice.json").write_text(ANSWER)
    assert run(tmp_path, "").problem == "the dry run ended with code 0"


def test_one_that_takes_too_long_is_ended_with_everything_under_it(tmp_path: Path) -> None:
    child = "import subprocess\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    code = child + "(FOLDER/'child').write_text(str(p.pid)); time.sleep(600)"
    result = run(tmp_path, code, patience=1.0)
    assert result.problem == "the dry run took longer than 1 s"
    pid = (tmp_path / "child").read_text()
    until = time.monotonic() + 120
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_sees_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert run(
        tmp_path, "sys.exit('GPUs: ' + repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    ).problem.endswith("GPUs: ''")


def test_a_command_that_does_not_exist_is_an_error_and_nothing_is_left_running(
    tmp_path: Path,
) -> None:
    advisers = Advisers(lambda job: [str(tmp_path / "missing")])
    with pytest.raises(OSError, match="No such file"):
        advisers.start(TICKET, JOB, tmp_path)
    assert not advisers.busy
    advisers.close()
