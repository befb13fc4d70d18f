"""The checks that are made on a GPU, tried without one."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.devices.gpu import FakeReader, GpuProcess, GpuReading, GpuSnapshot
from core.logged import STAGE_LOGS
from core.profile import from_document
from core.study.files import WorkerReport
from core.study.metrics import Point
from scripts import gpu_check
from scripts.gpu import forecasts, leases, sharing, stages, training
from scripts.gpu.place import CheckFailedError, Place, SkippedError
from scripts.gpu.report import Figures, Report, Result, read, table, write

SCRIPT = Path(gpu_check.__file__)
IDLE = GpuSnapshot(
    index=0, uuid="GPU-a", name="NVIDIA H100", memory_total=80 << 30, memory_used=1 << 20,
    utilization=0, power_watts=70.0, power_limit_watts=700.0, temperature_c=30, processes=(),
    mig=False,
)  # fmt: skip
OTHER = replace(IDLE, index=1, uuid="GPU-b")
FACTS: dict[str, Any] = {
    "torch": {"name": "NVIDIA H100", "uuid": "GPU-a", "count": 1, "total": int(79.2 * 2**30)},
    "smi": [
        {"uuid": "GPU-a", "name": "NVIDIA H100", "memory.total": "81920", "temperature.gpu": "31"}
    ],
}


def started(*arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """The script, as a person starts it: nothing but PYTHONPATH tells where the packages are."""
    paths = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder), **environment}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still work in `folder`."""
    lines = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(folder) in line and str(SCRIPT) not in line:
            lines.append(line)
    return lines


def session(tmp_path: Path, seconds: float = 600.0) -> gpu_check.Session:
    now = time.monotonic()
    reader = FakeReader([GpuReading((IDLE,))])
    return gpu_check.Session(
        tmp_path, tmp_path / "out.json", "cpu", None, reader, {}, now, now + seconds
    )


def check(name: str, error: Exception | None = None) -> gpu_check.Check:
    def run(place: Place) -> Figures:
        if error is not None:
            raise error
        return {"answer": 42}

    return gpu_check.Check(name, f"{name} holds", run, 30)


def test_without_a_gpu_one_sentence_says_so_and_nothing_is_written(tmp_path: Path) -> None:
    process = started("-o", "out.json", folder=tmp_path, CUDA_VISIBLE_DEVICES="")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("Nothing was checked")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_a_folder_that_does_not_exist_is_wrong_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(["-o", "/nowhere/at/all.json"])
    assert ended.value.code == 2
    assert "/nowhere/at does not exist" in capsys.readouterr().err


def test_the_first_gpu_that_nobody_computes_on_is_taken() -> None:
    busy = replace(IDLE, processes=(GpuProcess(7, 1 << 30, "python train.py"),))
    assert gpu_check.choose_gpu(FakeReader([GpuReading((busy, OTHER))]), None) == OTHER
    assert gpu_check.choose_gpu(FakeReader([GpuReading((IDLE, OTHER))]), "1") == OTHER
    with pytest.raises(gpu_check.NothingToCheckError, match=r"python train\.py .* computes on it"):
        gpu_check.choose_gpu(FakeReader([GpuReading((busy,))]), None)


def test_a_check_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "build", lambda session: "")
    checks = [
        check("wrong", CheckFailedError("it is 43")),
        check("broken", ValueError("odd")),
        check("elsewhere", SkippedError("not here")),
        check("right"),
    ]
    report = gpu_check.run_all(session(tmp_path), checks)
    assert [(r.outcome, r.reason) for r in report.results] == [
        ("failed", "it is 43"),
        ("failed", "ValueError: odd"),
        ("skipped", "not here"),
        ("passed", ""),
    ]
    assert report.failed == 2
    assert read(tmp_path / "out.json").results == report.results


def test_what_was_found_is_in_the_file_before_the_next_check_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "build", lambda session: "")
    seen: list[str] = []

    def look(place: Place) -> Figures:
        seen.extend(r.name for r in read(tmp_path / "out.json").results)
        return {}

    gpu_check.run_all(
        session(tmp_path), [check("first"), gpu_check.Check("second", "it looks", look, 30)]
    )
    assert seen == ["first"]


def test_no_check_begins_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "build", lambda session: "")
    (result,) = gpu_check.run_all(session(tmp_path, seconds=1.0), [check("late")]).results
    assert (result.outcome, result.reason) == ("skipped", "no time was left for it")


def test_a_check_for_a_gpu_is_skipped_on_the_cpu(tmp_path: Path) -> None:
    place = Place(tmp_path / "x", "cpu", "", FakeReader([GpuReading(())]), tmp_path, {}, 1e12)
    result = gpu_check.run_check(replace(check("cuda"), needs_gpu=True), place)
    assert (result.outcome, result.reason) == ("skipped", "it needs a GPU")


def test_a_check_waits_for_the_gpu_to_be_free(tmp_path: Path) -> None:
    busy = replace(IDLE, memory_used=5 << 30)
    reader = FakeReader([GpuReading((busy,)), GpuReading((busy,)), GpuReading((IDLE,))])
    place = Place(tmp_path, "cuda", "GPU-a", reader, tmp_path, {}, time.monotonic() + 240)
    place.wait_until_free()
    assert place.used() == IDLE.memory_used
    stuck = replace(place, reader=FakeReader([GpuReading((busy,))]))
    with pytest.raises(CheckFailedError, match="until the GPU was free"):
        stuck.wait_until_free(0.2)
    with pytest.raises(CheckFailedError, match="it fell off"):
        replace(place, reader=FakeReader([GpuReading((), "it fell off")])).used()


def test_a_study_is_kept_to_the_gpu_that_is_checked(tmp_path: Path) -> None:
    place = Place(tmp_path, "cuda", "GPU-b", FakeReader([GpuReading((OTHER,))]), tmp_path, {}, 1e12)
    assert place.resources["devices"] == ["GPU-b"]


def test_the_report_is_readable_and_whole(tmp_path: Path) -> None:
    results = (
        Result("speed", "it is fast", "passed", 12.3, figures={"tokens/s": 123456.0, "x": 0.5}),
        Result("limit", "it holds", "failed", 4.0, "9 GiB were taken", evidence=("last words",)),
        Result("lease", "it is freed", "skipped", 0.0, "no time was left for it"),
    )
    report = Report(
        "2026-01-01T00:00:00+00:00", "cuda", "NVIDIA H100", "GPU-a", 79.6, "580.1",
        {"torch": "2.11.0"}, 16.3, results,
    )  # fmt: skip
    write(report, tmp_path / "out.json")
    assert read(tmp_path / "out.json") == report
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    text = table(report)
    assert "NVIDIA H100, 79.6 GiB, driver 580.1" in text
    assert "tokens/s 123,456; x 0.5" in text
    assert "why: 9 GiB were taken" in text
    assert "| last words" in text
    assert text.endswith("1 passed, 1 failed, 1 skipped in 16 s")


def test_nvml_must_agree_with_the_others() -> None:
    assert leases.agreement(IDLE, FACTS) == ["PyTorch", "nvidia-smi"]
    assert leases.agreement(IDLE, {**FACTS, "smi": []}) == ["PyTorch"]
    with pytest.raises(CheckFailedError, match="no power_watts"):
        leases.agreement(replace(IDLE, power_watts=None), FACTS)
    with pytest.raises(CheckFailedError, match="PyTorch's UUID"):
        leases.agreement(OTHER, FACTS)
    with pytest.raises(CheckFailedError, match="NVML sees"):
        leases.agreement(replace(IDLE, memory_total=40 << 30), FACTS)
    with pytest.raises(CheckFailedError, match="NVML tells 60"):
        leases.agreement(replace(IDLE, temperature_c=60), FACTS)


def test_two_turns_on_a_gpu_overlap_or_do_not() -> None:
    assert leases.overlap([(3.0, 4.0), (1.0, 2.0), (2.0, 3.0)]) is None
    assert leases.overlap([(2.5, 4.0), (1.0, 3.0)]) == 0.5


def test_a_loss_that_does_not_fall_fails() -> None:
    assert training.fall([2.0] * 5 + [1.0] * 5) == (2.0, 1.0)
    with pytest.raises(CheckFailedError, match=r"from 2\.000 to 1\.990"):
        training.fall([2.0] * 5 + [1.99] * 5)
    with pytest.raises(CheckFailedError, match="only 3 losses"):
        training.fall([3.0, 2.0, 1.0])


def test_a_resumed_run_must_have_every_step_once() -> None:
    whole = [Point(t=0, step=n, loss=float(n)) for n in range(1, 5)]
    resumed = [*whole[:3], Point(t=0, step=4, loss=4.25)]
    assert training.difference(whole, resumed) == 0.25
    with pytest.raises(CheckFailedError, match="not of the same steps"):
        training.difference(whole, whole[:3])
    with pytest.raises(CheckFailedError, match="not of the same steps"):
        training.difference(whole, [*whole[:3], whole[2]])


@pytest.mark.xdist_group("heavy")
def test_checks_run_through_on_the_cpu_and_leave_nothing_behind(tmp_path: Path) -> None:
    process = started(
        "-o", "out.json", "--device", "cpu", "--only", "nvml", "killed-worker", "guard",
        folder=tmp_path, CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    report = read(tmp_path / "out.json")
    assert {r.name: r.outcome for r in report.results} == {
        "nvml": "skipped",
        "killed-worker": "passed",
        "guard": "passed",
    }
    assert report.device == "cpu"
    assert "2 passed, 0 failed, 1 skipped" in out
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert left_behind(tmp_path) == []


@pytest.mark.xdist_group("heavy")
def test_a_run_that_is_ended_ends_what_it_started(tmp_path: Path) -> None:
    process = started(
        "-o", "out.json", "--device", "cpu", "--only", "killed-worker", "methods",
        folder=tmp_path, CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    until = time.monotonic() + 600
    while not any("_worker" in line for line in left_behind(tmp_path)):
        assert time.monotonic() < until, "no worker was started"
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=600)
    assert process.returncode != 0
    assert left_behind(tmp_path) == []
    assert [p.name for p in tmp_path.iterdir() if p.name != "out.json"] == []


def test_a_report_keeps_what_an_earlier_run_said_of_other_checks(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    results = tuple(Result(name, "", "passed", 1.0) for name in ("nvml", "forecasts"))
    write(Report("2026-11-22", "cuda", "NVIDIA H100", "GPU-a", 80.0, "1", {}, 1.0, results), output)
    again = [c for c in gpu_check.MEMORY_CHECKS if c.name == "forecasts"]
    assert [r.name for r in gpu_check.kept(output, "NVIDIA H100", again)] == ["nvml"]
    assert gpu_check.kept(output, "Tesla T4", again) == ()
    assert gpu_check.kept(tmp_path / "none.json", "NVIDIA H100", again) == ()


def place_with(tmp_path: Path, *gpus: GpuSnapshot) -> Place:
    return Place(
        tmp_path,
        "cuda",
        IDLE.uuid,
        FakeReader([GpuReading(gpus)]),
        tmp_path,
        FACTS,
        time.monotonic(),
    )


def test_what_needs_two_gpus_is_said_not_to_be_checked_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SkippedError, match="not checked: one GPU"):
        sharing.other_gpu(place_with(tmp_path, IDLE))
    assert sharing.other_gpu(place_with(tmp_path, IDLE, OTHER)) == "GPU-b"
    busy = replace(OTHER, memory_used=40 << 30)
    with pytest.raises(SkippedError, match="no second GPU is free"):
        sharing.other_gpu(place_with(tmp_path, IDLE, busy))


def test_one_gpu_and_two_make_the_same_updates(tmp_path: Path) -> None:
    two = sharing._two(["GPU-a", "GPU-b"], "fsdp")
    profiles = [
        from_document(sharing._small(training.LORA, resources)) for resources in (None, two)
    ]
    assert {profile.effective_batch() for profile in profiles} == {32}
    assert profiles[1].resources.sharding == "fsdp"


def test_every_stage_has_a_check_of_its_own() -> None:
    names = gpu_check.names_of(gpu_check.EVERY_CHECK)
    assert len(set(names)) == len(names)
    assert {f"stage-{name}" for name in STAGE_LOGS} <= set(names)


def test_an_estimate_that_is_far_off_fails_on_a_gpu(tmp_path: Path) -> None:
    place = place_with(tmp_path, IDLE)
    report = WorkerReport(1, "completed", "train", peak_memory=4 << 30)
    ran = forecasts.Ran(report, None, 100.0, 0.1, "")
    assert stages._compared(5 << 30, ran, place)["error of the estimate"] == 0.25
    for said in (2 << 30, 6 << 30):
        with pytest.raises(CheckFailedError, match=r"were estimated and 4\.00 GiB measured"):
            stages._compared(said, ran, place)
    untold = replace(ran, report=WorkerReport(1, "completed", "train"))
    with pytest.raises(CheckFailedError, match="did not tell its peak"):
        stages._compared(5 << 30, untold, place)


def test_speeds_are_measured_on_a_gpu_alone(tmp_path: Path) -> None:
    place = Place(tmp_path, "cpu", "", FakeReader([GpuReading(())]), tmp_path, {}, 1e12)
    with pytest.raises(SkippedError, match="it needs a GPU"):
        stages.speed(place, "7B")
