"""Reading real study folders."""

import shutil
from pathlib import Path

import pytest

from core.study import store
from core.study.events import (
    AnyEvent,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    encode,
)
from core.study.files import write_record
from core.study.journal import JournalWriter
from core.study.metrics import MetricsWriter, Point
from tests.tui.fake import NOW, run_info, trial_forecast
from tui import feed as feed_module
from tui.feed import DiskFeed
from tui.log_lines import log_lines
from tui.snapshot import study_view
from tui.source import DiskSource, SourceError, Wanted, ancestors, short_path


class Study:
    """A study folder with one trial that runs and some that have ended."""

    def __init__(self, path: Path, trials: int = 3) -> None:
        self.folder = store.StudyFolder(path)
        path.mkdir(parents=True)
        self.folder.profile.write_text("[train]\nlearning_rate = 1e-4\n[search]\ntrials = 3\n")
        self.journal = JournalWriter(self.folder.journal)
        self.tell(
            StudyCreated(
                t=NOW, version=1, name=path.name, tunedeck="0", rank_by="loss", planned=trials
            )
        )
        for number in range(1, trials + 1):
            self.tell(TrialAdded(t=NOW, trial=number, settings={"lora_rank": number}))
            self.tell(TrialStarting(t=NOW, trial=number, attempt=1, device="cpu"))
            self.folder.trial(number).path.mkdir(parents=True)
            self.train(number, 1, 2, 3)
            if number < trials:
                self.tell(TrialEnded(t=NOW, trial=number, attempt=1, ending="completed", loss=2.0))

    def tell(self, event: AnyEvent) -> None:
        self.journal.append(encode(event))

    def train(self, number: int, *steps: int) -> None:
        writer = MetricsWriter(self.folder.trial(number).metrics)
        for step in steps:
            writer.write(Point(t=NOW + step, step=step, loss=3.0 - step / 10))
        writer.close()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUNEDECK_STUDIES", str(tmp_path / "studies"))
    return Study(tmp_path / "studies" / "one")


def test_live_trials_are_followed_and_others_only_read_when_wanted(study: Study) -> None:
    feed = DiskFeed(study.folder.path)
    reading = feed.read(Wanted())
    assert set(reading.curves) == {3} and reading.curves[3].train is None
    reading = feed.read(Wanted(whole=frozenset({1}), sparks=(2,)))
    assert set(reading.curves) == {1, 2, 3}
    assert reading.curves[1].train == ((1.0, 2.9), (2.0, 2.8), (3.0, 2.7))
    assert reading.curves[2].train is None and reading.curves[2].spark


def test_what_is_added_is_taken_up_and_the_rest_stays_the_same_object(study: Study) -> None:
    feed = DiskFeed(study.folder.path)
    first = feed.read(Wanted(whole=frozenset({3})))
    assert feed.read(Wanted(whole=frozenset({3}))).curves is first.curves
    study.train(3, 4)
    second = feed.read(Wanted(whole=frozenset({3})))
    assert second.trials is first.trials
    assert second.curves[3].step == 4 and second.curves[3].train is not None
    assert len(second.curves[3].train) == 4


def test_points_that_are_drawn_no_more_are_forgotten(study: Study) -> None:
    feed = DiskFeed(study.folder.path)
    feed.read(Wanted(whole=frozenset({1})))
    assert feed.read(Wanted()).curves[1].train is None


def test_few_ended_trials_are_read_at_a_time(tmp_path: Path) -> None:
    many = Study(tmp_path / "many", trials=30)
    feed = DiskFeed(many.folder.path)
    wanted = Wanted(sparks=tuple(range(1, 31)))
    counts = [len(feed.read(wanted).curves) for _ in range(5)]
    assert counts == [9, 17, 25, 30, 30]


def test_how_long_a_trial_is_comes_from_its_own_record(study: Study) -> None:
    feed = DiskFeed(study.folder.path)
    assert feed.read(Wanted()).curves[3].total_steps is None
    write_record(study.folder.trial(3).run, run_info())
    assert feed.read(Wanted()).curves[3].total_steps == 120


def test_a_study_that_becomes_unreadable_keeps_what_was_read(study: Study) -> None:
    feed = DiskFeed(study.folder.path)
    with study.folder.journal.open("ab") as file:
        file.write(b"rubbish\n" + study.folder.journal.read_bytes())
    reading = feed.read(Wanted())
    assert reading.problem and len(reading.trials) == 3


def test_a_study_whose_engine_died_misses_it(study: Study) -> None:
    assert DiskFeed(study.folder.path).read(Wanted()).engine == "missing"


def test_the_profile_is_read_by_names_alone(study: Study) -> None:
    assert DiskFeed(study.folder.path).read(Wanted()).profile == {"learning_rate": 1e-4}


def test_the_log_is_read_from_its_end(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LOG_BYTES", 100)
    feed = DiskFeed(study.folder.path)
    log = feed.read(Wanted(log=3)).log
    assert log is not None and log.lines == ()
    study.folder.trial(3).log.write_text("".join(f"line {n}\n" for n in range(1000)))
    log = feed.read(Wanted(log=3)).log
    assert log is not None and log.lines[-1] == "line 999" and len(log.lines) < 20
    assert feed.read(Wanted(log=3)).log is log


def test_a_progress_bar_is_shown_in_its_last_state() -> None:
    data = b"loading\n\r 10%\r 50%\r100%\r\nNaN \xff\n\n"
    assert log_lines(data, cut=False) == ("loading", "100%", "NaN \ufffd")
    assert log_lines(data, cut=True) == ("100%", "NaN \ufffd")


def test_studies_are_listed_and_a_broken_one_says_what_is_wrong(
    study: Study, tmp_path: Path
) -> None:
    broken = tmp_path / "studies" / "broken"
    broken.mkdir()
    (broken / "journal.jsonl").write_bytes(b"rubbish\n" + study.folder.journal.read_bytes())
    source = DiskSource()
    listed = {s.name: s for s in map(source.summary, source.studies())}
    assert listed["one"].done == 2 and not listed["one"].problem
    assert listed["broken"].status == "cannot be read" and "damaged" in listed["broken"].problem


def test_a_folder_without_a_study_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no study"):
        DiskSource().open(tmp_path)


def test_the_processes_above_one_are_found(tmp_path: Path) -> None:
    for pid, parent in ((30, 20), (20, 10), (10, 1)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} 0 0")
    assert ancestors(30, tmp_path) == (20, 10)
    assert ancestors(99, tmp_path) == ()


def test_paths_are_written_as_one_would_type_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "studies" / "one") == "studies/one"
    assert short_path(tmp_path / "home" / "x") in ("~/x", "home/x")
    assert short_path(Path("/elsewhere/x")) == "/elsewhere/x"


def test_a_folder_that_is_deleted_under_an_open_study_leaves_what_was_read(study: Study) -> None:
    feed = DiskFeed(study.folder.path)
    before = feed.read(Wanted())
    shutil.rmtree(study.folder.path)
    after = feed.read(Wanted(whole=frozenset({1}), sparks=(2,), log=3))
    assert after.trials == before.trials
    assert "moved or deleted" in after.problem and after.engine == "idle"
    assert study_view(after, NOW).status == "cannot be read"


def test_a_summary_is_read_again_while_the_study_is_at_work(study: Study) -> None:
    source = DiskSource()
    assert source.summary(study.folder.path).done == 2
    study.tell(TrialEnded(t=NOW, trial=3, attempt=1, ending="completed", loss=1.5))
    summary = source.summary(study.folder.path)
    assert (summary.done, summary.best_trial) == (3, 3)


def test_memory_and_its_forecast_are_read_where_they_are_shown(study: Study) -> None:
    measured = Point(t=NOW + 4, step=4, loss=2.5, mem_peak=5 * 2**30, mem_reserved=6 * 2**30)
    for number in (1, 3):
        folder = study.folder.trial(number)
        write_record(folder.run, run_info())
        write_record(folder.forecast, trial_forecast())
        writer = MetricsWriter(folder.metrics)
        writer.write(measured)
        writer.close()
    feed = DiskFeed(study.folder.path)
    for number in (1, 3):  # One that has ended, and one that trains.
        curve = feed.read(Wanted(memory=number)).curves[number]
        assert curve.forecast == trial_forecast()
        assert curve.peaks == ((4.0, 5 * 2**30),) and curve.reserved == ((4.0, 6 * 2**30),)
        assert curve.train is None
        both = feed.read(Wanted(whole=frozenset({number}), memory=number)).curves[number]
        assert both.peaks == curve.peaks and both.train is not None
        after = feed.read(Wanted(sparks=(number,))).curves[number]
        assert (after.peaks, after.reserved, after.train) == (None, None, None)
        assert after.forecast == trial_forecast()


def test_a_trial_without_a_forecast_has_none(study: Study) -> None:
    write_record(study.folder.trial(3).run, run_info())
    curve = DiskFeed(study.folder.path).read(Wanted(memory=3)).curves[3]
    assert curve.forecast is None and curve.peaks == ()
