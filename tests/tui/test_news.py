"""What is said to somebody who watches."""

from dataclasses import replace

from core.memory.creep import Creep
from core.study.events import FixSuggested, StudyChanged, TrialEnded, TrialQueued, Warned
from tests.tui.fake import NOW, FakeSource
from tui.news import news
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
