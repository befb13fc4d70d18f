"""From what was read to what is shown: rows, tallies, times left. (tui/snapshot.py)"""

from dataclasses import replace

import pytest

from core.study.events import StudyChanged, TrialAdded, TrialEnded, TrialQueued
from core.study.metrics import Point
from tests.tui.fake import NOW, FakeSource
from tui.snapshot import StudyView, study_view, summarise
from tui.source import Wanted


def view(source: FakeSource, before: StudyView | None = None, *whole: int) -> StudyView:
    return study_view(source.feed.read(Wanted(frozenset(whole))), NOW, before)


def test_a_live_row_is_what_its_metrics_say_and_an_ended_one_what_the_journal_says() -> None:
    shown = view(FakeSource(), None, 2)
    live, ended = shown.by_number[5], shown.by_number[2]
    assert (live.step, live.total_steps, live.progress) == (85, 120, pytest.approx(85 / 120))
    assert (ended.loss, ended.eval_loss, ended.place) == (1.834, pytest.approx(1.894), 1)


def test_a_loss_that_the_journal_could_not_hold_comes_from_the_metrics() -> None:
    shown = view(FakeSource(), None, 3)
    loss = shown.by_number[3].loss
    assert loss is not None and loss != loss


def test_rows_that_did_not_change_stay_the_same_objects() -> None:
    source = FakeSource()
    first = view(source)
    source.feed.train(5, [Point(t=NOW, step=90, loss=1.7)])
    second = view(source, first)
    changed = [n for n, row in second.by_number.items() if row is not first.by_number[n]]
    assert changed == [5] and second.tally is first.tally


def test_nothing_new_is_an_equal_view_with_the_same_rows() -> None:
    source = FakeSource()
    first = view(source)
    second = view(source, first)
    assert second == first and second.rows is first.rows


def test_a_curve_that_is_forgotten_by_the_source_is_kept_on_the_row() -> None:
    source = FakeSource()
    first = view(source, None, 1)
    assert view(source, first).by_number[1].curve is first.by_number[1].curve


def test_the_time_left_is_what_live_trials_need_and_the_mean_for_those_that_wait() -> None:
    shown = view(FakeSource())
    # Two steps a second: trial 6 has 80 to go. Two trials wait, 64 s each, two at a time.
    assert shown.by_number[6].eta == pytest.approx(40)
    assert shown.eta == pytest.approx(40 + 2 * 64 / 2)


def test_trials_that_are_stopped_early_are_not_counted_whole() -> None:
    source = FakeSource()
    source.feed.state.planned, source.feed.state.strategy = 28, "bayesian"
    assert view(source).eta == pytest.approx(40 + 22 * 64 / 2)
    source.feed.state.stopping = "halving"
    assert 40 < (view(source).eta or 0) < 40 + 22 * 64 / 2 / 3


def test_time_passes_between_two_points() -> None:
    source = FakeSource()
    reading = source.feed.read(Wanted())
    assert study_view(reading, NOW + 10).by_number[6].eta == pytest.approx(30)
    assert study_view(reading, NOW + 1000).by_number[6].eta == 0


@pytest.mark.parametrize("changes", [{"status": "paused"}, {"engine": "missing"}])
def test_a_study_that_stands_still_has_no_time_left(changes: dict[str, str]) -> None:
    reading = replace(FakeSource().feed.read(Wanted()), **changes)  # type: ignore[arg-type]
    assert study_view(reading, NOW).eta is None


def test_without_a_completed_trial_nobody_knows_how_long_the_waiting_ones_take() -> None:
    source = FakeSource()
    for number in (1, 2):
        source.feed.tell(TrialEnded(t=NOW, trial=number, attempt=1, ending="failed"))
    assert view(source).eta is None


def test_only_parameters_in_which_trials_differ_are_searched() -> None:
    assert view(FakeSource()).searched == ("learning_rate", "lora_rank")


def test_known_good_settings_count_as_planned_and_second_runs_are_not_searched() -> None:
    source = FakeSource()
    assert view(source).tally.waiting == 2
    source.feed.state.planned, source.feed.state.strategy = 9, "bayesian"
    source.feed.tell(TrialAdded(t=NOW, trial=9, settings={"lora_rank": 8}, source="portfolio"))
    settings = {"lora_rank": 8, "seed": 7}
    source.feed.tell(TrialAdded(t=NOW, trial=10, settings=settings, source="confirm", parent=9))
    assert view(source).tally.waiting == 4
    assert view(source).searched == ("learning_rate", "lora_rank")


def test_a_retry_counts_as_waiting_again_and_carries_its_fix() -> None:
    source = FakeSource()
    before = view(source)
    assert before.done == 4
    source.feed.tell(
        TrialQueued(t=NOW, trial=4, attempt=2, overrides={"per_device_train_batch_size": 4})
    )
    after = view(source, before)
    assert after.done == 3 and after.by_number[4].status == "queued"
    assert after.by_number[4].trial.changes["per_device_train_batch_size"] == 4


def test_a_missing_engine_is_said_before_the_studys_own_state() -> None:
    source = FakeSource()
    source.feed.engine = "missing"
    assert view(source).status == "engine not running"
    source.feed.engine = "idle"
    source.feed.tell(StudyChanged(t=NOW, status="finished"))
    assert view(source).status == "finished"


def test_a_summary_names_the_best_trial() -> None:
    summary = summarise(FakeSource().feed.read(Wanted()))
    assert (summary.done, summary.planned, summary.live) == (4, 8, 2)
    assert (summary.best_trial, summary.best) == (2, pytest.approx(1.894))


def test_a_view_that_goes_on_from_another_is_the_one_that_a_fresh_look_gives() -> None:
    source = FakeSource()
    shown = view(source)
    happenings = (
        TrialEnded(t=NOW, trial=5, attempt=1, ending="completed", loss=1.5, eval_loss=1.55),
        TrialEnded(t=NOW, trial=6, attempt=1, ending="failed", reason="it broke"),
        TrialAdded(t=NOW, trial=9, settings={"lora_dropout": 0.1}, source="user"),
        TrialQueued(t=NOW, trial=2, attempt=2),
        StudyChanged(t=NOW, status="finished"),
    )
    for event in happenings:
        source.feed.tell(event)
        shown, fresh = view(source, shown), view(source)
        assert shown.tally == fresh.tally, event
        assert list(shown.by_number) == list(fresh.by_number)
        for row, other in zip(shown.rows, fresh.rows, strict=True):
            assert (row.trial, row.place) == (other.trial, other.place)


def test_only_rows_that_an_event_touches_are_made_anew() -> None:
    source = FakeSource()
    first = view(source)
    source.feed.tell(TrialQueued(t=NOW, trial=4, attempt=3))
    second = view(source, first)
    again = [n for n, row in second.by_number.items() if row is not first.by_number[n]]
    assert again == [4]
