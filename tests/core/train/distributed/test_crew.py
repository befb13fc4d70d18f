"""What rank 0 makes of the other ranks' words, without starting any."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from core.study.files import WorkerReport
from core.train.distributed import crew
from core.train.distributed.crew import Crew, _fullest, is_lost
from core.train.distributed.ranks import Place


def report(**more: object) -> WorkerReport:
    return WorkerReport(**{"attempt": 1, "outcome": "completed", "phase": "done", **more})  # type: ignore[arg-type]


def test_the_fullest_gpu_is_reported() -> None:
    first = report(
        step=7,
        peak_memory=10,
        peak_reserved=12,
        context_bytes=3,
        moments={"load": 4, "forward": 10},
    )
    second = report(
        step=7, peak_memory=11, peak_reserved=11, moments={"forward": 9, "backward": 11}
    )
    made = _fullest([first, second])
    assert (made.peak_memory, made.peak_reserved, made.context_bytes) == (11, 12, 3)
    assert made.moments == {"load": 4, "forward": 10, "backward": 11}
    assert made.step == 7


def test_where_nothing_is_measured_nothing_is_reported() -> None:
    made = _fullest([report(), report()])
    assert (made.peak_memory, made.moments) == (None, None)


@pytest.mark.parametrize(
    ("kind", "text", "lost"),
    [
        ("RuntimeError", "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer", True),
        ("torch.distributed.DistBackendError", "NCCL error: remote process exited", True),
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("ValueError", "ValueError: no such thing", False),
    ],
)  # fmt: skip
def test_a_rank_that_lost_another_is_told_from_one_that_failed(
    kind: str, text: str, lost: bool
) -> None:
    assert is_lost(report(outcome="failed", error_type=kind, error=text)) is lost


def test_a_rank_that_is_ended_before_it_listens_does_not_leave_rank_0_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(folder: Path, place: Place) -> crew._Member:
        reader, writer = os.pipe()
        process = subprocess.Popen(["sh", "-c", "kill -TERM $$"], pass_fds=(writer,))
        os.close(writer)
        return crew._Member(place.index, process, reader)

    failed: list[tuple[int, WorkerReport]] = []
    told = threading.Event()

    def fail(index: int, report: WorkerReport) -> None:
        failed.append((index, report))
        told.set()

    monkeypatch.setattr(crew, "_start", start)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        Crew(Path(), 2, fail)  # type: ignore[arg-type]
        assert told.wait(240)
    finally:
        signal.signal(signal.SIGTERM, before)
    ((index, report),) = failed
    assert index == 1
    assert report.error == "the process of GPU 2 ended with exit code -15 and said nothing"
