import errno
from pathlib import Path

import pytest

from core.engine.recorder import Recorder, disk_trouble
from core.study import journal
from core.study.events import StudyChanged, StudyCreated, Warned
from core.study.store import StudyFolder, StudyReader

CREATED = StudyCreated(t=1.0, version=1, name="s", tunedeck="0", rank_by="loss", planned=0)


def warned(text: str) -> Warned:
    return Warned(t=2.0, text=text)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    made = Recorder(StudyFolder(tmp_path))
    made.record(CREATED)
    return made


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk that fails with the error numbers in this list, and works while it is empty."""
    trouble: list[int] = []
    real = journal.os.fsync

    def fsync(fd: int) -> None:
        if trouble:
            raise OSError(trouble[0], "no")
        real(fd)

    monkeypatch.setattr(journal.os, "fsync", fsync)
    return trouble


def texts(folder: Path) -> list[str]:
    return [w.text for w in StudyReader(folder).state.warnings]


def test_what_is_recorded_is_in_the_state_and_on_the_disk(
    recorder: Recorder, tmp_path: Path
) -> None:
    assert recorder.record(warned("a"), warned("b"))
    assert [w.text for w in recorder.state.warnings] == texts(tmp_path) == ["a", "b"]


def test_staged_records_are_written_with_the_next_ones(recorder: Recorder, tmp_path: Path) -> None:
    recorder.stage(warned("a"))
    assert len(recorder.state.warnings) == 1
    assert texts(tmp_path) == []
    recorder.record(warned("b"))
    assert texts(tmp_path) == ["a", "b"]


def test_on_a_full_disk_records_wait_in_their_order(
    recorder: Recorder, tmp_path: Path, disk: list[int]
) -> None:
    disk.append(errno.ENOSPC)
    before = (tmp_path / "journal.jsonl").read_bytes()
    assert not recorder.record(warned("a"))
    assert not recorder.record(warned("b"))
    assert (recorder.waiting, recorder.trouble) == (
        2,
        "the disk is full: make room, then resume the study",
    )
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert len(recorder.state.warnings) == 2
    disk.clear()
    assert recorder.flush()
    assert (recorder.waiting, recorder.trouble) == (0, None)
    assert texts(tmp_path) == ["a", "b"]


def test_a_new_recorder_continues_the_journal(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(StudyChanged(t=3.0, status="paused", reason="x"))
    recorder.close()
    again = Recorder(StudyFolder(tmp_path))
    assert (again.state.status, again.state.reason, again.cut) == ("paused", "x", 0)


def test_a_torn_record_is_cut_off(recorder: Recorder, tmp_path: Path) -> None:
    recorder.close()
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'["torn')
    assert Recorder(StudyFolder(tmp_path)).cut == 6


def test_a_moved_journal_is_not_a_deleted_one(recorder: Recorder, tmp_path: Path) -> None:
    assert not recorder.removed()
    (tmp_path / "journal.jsonl").rename(tmp_path / "elsewhere")
    assert recorder.removed()
    assert not recorder.deleted()
    (tmp_path / "elsewhere").unlink()
    assert recorder.deleted()


def test_a_journal_with_another_in_its_place_is_gone_but_not_deleted(
    recorder: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes((tmp_path / "journal.jsonl").read_bytes())
    (tmp_path / "other").replace(tmp_path / "journal.jsonl")
    assert recorder.removed()
    assert not recorder.deleted()


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "cannot be written")],
)
def test_troubles_of_the_disk_are_told_apart(number: int, text: str) -> None:
    assert text in disk_trouble(OSError(number, "Input/output error"))
