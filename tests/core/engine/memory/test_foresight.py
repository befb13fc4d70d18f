"""What a study's forecasts rest on: the machine's share of a trial, the lengths of rows, what a process holds."""

from pathlib import Path
from typing import Any

import pytest

from core.devices.gpu import FakeReader, GpuReading
from core.engine.memory import foresight as module
from core.engine.memory.clearance import ANYWHERE, Verdict
from core.engine.memory.foresight import Device, Foresight
from core.engine.memory.jobs import Result
from core.engine.scheduler import Start
from core.engine.supply import Pool
from core.memory.estimate.context import GROWN, PROCESS
from core.memory.forecast import GIB, GUARD_CPU, GUARD_UNKNOWN, MIB, Target
from core.profile import Profile, from_document
from core.study.files import TrialForecast, WorkerReport, read_record, write_record
from core.study.state import Attempt, Trial
from core.study.store import StudyFolder
from tests.core.engine.memory.findings import forecast, target

CPU = Target(kind="cpu", name="the CPU", total=64 * GIB, free=60 * GIB)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "target_from", lambda *_: CPU)


def profile(parallel: int = 1) -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "demo"},
            "data": {"dataset": "demo", "cutoff_len": 8192},
            "train": {"per_device_train_batch_size": 8},
            "resources": {"devices": "cpu", "parallel": parallel},
        }
    )


def pool(made: Profile) -> Pool:
    return Pool(made.resources, FakeReader([GpuReading((), "no driver")]), None, False)


def trial(**more: Any) -> Trial:
    return Trial(1, {}, **more)


def folder(tmp_path: Path, context: int | None = None) -> StudyFolder:
    made = StudyFolder(tmp_path)
    made.trial(1).path.mkdir(parents=True)
    if context is not None:
        report = WorkerReport(1, "failed", "train", context_bytes=context)
        write_record(made.trial(1).report, report)
    return made


@pytest.mark.parametrize(("parallel", "free"), [(1, 60 * GIB), (2, 32 * GIB), (4, 16 * GIB)])
def test_trials_that_run_at_once_share_the_machines_memory(
    tmp_path: Path, parallel: int, free: int
) -> None:
    made = profile(parallel)
    (device,) = Foresight(folder(tmp_path), made).devices(pool(made))
    assert device.target.free == free


def test_on_the_cpu_more_has_to_stay_free_than_on_a_gpu(tmp_path: Path) -> None:
    made = profile()
    (device,) = Foresight(folder(tmp_path), made).devices(pool(made))
    assert device.guard == GUARD_CPU > GUARD_UNKNOWN


def test_a_forecast_before_the_rows_are_measured_takes_them_no_longer_than_they_can_be(
    tmp_path: Path,
) -> None:
    made, study = profile(), folder(tmp_path)
    Foresight(study, made).write(trial(), Start(1, 1, "cpu"), pool(made))
    found = read_record(study.trial(1).forecast, TrialForecast)
    assert found is not None
    # The demo's rows are far shorter than 8192 tokens, with which it would be above 20 GiB.
    assert found.allocated < 2 * GIB


@pytest.mark.parametrize(
    ("held", "context"),
    [(None, None), (320 * MIB, None), (PROCESS, PROCESS + GROWN)],
)
def test_a_fix_on_the_cpu_knows_what_the_crashed_process_held_besides(
    tmp_path: Path, held: int | None, context: int | None
) -> None:
    made = profile()
    foresight = Foresight(folder(tmp_path, held), made)
    own = foresight.own(trial())
    (device,) = foresight.devices(pool(made))
    assert own is not None
    assert foresight.job("fix", trial(), own, device).target.context == context
    assert foresight.job("fit", trial(), own, device).target.context is None


class TestGoingOn:
    """A trial that goes on from a checkpoint, as after every rung, may get another GPU than it had."""

    LARGE = Device("large", "GPU 0", target(80, total=80 * GIB), 0.08)
    SMALL = Device("small", "GPU 1", target(8, total=8 * GIB), 0.08)

    @pytest.fixture(autouse=True)
    def large_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "estimate", lambda *_: forecast(20, "estimate"))

    def went(self, *uuids: str, **more: Any) -> Trial:
        attempt = Attempt(1, "cuda", uuids)
        return trial(attempts=(attempt,), resume_from="checkpoints/checkpoint-5", **more)

    def looked(self, tmp_path: Path, went: Trial, *gpus: Device, gib: float = 20) -> Verdict:
        foresight = Foresight(folder(tmp_path), profile())
        own = foresight.own(went)
        assert own is not None
        for gpu in gpus:
            shape = foresight.shape(own, gpu.target)
            foresight.learn(Result(about="start", shape=shape, forecast=forecast(gib)))
        return foresight.verdict(went, (self.LARGE, self.SMALL))

    def test_what_it_fitted_it_fits(self, tmp_path: Path) -> None:
        assert self.looked(tmp_path, self.went("small")) == ANYWHERE

    def test_of_several_the_smallest_tells_what_it_fits(self, tmp_path: Path) -> None:
        assert self.looked(tmp_path, self.went("large", "small")) == ANYWHERE

    def test_a_smaller_one_is_asked_about(self, tmp_path: Path) -> None:
        verdict = self.looked(tmp_path, self.went("large"))
        assert verdict.gpus == {"large"}
        assert verdict.ask is not None
        assert verdict.ask.uuid == "small"

    @pytest.mark.parametrize(("gib", "gpus"), [(20, {"large"}), (2, None)])
    def test_what_is_known_of_it_counts(self, tmp_path: Path, gib: float, gpus: Any) -> None:
        verdict = self.looked(tmp_path, self.went("large"), self.SMALL, gib=gib)
        assert (verdict.gpus, verdict.ask, verdict.too_large) == (gpus, None, None)

    def test_where_it_ran_before_is_not_known_it_may_go_anywhere(self, tmp_path: Path) -> None:
        assert self.looked(tmp_path, self.went("gone")) == ANYWHERE

    def test_a_person_who_wants_it_as_it_is_decides(self, tmp_path: Path) -> None:
        assert self.looked(tmp_path, self.went("large", checked=True)) == ANYWHERE
