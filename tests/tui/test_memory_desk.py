"""The real desk: the devices that count, and dry runs that end when nobody waits for them."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from core.devices.gpu import GpuReading
from core.engine.memory.target import imagined
from core.memory import prover
from core.memory.forecast import GUARD_CPU, Forecast, Lengths, Target
from core.memory.prover import ProofError
from core.params import SearchTable
from core.profile import Profile, load, resolve
from tests.tui.fake_memory import GIB, HOST, card, forecast
from tui import memory_desk
from tui.memory_desk import DiskDesk, GivenUpError, Known, devices_of
from tui.memory_view import Device
from tui.source import DeviceReading, SourceError

MEASURED = Lengths(96, 80, measured=True)


def profile(**resources: Any) -> Profile:
    found = replace(load(resolve("lora-small")), search=SearchTable())
    model = found.model.model_copy(update={"model_name_or_path": "demo"})
    return replace(found, model=model, resources=found.resources.model_copy(update=resources))


def reading(*cards: Any) -> DeviceReading:
    return DeviceReading(GpuReading(cards), HOST)


def labels(found: Sequence[Device]) -> list[str]:
    return [device.label for device in found]


def test_the_gpus_that_the_profile_may_use_are_forecast_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = (card(0, "NVIDIA A100", 79.2), card(1, "Tesla T4", 14.6), card(2, "Tesla T4", 14.6))
    assert labels(devices_of(reading(*cards), profile(), {})) == ["GPU 0", "GPU 1", "GPU 2"]
    assert labels(devices_of(reading(*cards), profile(devices=[1, "GPU-2"]), {})) == [
        "GPU 1",
        "GPU 2",
    ]
    assert labels(devices_of(reading(*cards), profile(devices="cpu"), {})) == ["CPU"]
    sliced = replace(cards[0], mig=True)
    assert labels(devices_of(reading(sliced), profile(), {})) == ["CPU"]
    assert labels(devices_of(reading(), profile(devices=[0]), {})) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert labels(devices_of(reading(*cards), profile(), {})) == ["GPU 2"]


def test_what_trials_measured_on_a_device_counts_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    known = {"Tesla T4": Known(0.03, 123), "the CPU": Known(0.05, 456)}
    (gpu,) = devices_of(reading(card(0, "Tesla T4", 14.6)), profile(), known)
    assert (gpu.guard, gpu.target.context) == (0.03, 123)
    (cpu,) = devices_of(reading(), profile(), known)
    assert (cpu.guard, cpu.target.context, cpu.target.free) == (GUARD_CPU, 456, 40 * GIB)


def test_a_gpu_that_somebody_uses_is_busy_and_one_that_tells_no_memory_is_left_out() -> None:
    used = card(0, "Tesla T4", 14.6, used=4)
    silent = replace(card(1, "Tesla T4", 14.6), memory_total=None)
    (found,) = devices_of(reading(used, silent), profile(), {})
    assert found.busy and found.target.free == pytest.approx(10.6 * GIB, abs=2)


def test_the_demo_model_is_estimated_without_asking_anybody() -> None:
    desk = DiskDesk(reading)
    found = profile()
    target = imagined(24, found)
    made = desk.estimate(found, desk.architecture(found), target, Lengths.bound(found))
    assert made.tier == "estimate" and made.total > 0


def test_a_folder_without_a_config_is_said_in_a_sentence(tmp_path: Path) -> None:
    found = profile()
    model = found.model.model_copy(update={"model_name_or_path": str(tmp_path)})
    with pytest.raises(SourceError, match=r"config\.json"):
        DiskDesk(reading).architecture(replace(found, model=model))


class FakeProver:
    """Answers at once, unless `gate` is held back; `close` frees it as the end of its process would."""

    gate = threading.Event()
    made: ClassVar[list["FakeProver"]] = []
    error: str = ""

    def __init__(self, processes: int = 1) -> None:
        self.processes, self.closed, self.proven = processes, False, 0
        self.made.append(self)

    def __enter__(self) -> "FakeProver":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True
        self.gate.set()

    def lengths(self, profile: Profile) -> Lengths:
        self.gate.wait()
        if self.closed:
            raise ProofError("the dry run has been closed")
        if self.error:
            raise ProofError(self.error)
        return MEASURED

    def prove(self, profile: Profile, target: Target, lengths: Lengths) -> Forecast:
        self.proven += 1
        assert lengths == MEASURED
        return forecast(profile.train.per_device_train_batch_size, proven=True)

    def prove_all(
        self, profiles: Sequence[Profile], target: Target, lengths: Lengths
    ) -> list[Forecast]:
        return [self.prove(one, target, lengths) for one in profiles]


@pytest.fixture
def dry_runs(monkeypatch: pytest.MonkeyPatch) -> type[FakeProver]:
    monkeypatch.setattr(prover, "Prover", FakeProver)
    monkeypatch.setattr(memory_desk, "_ASKED_EVERY", 0.01)
    monkeypatch.setattr(FakeProver, "gate", threading.Event())
    monkeypatch.setattr(FakeProver, "made", [])
    monkeypatch.setattr(FakeProver, "error", "")
    FakeProver.gate.set()
    return FakeProver


def device(gib: float) -> Device:
    return Device("GPU 0", imagined(gib, profile()))


def test_a_proof_comes_with_the_rows_that_it_was_made_for(dry_runs: type[FakeProver]) -> None:
    found = DiskDesk(reading).prove(profile(), device(24), lambda _: True)
    assert found.forecast.tier == "proof" and found.lengths == MEASURED
    assert dry_runs.made[0].closed


def test_what_cannot_be_proven_is_a_sentence(dry_runs: type[FakeProver]) -> None:
    dry_runs.error = "row 7 has no output"
    with pytest.raises(SourceError, match="row 7 has no output"):
        DiskDesk(reading).prove(profile(), device(24), lambda _: True)


def test_when_nobody_waits_any_more_the_dry_runs_end(dry_runs: type[FakeProver]) -> None:
    dry_runs.gate.clear()
    told: list[str] = []

    def give_up(text: str) -> bool:
        told.append(text)
        return False

    with pytest.raises(GivenUpError):
        DiskDesk(reading).prove(profile(), device(24), give_up)
    assert told == ["the rows of the data are measured"]
    assert dry_runs.made[0].closed and dry_runs.made[0].proven == 0


def test_fixes_are_proven_two_at_a_time(dry_runs: type[FakeProver]) -> None:
    desk = DiskDesk(reading)
    found = profile()
    large = replace(found, train=found.train.model_copy(update={"per_device_train_batch_size": 16}))
    remedies = desk.fixes(large, desk.architecture(large), device(24), lambda _: True)
    assert dry_runs.made[0].processes == 2 and dry_runs.made[0].closed
    assert not remedies.advice.fits and remedies.faster is None
    assert all(fix.proven for fix in remedies.advice.fixes)
    assert remedies.lengths == MEASURED


def test_where_nothing_can_be_dry_run_the_fixes_are_estimates(dry_runs: type[FakeProver]) -> None:
    dry_runs.error = "there is no such model on this machine"
    desk = DiskDesk(reading)
    found = profile()
    large = replace(
        found, train=found.train.model_copy(update={"per_device_train_batch_size": 512})
    )
    remedies = desk.fixes(large, desk.architecture(large), device(2), lambda _: True)
    assert remedies.advice.problem == dry_runs.error
    assert remedies.advice.fixes and not any(fix.proven for fix in remedies.advice.fixes)
    assert not remedies.lengths.measured and dry_runs.made[0].proven == 0


def test_a_search_for_fixes_that_is_given_up_makes_no_estimates(
    dry_runs: type[FakeProver],
) -> None:
    dry_runs.gate.clear()
    desk = DiskDesk(reading)
    with pytest.raises(GivenUpError):
        desk.fixes(profile(), desk.architecture(profile()), device(24), lambda _: False)


def test_a_hub_model_that_is_not_here_is_known_roughly_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    found = profile()
    for name in ("org/model-7B", "org/model"):
        model = found.model.model_copy(update={"model_name_or_path": name})
        named = replace(found, model=model)
        if name == "org/model":
            with pytest.raises(SourceError, match="has not been downloaded yet"):
                DiskDesk(reading).architecture(named)
        else:
            assert DiskDesk(reading).architecture(named).kind == "unknown"


def test_for_a_profile_that_fits_a_faster_one_is_looked_for(dry_runs: type[FakeProver]) -> None:
    desk = DiskDesk(reading)
    found = profile()
    remedies = desk.fixes(found, desk.architecture(found), device(80), lambda _: True)
    assert remedies.advice.fits and not remedies.advice.fixes
