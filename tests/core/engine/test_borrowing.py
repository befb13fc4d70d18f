"""A command takes a GPU that nobody uses, and gives it back."""

from pathlib import Path

import pytest

from core.devices.gpu import FakeReader, GpuReading, GpuSnapshot
from core.devices.lease import lease_path
from core.devices.lock import is_locked, try_lock
from core.engine.borrowing import borrowed
from core.engine.client import EngineError


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEDECK_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _gpu(index: int, used: int = 0, total: int = 24 << 30) -> GpuSnapshot:
    return GpuSnapshot(
        index, f"GPU-{index}", "a GPU", total, used, 0, None, None, None, processes=(), mig=False
    )


def _reader(*gpus: GpuSnapshot) -> FakeReader:
    return FakeReader([GpuReading(tuple(gpus))])


def test_the_cpu_is_there_for_whoever_wants_it() -> None:
    with borrowed("cpu", _reader(_gpu(0))) as place:
        assert (place.device, place.note) == ("cpu", "")


def test_where_no_gpu_is_the_cpu_is_taken_without_a_word() -> None:
    with borrowed("auto", _reader()) as place:
        assert (place.device, place.note) == ("cpu", "")
    with pytest.raises(EngineError, match="no GPU"), borrowed("cuda", _reader()):
        pass


def test_the_largest_free_gpu_is_held_as_long_as_it_is_used() -> None:
    reader = _reader(_gpu(0), _gpu(1, total=80 << 30), _gpu(2, used=20 << 30, total=90 << 30))
    with borrowed("auto", reader) as place:
        assert place.device == "cuda"
        assert place.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
        assert is_locked(lease_path("GPU-1"))
    assert not is_locked(lease_path("GPU-1"))


def test_a_gpu_that_a_trial_has_is_left_to_it() -> None:
    held = try_lock(lease_path("GPU-0"))
    assert held is not None
    with borrowed("auto", _reader(_gpu(0))) as place:
        assert place.device == "cpu" and "a trial has it" in place.note
    with (
        pytest.raises(EngineError, match="GPU 0: a trial has it"),
        borrowed("cuda", _reader(_gpu(0))),
    ):
        pass
