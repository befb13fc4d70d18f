import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory import calibration
from core.memory.calibration import Measurement, context, describe, guard, load, record
from core.memory.forecast import GIB, GUARD_CALIBRATED, GUARD_UNKNOWN, MIB

GPU, TORCH = "NVIDIA GeForce RTX 4090", "2.13.0+cu130"


def measured(share: float = 1.0, **more: Any) -> Measurement:
    """A proof of 10 GiB of which `share` was really needed."""
    fields: dict[str, Any] = {
        "t": 1.0,
        "gpu": GPU,
        "torch": TORCH,
        "tier": "proof",
        "forecast_allocated": 10 * GIB,
        "forecast_needed": 11 * GIB,
        "allocated": int(share * 10 * GIB),
        "reserved": 11 * GIB,
        "context": 400 * MIB,
        "moments": {"load": 5 * GIB, "backward": int(share * 10 * GIB)},
    }
    return Measurement(**(fields | more))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "state" / "calibration.jsonl"


def test_what_is_kept_is_read_again_in_order(store: Path) -> None:
    kept = [measured(t=1.0), measured(t=2.0, context=None, moments={}), measured(t=3.0, gpu="T4")]
    assert all(record(m, store) for m in kept)
    assert load(store) == kept


def test_without_a_store_nothing_is_known(store: Path) -> None:
    assert load(store) == []
    assert guard(GPU, TORCH, store) == GUARD_UNKNOWN
    assert context(GPU, TORCH, store) is None


def test_three_measured_proofs_narrow_the_guard_band(store: Path) -> None:
    for share in (0.97, 1.0):
        record(measured(share), store)
    assert guard(GPU, TORCH, store) == GUARD_UNKNOWN
    record(measured(1.019), store)
    assert guard(GPU, TORCH, store) == GUARD_CALIBRATED


def test_one_forecast_that_was_exceeded_keeps_the_guard_band_wide(store: Path) -> None:
    for share in (1.0, 1.0, 1.03, 1.0):
        record(measured(share), store)
    assert guard(GPU, TORCH, store) == GUARD_UNKNOWN


def test_a_trial_that_ran_out_of_memory_although_it_was_to_fit_widens_the_band_again(
    store: Path,
) -> None:
    for _ in range(3):
        record(measured(), store)
    assert guard(GPU, TORCH, store) == GUARD_CALIBRATED
    record(measured(0.95, missed=True), store)
    assert guard(GPU, TORCH, store) == GUARD_UNKNOWN


@pytest.mark.parametrize(
    "other",
    [
        {"gpu": "NVIDIA A100-SXM4-80GB"},
        {"torch": "2.9.0+cu128"},
        {"tunedeck": "0.0.1"},
        {"tier": "estimate"},
    ],
)
def test_other_devices_versions_and_estimates_calibrate_nothing(
    store: Path, other: dict[str, Any]
) -> None:
    for _ in range(5):
        record(measured(**other), store)
    assert guard(GPU, TORCH, store) == GUARD_UNKNOWN
    for _ in range(3):
        record(measured(), store)
    record(measured(2.0, **other), store)
    assert guard(GPU, TORCH, store) == GUARD_CALIBRATED


def test_an_old_surprise_is_forgotten_once_many_later_ones_agree(store: Path) -> None:
    record(measured(1.5), store)
    for _ in range(calibration.KEPT):
        record(measured(), store)
    assert guard(GPU, TORCH, store) == GUARD_CALIBRATED


def test_the_largest_context_that_was_measured_counts(store: Path) -> None:
    for size in (300 * MIB, None, 500 * MIB, 400 * MIB):
        record(measured(context=size), store)
    record(measured(gpu="T4", context=GIB), store)
    assert context(GPU, TORCH, store) == 500 * MIB
    assert context(GPU, "2.9.0", store) is None


@pytest.mark.parametrize(
    "senseless",
    [
        {"allocated": 0},
        {"forecast_allocated": -1},
        {"context": -5},
        {"gpu": ""},
        {"gpu": "x" * 5000},
    ],
)
def test_a_measurement_without_sense_is_not_kept(store: Path, senseless: dict[str, Any]) -> None:
    assert not record(measured(**senseless), store)
    assert load(store) == []


def test_torn_and_foreign_lines_are_skipped(store: Path) -> None:
    record(measured(t=1.0), store)
    with store.open("ab") as file:
        file.write(b'\xff\xfe\n{"a": 1}\n[' + b"[" * 9000 + b"\n\n null\n")
        file.write(store.read_bytes()[:40])
    assert [m.t for m in load(store)] == [1.0]
    assert record(measured(t=2.0), store)
    assert [m.t for m in load(store)] == [1.0, 2.0]


@given(junk=st.lists(st.binary(max_size=60), max_size=8))
def test_no_file_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, junk: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("store") / "calibration.jsonl"
    path.write_bytes(b"\n".join(junk))
    assert load(path) == []
    assert record(measured(), path)
    assert load(path) == [measured()]


@pytest.mark.parametrize("size", [0, 10, 10_000])
def test_a_store_that_is_a_folder_or_in_a_file_costs_the_measurement_alone(
    tmp_path: Path, size: int
) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert not record(measured(), tmp_path / "file" / "calibration.jsonl")
    assert not record(measured(), tmp_path)
    assert load(tmp_path / "file" / "calibration.jsonl") == load(tmp_path) == []


def test_a_full_disk_costs_the_measurement_alone() -> None:
    assert not record(measured(), Path("/dev/full"))
    assert guard(GPU, TORCH, Path("/dev/full")) == GUARD_UNKNOWN


def test_a_read_only_home_costs_the_measurement_alone(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    record(measured(), store)
    monkeypatch.setattr(os, "open", refuse)
    assert not record(measured(), store)
    monkeypatch.undo()
    assert len(load(store)) == 1


def test_the_store_is_in_the_users_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert record(measured())
    assert (tmp_path / "tunedeck" / "calibration.jsonl").is_file()
    assert load() == [measured()]


def test_a_user_without_a_home_has_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert not record(measured())
    assert load() == [] and guard(GPU, TORCH) == GUARD_UNKNOWN


def _append_many(path: Path, number: int) -> None:
    for count in range(100):
        assert record(measured(t=float(count), gpu=f"gpu {number}"), path)


def _run_beside_each_other(path: Path) -> None:
    forked = multiprocessing.get_context("fork")
    running = [forked.Process(target=_append_many, args=(path, n)) for n in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4


def _lines(path: Path) -> int:
    return sum(1 for line in path.read_bytes().splitlines() if line)


def test_daemons_that_append_at_once_lose_nothing(store: Path) -> None:
    _run_beside_each_other(store)
    kept = load(store)
    assert _lines(store) == len(kept) == 400
    assert [m.t for m in kept if m.gpu == "gpu 2"] == [float(n) for n in range(100)]


def test_pruning_beside_other_daemons_tears_nothing_and_keeps_the_newest(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LARGEST", 20_000)
    _run_beside_each_other(store)
    kept = load(store)
    assert _lines(store) == len(kept) < 400
    assert kept[-1].t == 99.0
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_pruning_keeps_the_newest_of_each_device(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(measured(gpu="T4"), store)
    record(measured(torch="2.9.0"), store)
    for count in range(calibration.KEPT):
        record(measured(t=float(count)), store)
    line = store.stat().st_size // (calibration.KEPT + 2)
    # Room for all that counts once one more makes the store too large.
    monkeypatch.setattr(calibration, "LARGEST", store.stat().st_size * 2 + 4 * line)
    for count in range(calibration.KEPT + 10):
        record(measured(t=1000.0 + count), store)
    kept = load(store)
    assert [m.gpu for m in kept if m.gpu != GPU] == ["T4"]
    assert len([m for m in kept if m.torch == "2.9.0"]) == 1
    own = [m.t for m in kept if (m.gpu, m.torch) == (GPU, TORCH)]
    assert len(own) < calibration.KEPT + 10
    assert own[-1] == 1000.0 + calibration.KEPT + 9 and own == sorted(own)


def test_a_forecast_stands_beside_its_measurement() -> None:
    assert describe(int(17.2 * GIB), int(17.4 * GIB)) == "forecast 17.2, measured 17.4 GiB"
    assert describe(410 * MIB, 402 * MIB) == "forecast 410, measured 402 MiB"
    assert describe(1000 * MIB, 2 * GIB) == "forecast 1.0, measured 2.0 GiB"
