"""The peaks of the parts of a run, and what a process holds besides its tensors."""

from typing import Any

import pytest

from core.devices.gpu import GpuProcess, GpuSnapshot
from core.train.moments import Memory, context_of

GIB = 2**30


class Allocator:
    """torch.cuda's counters, with sizes that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = self.peak = self.reserved = 0
        for name, answer in {
            "memory_allocated": lambda: self.held,
            "memory_reserved": lambda: self.reserved,
            "memory_stats_as_nested_dict": self.stats,
            "reset_peak_memory_stats": self.reset,
        }.items():
            monkeypatch.setattr(f"torch.cuda.{name}", answer)

    def stats(self) -> dict[str, Any]:
        peaks = {"allocated_bytes": self.peak, "reserved_bytes": self.reserved}
        return {name: {"all": {"peak": peak}} for name, peak in peaks.items()}

    def hold(self, size: int) -> None:
        self.held = size
        self.peak = max(self.peak, size)
        self.reserved = max(self.reserved, size)

    def reset(self) -> None:
        self.peak, self.reserved = self.held, self.held


def test_each_part_of_a_run_has_its_own_peak_and_the_run_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocator = Allocator(monkeypatch)
    memory = Memory("cuda")
    allocator.hold(10)
    for forward, backward in ((50, 70), (90, 40)):
        memory.enter("forward")
        allocator.hold(forward)
        allocator.hold(20)
        memory.enter("backward")
        allocator.hold(backward)
        allocator.hold(10)
        memory.enter("optimizer")
    memory.enter("eval")
    allocator.hold(30)
    assert memory.moments() == {
        "load": 10, "forward": 90, "backward": 70, "optimizer": 10, "eval": 30,
    }  # fmt: skip
    assert memory.peaks() == (90, 90)
    assert memory.now() == (30, 30, 90)
    assert memory.moment == "eval"


def test_the_same_part_again_does_not_forget_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = Allocator(monkeypatch)
    memory = Memory("cuda")
    memory.enter("forward")
    allocator.hold(70)
    allocator.hold(5)
    memory.enter("forward")
    assert memory.moments() == {"load": 0, "forward": 70}


def test_before_cuda_is_in_use_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.memory_stats_as_nested_dict", dict)
    memory = Memory("cuda")
    assert memory.peaks() == (0, 0) and memory.moments() == {} and memory.context() is None


def test_on_the_cpu_the_context_is_what_the_process_held_before_the_model() -> None:
    memory = Memory("cpu")
    before = memory.context()
    assert before is not None and before > 10 * 2**20
    held = bytearray(64 * 2**20)
    assert memory.context() == before and len(held)
    now = Memory("cpu").context()
    assert now is not None and now >= before + 60 * 2**20
    assert memory.moments() is None
    memory.enter("forward")
    assert memory.moment == "forward" and memory.peaks()[1] is None


def gpu(*processes: GpuProcess, used: int | None = 9 * GIB) -> GpuSnapshot:
    return GpuSnapshot(0, "GPU-1", "A GPU", 80 * GIB, used, 0, None, None, None, processes, False)


@pytest.mark.parametrize(
    ("snapshot", "context"),
    [
        # The process is named.
        (gpu(GpuProcess(7, 8 * GIB, None), GpuProcess(8, GIB, None)), 2 * GIB),
        # A container: one process, with a number of the host's.
        (gpu(GpuProcess(4711, 8 * GIB, None)), 2 * GIB),
        # One process whose memory is not told, or none shown: the GPU was free, so all that is used is ours.
        (gpu(GpuProcess(4711, None, None)), 3 * GIB),
        (gpu(), 3 * GIB),
        # A display server is no other trainer, but its memory is not ours.
        (gpu(GpuProcess(4711, 8 * GIB, None), GpuProcess(1, GIB, None, compute=False)), 2 * GIB),
        # Not to be told apart, not told at all, or told wrongly.
        (gpu(GpuProcess(4711, 8 * GIB, None), GpuProcess(4712, GIB, None)), None),
        (gpu(used=None), None),
        (gpu(GpuProcess(7, 5 * GIB, None)), None),
        (gpu(GpuProcess(7, None, None), GpuProcess(8, GIB, None)), None),
    ],
)
def test_the_context_is_what_the_gpu_holds_of_ours_beyond_the_allocator(
    snapshot: GpuSnapshot, context: Any
) -> None:
    assert context_of(snapshot, 7, 6 * GIB) == context
