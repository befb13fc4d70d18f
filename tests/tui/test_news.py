"""What is said to somebody who watches."""

from dataclasses import replace

from core.memory.creep import Creep
from core.study.events import (
    FixSuggested,
    RungDecided,
    StudyChanged,
    TrialAdded,
    TrialEnded,
    TrialQueued,
    TrialStalled,
    Warned,
)
from tests.tui.fake import NOW, FakeSource
from tui.news import news, notice_lines
from tui.snapshot import study_view
from tui.source import Wanted

FIX = "per-device batch 8 → 4, accumulation 2 → 4; the effective batch stays 16"


def ended(trial: int, ending: str, reason: str) -> TrialEnded:
    return TrialEnded(t=NOW, trial=trial, attempt=1, ending=ending, reason=reason)  # type: ignore[arg-type]


def after(*events: object) -> str:
    source = FakeSource()
    before = study_view(source.feed.read(Wanted()), NOW)
    source.feed.tell(*events)  # type: ignore[arg-type]
    return news(before, study_view(source.feed.read(Wanted()), NOW, before))


def test_an_early_stop_is_said_with_its_reason() -> None:
    assert after(ended(5, "diverged", "loss rose")) == "Trial 5 diverged: loss rose"


def test_a_fix_that_is_applied_is_said_before_the_ending_that_it_mends() -> None:
    changes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    said = after(
        ended(5, "oom", "it asked for more"),
        FixSuggested(t=NOW, trial=5, attempt=1, changes=changes, text=FIX),
        TrialQueued(t=NOW, trial=5, attempt=2, overrides=changes, reason=FIX),
    )
    assert said == f"Trial 5 ran out of memory and tries again: {FIX}"


def test_out_of_memory_without_a_fix_is_said() -> None:
    assert after(ended(5, "oom", "8 GiB asked for")) == "Trial 5 ran out of memory: 8 GiB asked for"


def test_the_end_of_the_search_names_the_key_of_the_ranking() -> None:
    assert "5 shows the ranking" in after(StudyChanged(t=NOW, status="finished", reason=""))


def test_what_goes_well_or_is_no_news_is_not_said() -> None:
    assert after(ended(5, "completed", "")) == ""
    source = FakeSource()
    view = study_view(source.feed.read(Wanted()), NOW)
    assert news(view, replace(view, eta=1.0)) == ""


def test_a_trial_that_is_not_started_for_its_memory_is_said_and_what_is_done_about_it() -> None:
    assert after(ended(7, "skipped", "needs 31.2 GiB")) == "Trial 7 won't fit: needs 31.2 GiB"
    changes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    said = after(
        ended(7, "skipped", "needs 31.2 GiB"),
        FixSuggested(t=NOW, trial=7, attempt=1, changes=changes, text=FIX),
        TrialQueued(t=NOW, trial=7, attempt=1, overrides=changes, reason=FIX),
    )
    assert said == f"Trial 7 would not fit and starts changed: {FIX}"


def test_memory_that_grows_towards_its_limit_is_said_once() -> None:
    creep = Creep(100 << 20)
    for step in range(1, 9):
        assert creep.observe(step, 50 << 20) is None
    warning = creep.observe(9, 96 << 20)
    assert warning is not None
    said = after(Warned(t=NOW, trial=1, text=warning))
    assert said == f"Trial 1: {warning}"
    assert after(Warned(t=NOW, trial=1, text="one spike of the loss")) == ""


def test_what_was_decided_at_a_rung_is_said() -> None:
    decided = RungDecided(t=NOW, rung=1, at=0.1, kept={1: 1.0}, dropped={2: "worse", 3: "worse"})
    assert after(decided) == "Rung 1 at 10 %: 1 of 3 goes on"


def test_second_runs_are_said_with_their_trials() -> None:
    again = [
        TrialAdded(t=NOW, trial=9 + n, settings={"seed": 7}, source="confirm", parent=n)
        for n in (1, 2)
    ]
    assert after(*again) == "Before a winner is named: trials 1 and 2 once more, with another seed."
    assert "trial 1 once more" in after(again[0])


def test_a_trial_that_logs_nothing_is_said_once_and_its_return_is_not() -> None:
    stalled = TrialStalled(t=NOW, trial=5, attempt=1, text="nothing logged for 6 min")
    assert after(stalled) == "Trial 5 stalls: nothing logged for 6 min"
    assert after(stalled, TrialStalled(t=NOW, trial=5, attempt=1)) == ""


def test_an_end_without_a_winner_does_not_send_to_the_ranking() -> None:
    lost = [ended(n, "failed", "no data") for n in (1, 2)]
    said = after(*lost, StudyChanged(t=NOW, status="finished", reason="no trial completed"))
    assert said == "The study is finished without a winner: w says why."


def test_notices_begin_with_why_the_study_stands_still_and_end_with_how_it_searches() -> None:
    source = FakeSource()
    source.feed.tell(
        RungDecided(t=NOW - 60, rung=1, at=0.1, kept={1: 1.0}, dropped={2: "1.9 against 1.8"}),
        StudyChanged(t=NOW, status="paused", reason="the disk is full"),
    )
    lines = notice_lines(study_view(source.feed.read(Wanted()), NOW), NOW)
    assert lines[0] == "The study is paused: the disk is full"
    assert "1m ago: trial 2 is dropped: 1.9 against 1.8" in lines
