"""What the dashboard costs its user: time to the first frame, bytes on the wire, a share of a core, time to a key.

`python -m bench dashboard`. Everything is measured on a real pseudo-terminal, from outside of the program.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import daemon
from bench.large import make_large_study, touch
from bench.wire import Wire

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-P", str(ROOT / "tunedeck.py")]
FOOTER = b"quit"
"""The footer is painted last: its last word says that the frame is whole."""
FRAMES = 7
KEYS = 100


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tunedeck-bench-") as folder:
        root = Path(folder)
        os.environ["XDG_STATE_HOME"] = str(root / "state")
        os.environ["TUNEDECK_STUDIES"] = str(root / "studies")
        first_frame(root)
        idle(root)
        live(root)
        large(root)


def wait_bytes(wire: Wire, wanted: bytes, timeout: float = 30.0) -> float:
    """Read until `wanted` has come; the seconds that it took."""
    began = time.perf_counter()
    while wanted not in wire.output:
        wire.count(0.005)
        if time.perf_counter() - began > timeout:
            raise SystemExit(f"{wanted!r} never came; the screen:\n" + "\n".join(wire.screen()))
    return time.perf_counter() - began


def seconds_of(code: str) -> float:
    """How long a fresh interpreter takes for `code`: the median of five runs."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def first_frame(root: Path) -> None:
    times = []
    for _ in range(FRAMES + 1):
        began = time.perf_counter()
        with Wire(COMMAND, columns=120, rows=40, cwd=root) as wire:
            wait_bytes(wire, FOOTER)
            times.append(time.perf_counter() - began)
    median = statistics.median(times[1:])
    textual = seconds_of("import textual.app")
    print(
        f"first full frame: {median:.2f} s (of {FRAMES} runs {min(times[1:]):.2f} to {max(times[1:]):.2f}); "
        f"`import textual.app` alone: {textual:.2f} s, ratio {median / textual:.2f}"
    )


def idle(root: Path) -> None:
    with Wire(COMMAND, columns=120, rows=40, cwd=root) as wire:
        wait_bytes(wire, FOOTER)
        wire.settle(quiet=1.5)
        print(f"idle: {wire.count(10.0)} bytes in 10 s")


@contextlib.contextmanager
def live_study(root: Path) -> Iterator[Path]:
    """A study whose eight trials log twice a second and compute nothing."""
    folder = daemon.make_study(root / "live")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "bench" / "daemon.py"), "serve", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        daemon.wait_for_trials(folder)
        yield folder
    finally:
        process.terminate()
        process.wait(30)
        daemon.stop_trials(folder)


def live(root: Path, seconds: float = 30.0) -> None:
    with live_study(root) as folder:
        for columns, rows in ((80, 24), (160, 45)):
            with Wire(
                [*COMMAND, "attach", str(folder)], columns=columns, rows=rows, cwd=root
            ) as wire:
                wait_bytes(wire, b"running")
                wire.count(3.0)
                before = daemon.cpu_seconds(wire.process.pid)
                began = time.monotonic()
                sent = wire.count(seconds)
                took = time.monotonic() - began
                share = (daemon.cpu_seconds(wire.process.pid) - before) / took
            print(
                f"eight live trials at 1 Hz, {columns}x{rows}: {sent / took / 1000:.2f} KB/s, {share:.1%} of a core"
            )


def large(root: Path) -> None:
    trials, points = 2000, 500
    folder = make_large_study(root / "large", trials, points)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        with Wire([*COMMAND, "attach", str(folder)], columns=160, rows=45, cwd=root) as wire:
            wait_bytes(wire, f"/{trials}".encode())
            times.append(time.perf_counter() - began)
    with Wire([*COMMAND, "attach", str(folder)], columns=160, rows=45, cwd=root) as wire:
        wait_bytes(wire, f"/{trials}".encode())
        wire.settle(quiet=0.5)
        with touched(folder):
            waits = sorted(key_time(wire, "\x1b[B" if i % 3 else "\x1b[A") for i in range(KEYS))
    print(
        f"a study of {trials} trials x {points} points opens in {statistics.median(times[1:]):.2f} s; "
        f"a key is answered in {waits[KEYS // 2] * 1000:.0f} ms (median), "
        f"{waits[int(KEYS * 0.95)] * 1000:.0f} ms (95th percentile) while it updates"
    )


@contextlib.contextmanager
def touched(folder: Path) -> Iterator[None]:
    """Let something happen to the study four times a second."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.wait(0.25):
            touch(folder, number := number + 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def key_time(wire: Wire, key: str) -> float:
    """Seconds from a key to the first byte that answers it."""
    wire.count(0.03)
    began = time.perf_counter()
    wire.send(key)
    while wire.count(0.002) == 0:
        if time.perf_counter() - began > 5:
            raise SystemExit("a key was not answered")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
