"""What rank 0 makes of the other ranks' words, without starting any."""

import pytest

from core.study.files import WorkerReport
from core.train.crew import _fullest, is_lost


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
