from pathlib import Path

import pytest

from core.study.files import (
    ExitRecord,
    RunInfo,
    TrialTask,
    WorkerReport,
    read_record,
    write_record,
)

TASK = TrialTask(trial=1, attempt=2, kind="probe", budget=0.2, device="cpu")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "task.json", TASK)
    assert read_record(tmp_path / "task.json", TrialTask) == TASK
    assert [p.name for p in tmp_path.iterdir()] == ["task.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"attempt": "x"}',
        b"\xff\xfe",
        b'{"problem": "\xff"}',
        b'{"problem":' + b"[" * 200_000,
    ],
)
def test_a_record_of_another_form_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "exit.json").write_bytes(content)
    assert read_record(tmp_path / "exit.json", ExitRecord) is None


def test_a_record_of_an_earlier_version_is_read_without_what_it_could_not_know(
    tmp_path: Path,
) -> None:
    (tmp_path / "report.json").write_text(
        '{"attempt":1,"outcome":"failed","phase":"train","step":3,"peak_memory":5,"peak_reserved":6}'
    )
    (tmp_path / "run.json").write_text(
        '{"attempt":1,"total_steps":6,"full_steps":6,"steps_per_epoch":27.0,"train_rows":8,"eval_rows":0,'
        '"dropped_rows":0,"trainable_parameters":1,"parameters":2,"precision":"fp32","device":"CPU","versions":{},'
        '"startup_seconds":2.9}'
    )
    report = read_record(tmp_path / "report.json", WorkerReport)
    run = read_record(tmp_path / "run.json", RunInfo)
    assert report is not None and run is not None
    assert (report.moment, report.moments, report.context_bytes) == (None, None, None)
    assert (run.longest_row, run.longest_eval_row) == (None, None)


def test_the_parts_of_a_run_come_back_as_they_were_written(tmp_path: Path) -> None:
    report = WorkerReport(
        1, "failed", "train", moment="backward", moments={"load": 1, "backward": 9}, context_bytes=4
    )
    write_record(tmp_path / "report.json", report)
    assert read_record(tmp_path / "report.json", WorkerReport) == report


def test_a_missing_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "exit.json", ExitRecord) is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_record(tmp_path / "task.json", TASK)
    with pytest.raises(OSError):
        write_record(tmp_path / "gone" / "task.json", TASK)
    assert read_record(tmp_path / "task.json", TrialTask) == TASK
