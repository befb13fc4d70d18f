"""What a study's daemon costs with eight trials running: memory, share of a core; and what a shim costs.

`python bench/daemon.py [SECONDS]`. The trials log twice a second and compute nothing.
"""

import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.engine.client import create_study
from core.engine.daemon import serve
from core.engine.detach import READY
from core.engine.launch import LocalLauncher
from core.engine.service import Settings
from core.profile import from_document
from core.study.files import RunInfo, TrialTask, WorkerReport, read_record, write_record
from core.study.metrics import MetricsWriter, Point
from core.study.store import StudyFolder, StudyReader, TrialFolder

TRIALS = 8
STEPS = 2_000


def main(argv: list[str]) -> int:
    if argv[:1] == ["worker"]:
        return work(TrialFolder(Path(argv[1])))
    if argv[:1] == ["serve"]:
        settings = Settings(launcher=lambda: LocalLauncher(worker_command), linger=1)
        return serve(StudyFolder(Path(argv[1])), settings, lambda word: print(word, flush=True))
    seconds = float(argv[0]) if argv else 20.0
    with tempfile.TemporaryDirectory(prefix="tunedeck-bench-") as root:
        os.environ["XDG_STATE_HOME"] = root
        return measure(make_study(Path(root) / "study"), seconds)


def worker_command(folder: Path) -> list[str]:
    return [sys.executable, __file__, "worker", str(folder)]


def make_study(folder: Path) -> Path:
    rates = [1e-5 * (i + 1) for i in range(TRIALS)]
    return create_study(
        from_document(
            {
                "profile": {"name": "bench"},
                "model": {"model_name_or_path": "demo"},
                "data": {"dataset": "demo"},
                "resources": {"devices": "cpu", "parallel": TRIALS},
                "search": {"strategy": "grid", "space": {"learning_rate": rates}},
            }
        ),
        folder,
    )


def measure(folder: Path, seconds: float) -> int:
    """Serve the study, wait until all trials log, and look at the processes for `seconds`."""
    daemon = subprocess.Popen(
        [sys.executable, __file__, "serve", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdout is not None
    try:
        if daemon.stdout.readline().strip() != READY:
            raise SystemExit("the daemon did not start")
        reader = wait_for_trials(folder)
        before, began = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - began)
        shims = [t.attempt.shim.pid for t in reader.state.live() if t.attempt and t.attempt.shim]
        print(
            f"daemon with {len(shims)} trials: {rss_mb(daemon.pid):.1f} MB, {share:.2%} of a core"
        )
        print(f"shim of one trial: {max(map(rss_mb, shims)):.1f} MB")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        stop_trials(folder)
    return 0


def stop_trials(folder: Path) -> None:
    launcher, study = LocalLauncher(), StudyFolder(folder)
    live = StudyReader(folder).state.live()
    for trial in live:
        if trial.attempt and trial.attempt.shim:
            launcher.ask(trial.attempt.shim, "stop")
    until = time.monotonic() + 60
    while any(launcher.alive(study.trial(t.number)) for t in live) and time.monotonic() < until:
        time.sleep(0.1)


def wait_for_trials(folder: Path) -> StudyReader:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        reader = StudyReader(folder)
        logging = [t for t in reader.state.live() if reader.folder.trial(t.number).metrics.exists()]
        if len(logging) == TRIALS:
            return reader
        time.sleep(0.2)
    raise SystemExit("the trials did not start")


def work(folder: TrialFolder) -> int:
    """A worker that logs and does nothing else until it is asked to stop."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    task = read_record(folder.task, TrialTask)
    assert task is not None
    write_record(
        folder.run,
        RunInfo(task.attempt, STEPS, STEPS, 100.0, 1, 1, 0, 1, 1, "fp32", "CPU", {}, 0.0),
    )
    metrics, step, chance = MetricsWriter(folder.metrics), 0, random.Random(str(folder.path))
    while not asked:
        step += 1
        metrics.write(noisy_point(step, chance))
        time.sleep(0.5)
    write_record(folder.report, WorkerReport(task.attempt, "stopped", "train", step))
    return 0


def noisy_point(step: int, chance: random.Random) -> Point:
    """What a real trial logs: every figure moves, as a dashboard has to draw what has changed."""
    return Point(
        t=time.time(),
        step=step,
        loss=1.2 + 2.5 * math.exp(-step / 150) + chance.gauss(0, 0.08),
        eval_loss=1.3 + 2.4 * math.exp(-step / 150) if step % 20 == 0 else None,
        grad_norm=math.exp(chance.gauss(0, 0.4)),
        lr=1e-4 * (1 - step / STEPS),
        tokens=step * 4096,
        tokens_per_s=chance.gauss(9000, 300),
        mem_allocated=9 << 30,
        mem_peak=int((10 + chance.random()) * (1 << 30)),
    )


def cpu_seconds(pid: int) -> float:
    # Nanoseconds on a processor: the ticks of /proc/PID/stat are too coarse for a process that hardly runs.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
