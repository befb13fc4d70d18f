from pathlib import Path

import pytest

from core.study.files import ExitRecord, TrialTask, read_record, write_record

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


def test_a_missing_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "exit.json", ExitRecord) is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_record(tmp_path / "task.json", TASK)
    with pytest.raises(OSError):
        write_record(tmp_path / "gone" / "task.json", TASK)
    assert read_record(tmp_path / "task.json", TrialTask) == TASK
