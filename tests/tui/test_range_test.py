"""Following a learning-rate range test, and the text that asks for one."""

from pathlib import Path

import pytest

from core.study.events import (
    JOURNAL_VERSION,
    AnyEvent,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    encode,
)
from core.study.files import RangeTest, write_record
from core.study.journal import seal
from core.study.metrics import Point, encode_point
from core.study.store import StudyError, StudyFolder
from tests.tui.fake_range import TEST, curve, range_view
from tui.range_test import (
    RangeFollower,
    bounds_text,
    parse_bounds,
    progress_text,
    range_entry,
)

CREATED = StudyCreated(
    t=1.0, version=JOURNAL_VERSION, name="rates", tunedeck="0", rank_by="loss", planned=1
)


def write(folder: Path, *events: AnyEvent) -> None:
    with (folder / "journal.jsonl").open("ab") as out:
        for event in events:
            out.write(seal(encode(event)))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "rates"
    (folder / "trials" / "0001").mkdir(parents=True)
    write_record(StudyFolder(folder).range_test, TEST)
    write(
        folder,
        CREATED,
        TrialAdded(t=2.0, trial=1, settings={}, kind="range", source="user"),
        TrialStarting(t=3.0, trial=1, attempt=1, device="cpu"),
    )
    return folder


def log(folder: Path, first: int, end: int, attempt: int = 1) -> None:
    points = curve()[first:end]
    with (folder / "trials" / "0001" / "metrics.jsonl").open("ab") as out:
        for step, (rate, loss) in enumerate(points, first + 1):
            out.write(encode_point(Point(t=1.0, step=step, attempt=attempt, loss=loss, lr=rate)))


def test_it_is_read_on_from_where_it_was(study: Path) -> None:
    follower = RangeFollower(study)
    assert follower.look().points == () and follower.look().reading is None
    log(study, 0, 50)
    assert len(follower.look().points) == 50
    log(study, 50, 100)
    view = follower.look()
    assert len(view.points) == 100 and view.step == 100 and not view.ended
    assert "update 100 of 100" in progress_text(view)


def test_when_it_is_over_its_range_can_be_taken_over(study: Path) -> None:
    log(study, 0, 100)
    ended = TrialEnded(t=9.0, trial=1, attempt=1, ending="completed", step=100)
    write(study, ended, StudyChanged(t=9.0, status="finished"))
    view = RangeFollower(study).look()
    assert view.ended and view.useful and not view.failed and view.reading is not None
    entry = range_entry(view.reading)
    assert entry == {"low": view.reading.low, "high": view.reading.high, "scale": "log"}


def test_another_attempt_begins_a_new_curve(study: Path) -> None:
    follower = RangeFollower(study)
    log(study, 0, 30)
    follower.look()
    log(study, 0, 10, attempt=2)
    assert len(follower.look().points) == 10


def test_one_that_failed_says_why_and_suggests_nothing(study: Path) -> None:
    why = "the data file has no rows"
    write(study, TrialEnded(t=9.0, trial=1, attempt=1, ending="failed", reason=why))
    view = RangeFollower(study).look()
    assert view.failed and not view.useful and progress_text(view) == f"failed: {why}"


def test_an_ordinary_study_is_no_range_test(tmp_path: Path) -> None:
    write(tmp_path, CREATED, TrialAdded(t=2.0, trial=1, settings={}))
    with pytest.raises(StudyError, match="is no range test"):
        RangeFollower(tmp_path)


@pytest.mark.parametrize(
    ("text", "test"),
    [
        ("1e-7 .. 1, 100 updates", RangeTest(1e-7, 1.0, 100)),
        ("1e-7..1 100", RangeTest(1e-7, 1.0, 100)),
        ("1e-6 to 0.5 in 200 steps", RangeTest(1e-6, 0.5, 200)),
    ],
)
def test_bounds_are_read_as_people_write_them(text: str, test: RangeTest) -> None:
    assert parse_bounds(text) == test
    assert parse_bounds(bounds_text(test)) == test


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "write two rates"),
        ("a .. b, 50", "write two rates"),
        ("1 .. 1e-3, 50", "0 < low < high"),
        ("1e-7 .. 1, 3", "takes 10 to"),
    ],
)
def test_bounds_that_make_no_sense_are_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_bounds(text)


def test_a_test_that_runs_says_how_far_it_is() -> None:
    assert progress_text(range_view(40)).startswith("update 40 of 100, rate ")
