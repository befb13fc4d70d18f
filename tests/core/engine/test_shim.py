"""The shim as a real process above small workers written as Python text."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.devices.lock import is_locked, try_lock
from core.devices.process import marked
from core.engine.launch import LaunchError, LaunchSpec, LeaseTakenError, LocalLauncher, Mark
from core.engine.shim import MARKER
from core.study.files import ExitRecord, ProcessRecord, read_record
from core.study.store import TrialFolder

READY = "import pathlib, signal, sys, time, os, subprocess\n"
SAY_READY = "pathlib.Path('ready').touch()\n"


class Trial:
    """One attempt of a worker given as Python text."""

    def __init__(
        self,
        path: Path,
        text: str,
        attempt: int = 1,
        stop_grace: float = 5.0,
        gpus: tuple[str, ...] = (),
    ) -> None:
        path.mkdir(exist_ok=True)
        self.folder = TrialFolder(path)
        (path / "worker.py").write_text(READY + text)
        self.mark = Mark("test-study", os.getpid(), attempt)
        self.launcher = LocalLauncher(
            lambda folder: [sys.executable, "-I", "-S", str(folder / "worker.py")], stop_grace
        )
        self.shim: ProcessRecord = self.launcher.start(
            LaunchSpec(self.folder, self.mark, "cuda" if gpus else "cpu", gpus)
        )

    @property
    def exit(self) -> ExitRecord | None:
        return read_record(self.folder.exit, ExitRecord)

    @property
    def log(self) -> str:
        return self.folder.log.read_text()

    def processes(self) -> list[int]:
        return [p.pid for p in marked(MARKER, str(self.mark))]


@pytest.fixture
def trial(tmp_path: Path, waits: Callable[..., Any]) -> Iterator[Callable[..., Trial]]:
    made: list[Trial] = []

    def make(text: str, ready: bool = False, **more: Any) -> Trial:
        made.append(Trial(tmp_path / f"t{len(made)}", text, **more))
        if ready:
            waits((made[-1].folder.path / "ready").exists)
        return made[-1]

    yield make
    for one in made:
        one.launcher.kill_leftovers(one.mark)


def ended(one: Trial, waits: Callable[..., Any]) -> ExitRecord:
    waits(lambda: not one.launcher.alive(one.folder), f"the end of the shim; {one.log}")
    record = one.exit
    assert record is not None, one.log
    return record


def test_the_exit_code_of_the_worker_is_recorded(trial, waits):
    began = time.time()
    record = ended(trial("sys.exit(3)"), waits)
    assert (record.attempt, record.returncode, record.signal, record.requested) == (
        1,
        3,
        None,
        None,
    )
    assert record.problem is None
    assert record.ended >= record.started > began - 60
    assert record.max_rss is not None
    assert record.max_rss > 1 << 20


def test_what_the_worker_says_goes_into_the_log_below_a_line_for_the_attempt(trial, waits):
    one = trial("print('hello'); sys.stderr.write('trouble\\n')", attempt=4)
    ended(one, waits)
    assert re.match(r"--- attempt 4, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, CPU\n", one.log)
    assert "hello" in one.log
    assert "trouble" in one.log


def test_the_worker_runs_in_its_trials_folder(trial, waits):
    one = trial("pathlib.Path('here').touch()")
    ended(one, waits)
    assert (one.folder.path / "here").exists()


def test_the_end_is_recorded_in_a_folder_that_was_moved(trial, waits):
    one = trial(SAY_READY + "while not pathlib.Path('go').exists(): time.sleep(0.01)", ready=True)
    moved = TrialFolder(one.folder.path.rename(one.folder.path.with_name("moved")))
    (moved.path / "go").touch()
    waits(lambda: not one.launcher.alive(moved), "the end of the shim")
    record = read_record(moved.exit, ExitRecord)
    assert record is not None
    assert record.returncode == 0


def test_the_lock_is_held_as_long_as_the_worker_lives(trial, waits):
    one = trial(SAY_READY + "time.sleep(600)", ready=True)
    assert is_locked(one.folder.lock)
    assert one.exit is None
    one.launcher.ask(one.shim, "stop")
    ended(one, waits)
    assert not is_locked(one.folder.lock)


def test_a_killed_worker_is_recorded_with_its_signal(trial, waits):
    record = ended(trial("os.kill(os.getpid(), signal.SIGKILL)"), waits)
    assert (record.returncode, record.signal, record.requested) == (None, 9, None)


def test_a_worker_dies_with_its_shim(trial, waits):
    one = trial(SAY_READY + "time.sleep(600)", ready=True)
    assert len(one.processes()) == 2
    os.kill(one.shim.pid, signal.SIGKILL)
    waits(lambda: not one.processes(), "the worker's end")
    assert not one.launcher.alive(one.folder)
    assert one.exit is None


def test_a_request_to_stop_reaches_the_worker(trial, waits):
    one = trial(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + SAY_READY + "time.sleep(600)",
        ready=True,
    )
    assert one.launcher.ask(one.shim, "stop")
    record = ended(one, waits)
    assert (record.returncode, record.requested) == (7, "stop")


def test_a_request_to_pause_reaches_the_worker_once(trial, waits):
    text = """
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
pathlib.Path('ready').touch()
while not heard: time.sleep(0.01)
time.sleep(1.5)
sys.exit(len(heard))
"""
    one = trial(text, ready=True)
    one.launcher.ask(one.shim, "pause")
    record = ended(one, waits)
    assert (record.returncode, record.requested) == (1, "pause")


def test_a_request_to_pause_waits_until_the_worker_can_hear_it(trial, waits):
    text = """
pathlib.Path('ready').touch()
time.sleep(1.2)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))
time.sleep(600)
"""
    one = trial(text, ready=True)
    one.launcher.ask(one.shim, "pause")
    record = ended(one, waits)
    assert (record.returncode, record.requested) == (5, "pause")


@pytest.mark.parametrize(("what", "requested"), [("stop", "stop"), ("pause", "pause")])
def test_a_request_right_after_the_start_is_not_lost(trial, waits, what, requested):
    text = "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))\ntime.sleep(600)"
    one = trial(text)
    assert one.launcher.ask(one.shim, what)
    assert ended(one, waits).requested == requested


def test_a_worker_that_ignores_the_request_is_killed_after_the_grace(trial, waits):
    one = trial(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAY_READY + "time.sleep(600)",
        ready=True,
        stop_grace=0.3,
    )
    one.launcher.ask(one.shim, "stop")
    record = ended(one, waits)
    assert (record.signal, record.requested) == (9, "kill")


def test_a_pause_alone_never_kills_and_a_stop_after_it_does(trial, waits):
    text = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: pathlib.Path('heard').touch())
pathlib.Path('ready').touch()
while True: time.sleep(1)
"""
    one = trial(text, ready=True, stop_grace=0.2)
    one.launcher.ask(one.shim, "pause")
    waits((one.folder.path / "heard").exists)
    time.sleep(0.5)
    assert one.launcher.alive(one.folder)
    one.launcher.ask(one.shim, "stop")
    assert ended(one, waits).requested == "kill"


def test_what_the_worker_leaves_behind_ends_with_it_even_in_a_session_of_its_own(trial, waits):
    text = """
sleeper = [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)']
child = subprocess.Popen(sleeper, start_new_session=True)
orphan = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
subprocess.run([sys.executable, '-I', '-S', '-c', orphan, *sleeper])
bare = subprocess.Popen(sleeper, start_new_session=True, env={})
pathlib.Path('pids').write_text(f'{child.pid} {bare.pid}')
"""
    one = trial(text)
    ended(one, waits)
    assert one.processes() == []
    for pid in (one.folder.path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_a_dropped_terminal_ends_nothing(trial, waits):
    one = trial("while not pathlib.Path('go').exists(): time.sleep(0.01)\nsys.exit(4)")
    os.kill(one.shim.pid, signal.SIGHUP)
    (one.folder.path / "go").touch()
    assert ended(one, waits).returncode == 4


def test_a_program_that_does_not_exist_is_a_problem_in_words(tmp_path, waits):
    folder = TrialFolder(tmp_path / "t")
    folder.path.mkdir()
    launcher = LocalLauncher(lambda folder: ["/no/such/python"])
    launcher.start(LaunchSpec(folder, Mark("s", 1, 1), "cpu"))
    waits(lambda: not launcher.alive(folder))
    record = read_record(folder.exit, ExitRecord)
    assert record is not None
    assert (
        record.problem == "the worker cannot be started: /no/such/python: No such file or directory"
    )


def test_the_worker_sees_the_leased_gpus_only(trial, waits):
    show = "print('sees', os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'])"
    one = trial(show, gpus=("GPU-a",))
    ended(one, waits)
    assert "sees GPU-a PCI_BUS_ID" in one.log


def test_a_worker_on_the_cpu_sees_no_gpu(trial, waits, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    one = trial("print('sees', repr(os.environ['CUDA_VISIBLE_DEVICES']))")
    ended(one, waits)
    assert "sees ''" in one.log


def test_leases_are_held_by_the_shim_and_freed_at_the_end(trial, waits, tmp_path):
    one = trial(SAY_READY + "time.sleep(600)", gpus=("GPU-a", "GPU-b"), ready=True)
    leases = [tmp_path / "leases" / name for name in ("GPU-a.lock", "GPU-b.lock")]
    assert all(is_locked(lease) for lease in leases)
    one.launcher.ask(one.shim, "stop")
    ended(one, waits)
    assert not any(is_locked(lease) for lease in leases)


def test_a_gpu_that_is_leased_to_somebody_else_is_not_taken(tmp_path):
    (tmp_path / "leases").mkdir()
    held = try_lock(tmp_path / "leases" / "GPU-a.lock")
    assert held is not None
    with pytest.raises(LeaseTakenError) as caught:
        Trial(tmp_path / "t", "", gpus=("GPU-b", "GPU-a"))
    os.close(held)
    assert caught.value.uuid == "GPU-a"
    assert not is_locked(tmp_path / "leases" / "GPU-b.lock")
    assert not is_locked(tmp_path / "t" / "lock")


def test_two_attempts_of_a_trial_never_run_at_once(trial, waits):
    one = trial(SAY_READY + "time.sleep(600)", ready=True)
    with pytest.raises(LaunchError, match="still running"):
        one.launcher.start(LaunchSpec(one.folder, one.mark, "cpu"))


def test_the_shim_is_found_again_by_its_mark_alone(trial):
    one = trial(SAY_READY + "time.sleep(600)", ready=True)
    assert one.launcher.find(one.mark) == one.shim
    assert one.launcher.find(Mark("other", 1, 1)) is None


def test_nothing_is_asked_of_a_process_that_only_has_the_same_pid(trial):
    one = trial(SAY_READY + "time.sleep(600)", ready=True)
    other = ProcessRecord(one.shim.pid, one.shim.started + 1, one.shim.boot_id)
    assert not one.launcher.ask(other, "stop")
    assert one.launcher.alive(one.folder)


def test_an_exit_record_waits_for_room_on_the_disk(trial, waits):
    text = """
import shutil
pathlib.Path('exit.json').mkdir()
"""
    one = trial(text)
    waits((one.folder.path / "exit.json").is_dir)
    # A folder in its place stands in for a disk that takes nothing.
    time.sleep(0.3)
    assert one.launcher.alive(one.folder)
    (one.folder.path / "exit.json").rmdir()
    assert ended(one, waits).returncode == 0


def test_a_shim_whose_folder_is_gone_ends(trial, waits):
    one = trial("import shutil; shutil.rmtree(os.getcwd())")
    waits(lambda: not one.processes(), "the shim's end")


def test_a_shim_is_small(trial):
    one = trial(SAY_READY + "time.sleep(600)", ready=True)
    status = Path(f"/proc/{one.shim.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
    assert resident < 20_000, "KiB; the shim imports more than it should"


def test_a_shim_needs_nothing_from_the_users_environment(tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise RuntimeError('nor this')")
    program = Path(__file__).resolve().parents[3] / "tunedeck.py"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "_shim", str(tmp_path), "{}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "KeyError: 'locks'" in ran.stderr
