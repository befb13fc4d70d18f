"""What is said about one trial."""

from core.study.events import TrialEnded, TrialQueued, TrialStarting
from tests.tui.fake import NOW, FakeSource
from tui import detail
from tui.screens.trial_detail import note
from tui.screens.trial_rows import RowLook, trial_row
from tui.snapshot import StudyView, study_view
from tui.source import Wanted


def view(source: FakeSource) -> StudyView:
    return study_view(source.feed.read(Wanted(frozenset(range(1, 9)))), NOW)


def text(lines: list[object]) -> str:
    return "\n".join(str(line) for line in lines)


def test_settings_say_what_differs_from_the_profile_and_what_it_was() -> None:
    shown = view(FakeSource())
    said = text([*detail.settings_lines(shown, shown.by_number[2])])
    assert "learning_rate" in said and "3e-4   was 1e-4" in said
    assert "16 (8 x 2)" in said and "1200 steps" in said and "NVIDIA RTX 4090" in said


def test_an_applied_fix_is_told_apart_from_the_settings() -> None:
    source = FakeSource()
    fix = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    source.feed.tell(
        TrialQueued(t=NOW, trial=4, attempt=2, overrides=fix, reason="halve the batch")  # type: ignore[arg-type]
    )
    shown = view(source)
    said = text([*detail.settings_lines(shown, shown.by_number[4])])
    assert "changed since, to fit into memory" in said and "4   was 8" in said
    assert "fix applied: halve the batch" in said and "16 (4 x 4)" in said


def test_advice_gives_the_reason_the_fix_and_the_key() -> None:
    shown = view(FakeSource())
    said = text([*detail.advice_lines(shown, shown.by_number[4])])
    assert "It ran out of memory." in said and "23.1 of 23.6 GiB" in said
    assert "Halve the batch from 8 to 4" in said and "f  tries again with it" in said
    assert "GPU 0 was busy" in said


def test_wrong_input_is_not_tried_again() -> None:
    source = FakeSource()
    source.feed.tell(
        TrialEnded(
            t=NOW,
            trial=5,
            attempt=1,
            ending="failed",
            reason="row 7 has no output",
            usage_error=True,
        )
    )
    shown = view(source)
    said = text([*detail.advice_lines(shown, shown.by_number[5])])
    assert "Row 7 has no output." in said and "trying again changes nothing" in said
    assert "f  tries again" not in said


def test_a_completed_trial_says_its_place_and_how_to_go_on() -> None:
    shown = view(FakeSource())
    said = text([*detail.advice_lines(shown, shown.by_number[2])])
    assert "Place 1 of 2." in said and "P  trains fully" in said


def test_the_effective_batch_is_a_product_of_what_is_known() -> None:
    assert detail.effective_batch({"per_device_train_batch_size": 8}) == "8"
    values = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "gpus_per_trial": 2,
    }
    assert detail.effective_batch(values) == "16 (2 x 4 x 2 GPUs)"
    one = {"per_device_train_batch_size": 1, "gpus_per_trial": 2}
    assert detail.effective_batch(one) == "2 (1 x 2 GPUs)"
    assert detail.effective_batch({}) is None


def test_errors_stand_out_in_a_log() -> None:
    lines = detail.log_text(["loading", "ValueError: no such file"])
    assert not lines[0].style and lines[1].style


def test_a_trial_that_a_memory_fix_saved_says_so() -> None:
    source = FakeSource()
    fix = "per-device batch 8 → 4"
    source.feed.tell(
        TrialQueued(t=NOW, trial=1, attempt=2, overrides={"lora_rank": 4}, reason=fix),
        TrialStarting(t=NOW, trial=1, attempt=2, device="cpu"),
        TrialEnded(t=NOW, trial=1, attempt=2, ending="completed", loss=1.9, eval_loss=1.9),
    )
    row = study_view(source.feed.read(Wanted()), NOW).by_number[1]
    line = "".join(text for text, _ in note(row, ascii=False))
    assert "ran out of memory, then per-device batch 8 → 4" in line
    looks = RowLook((), "eval_loss", best=False, roomy=False, ascii=False)
    assert str(trial_row(row, looks, marked=False).cells["number"]) == "1 !"


def ended(source: FakeSource, ending: str, **more: object) -> str:
    """What is said of the memory of trial 5 when it has ended so."""
    peak = {"peak_memory": int(17.4 * 2**30), "forecast": int(17.2 * 2**30)}
    source.feed.tell(
        TrialEnded(t=NOW, trial=5, attempt=1, ending=ending, **{**peak, **more})  # type: ignore[arg-type]
    )
    return detail.foreseen(view(source).by_number[5])


def test_memory_stands_beside_what_was_forecast() -> None:
    source = FakeSource()
    assert detail.foreseen(view(source).by_number[5]) == "forecast 11.0, measured 11.2 GiB"
    assert detail.foreseen(view(source).by_number[6]) == ""
    assert ended(source, "completed", proven=True) == "forecast 17.2, measured 17.4 GiB"
    assert ended(source, "completed") == "estimate 17.2, measured 17.4 GiB"


def test_what_ran_out_of_memory_has_no_measure_of_its_need() -> None:
    assert ended(FakeSource(), "oom", proven=True) == "forecast 17.2 GiB"
    unforeseen = ended(FakeSource(), "oom", forecast=None)
    assert unforeseen == "forecast 11.0 GiB"  # By what was written before its start.
