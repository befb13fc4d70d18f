"""What the headless progress says."""

import io
from pathlib import Path

import pytest

from core.study.events import (
    AdviceAsked,
    AdviceGiven,
    AnyEvent,
    FixSuggested,
    RungDecided,
    SearchPlanned,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialAsked,
    TrialEnded,
    TrialQueued,
    TrialStalled,
    TrialStarting,
    Warned,
    encode,
)
from core.study.journal import seal
from core.study.state import StudyState, apply
from tui.follow import follow, happening, resting


def replace_choice(choice: str) -> StudyCreated:
    return StudyCreated(
        t=1.0, version=1, name="s", tunedeck="0", rank_by="loss", planned=1, choice=choice
    )


CREATED = StudyCreated(t=1.0, version=1, name="s", tunedeck="0", rank_by="loss", planned=1)
ADDED = TrialAdded(t=2.0, trial=1, settings={"learning_rate": 3e-4})


@pytest.fixture
def state() -> StudyState:
    made = StudyState()
    for event in (CREATED, ADDED):
        apply(made, event)
    return made


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (TrialStarting(t=3, trial=1, attempt=2, device="cuda", gpus=("GPU-1",)), "attempt 2 on GPU GPU-1"),
        (TrialStarting(t=3, trial=1, attempt=1, device="cpu"), "learning_rate 3e-4"),
        (TrialEnded(t=3, trial=1, attempt=1, ending="oom", reason="asked for 8 GiB"), "out of memory: asked"),
        (TrialEnded(t=3, trial=1, attempt=1, ending="completed", loss=1.5, seconds=70), "completed, smoothed loss 1.5000, 1m 10s"),
        (FixSuggested(t=3, trial=1, attempt=1, changes={}, text="batch 8 → 4"), "suggested: batch 8 → 4"),
        (AdviceAsked(t=3, trial=1, attempt=1, about="fix"), "looking for a fix that fits"),
        (AdviceGiven(t=3, trial=1, attempt=1, about="fix", text="logits dominate"), "memory: logits dominate"),
        (TrialEnded(t=3, trial=1, attempt=1, ending="skipped", reason="proven not to fit"), "skipped: proven not"),
        (TrialQueued(t=3, trial=1, attempt=2, reason="batch 8 → 4"), "attempt 2: batch 8 → 4"),
        (TrialAsked(t=3, trial=1, attempt=1, ask="stop", by="guard", reason="loss is NaN"), "loss is NaN"),
        (Warned(t=3, text="a spike", trial=1), "trial 1: a spike"),
        (StudyChanged(t=3, status="paused", reason="the disk is full"), "paused: the disk is full"),
        (replace_choice("grid: all 4 combinations"), "the search: grid: all 4 combinations"),
        (SearchPlanned(t=3, planned=9, reason="the space has no more"), "9 trials are planned now: the space"),
        (TrialEnded(t=3, trial=1, attempt=1, ending="rung", step=12, value=1.9), "at its rung, step 12, 1.9000"),
        (RungDecided(t=3, rung=1, at=0.1, kept={1: 0.3}, dropped={3: "worse", 2: "worse"}),
         "rung 1 at 10 %: 1 of 3 goes on (dropped: 2, 3)"),
        (TrialStalled(t=3, trial=1, attempt=1, text="nothing logged for 6 min"), "stalled: nothing logged"),
        (TrialStalled(t=3, trial=1, attempt=1), "trial 1: logs again"),
        (TrialAdded(t=3, trial=9, settings={}, source="confirm", parent=1), "the settings of trial 1 with another seed"),
        (TrialAdded(t=3, trial=9, settings={}, kind="full", source="promote", parent=1), "the full training with"),
        (TrialAdded(t=3, trial=9, settings={"lora_rank": 4}, source="user"), "trial 9: added: lora_rank 4"),
    ],
)  # fmt: skip
def test_each_record_is_said_in_words(state: StudyState, event: AnyEvent, said: str) -> None:
    assert said in happening(event, state)


def test_what_trials_are_ranked_by_is_told_where_it_is_no_loss() -> None:
    made = StudyState()
    created = StudyCreated(
        t=1.0, version=1, name="s", tunedeck="0", rank_by="eval_reward_accuracy", direction="max", planned=1
    )  # fmt: skip
    apply(made, created)
    apply(made, ADDED)
    rung = TrialEnded(t=3, trial=1, attempt=1, ending="rung", step=12, value=0.8125)
    assert "at its rung, step 12, eval_reward_accuracy 0.8125" in happening(rung, made)
    done = TrialEnded(t=3, trial=1, attempt=1, ending="completed", loss=0.5, value=0.875, seconds=70)  # fmt: skip
    assert "loss 0.5000, eval_reward_accuracy 0.8750, 1m 10s" in happening(done, made)


def test_a_trial_that_goes_on_from_its_rung_does_not_start_again(state: StudyState) -> None:
    ended = TrialEnded(
        t=3, trial=1, attempt=1, ending="rung", step=12, value=1.9, checkpoint="checkpoints/x"
    )
    starting = TrialStarting(t=4, trial=1, attempt=2, device="cpu")
    added = TrialAdded(t=2, trial=1, settings={}, until=0.1)
    for event in (added, ended, RungDecided(t=4, rung=1, at=0.1, kept={1: 0.3}), starting):
        apply(state, event)
    assert happening(starting, state) == "trial 1: goes on from 10 % of its probe"


def test_planned_trials_are_told_when_they_start_and_not_before(state: StudyState) -> None:
    assert happening(ADDED, state) == ""


def test_a_study_rests_when_nothing_runs_and_nothing_will(state: StudyState) -> None:
    assert not resting(state)
    apply(state, TrialStarting(t=3, trial=1, attempt=1, device="cpu"))
    apply(state, StudyChanged(t=4, status="stopped"))
    assert not resting(state), "its trial still ends"
    apply(state, TrialEnded(t=5, trial=1, attempt=1, ending="stopped"))
    assert resting(state)


def write(folder: Path, *events: AnyEvent) -> Path:
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(
        b"".join(seal(encode(e)) for e in (CREATED, ADDED, *events))
    )
    return folder


def test_a_study_in_which_nothing_completed_ends_with_1(tmp_path: Path) -> None:
    ended = TrialEnded(t=3, trial=1, attempt=1, ending="failed", reason="no such model")
    out = io.StringIO()
    folder = write(tmp_path / "s", ended, StudyChanged(t=4, status="finished"))
    assert follow(folder, out) == 1
    assert "no such model" in out.getvalue()
    assert "tunedeck trials" in out.getvalue()


def test_a_study_with_a_winner_ends_with_0_and_the_ranking(tmp_path: Path) -> None:
    ended = TrialEnded(
        t=3, trial=1, attempt=1, ending="completed", loss=1.25, step=5, total_steps=5
    )
    out = io.StringIO()
    folder = write(tmp_path / "s", ended, StudyChanged(t=4, status="finished"))
    assert follow(folder, out) == 0
    assert "Best: trial 1 (learning_rate 3e-4)" in out.getvalue()


def test_a_paused_study_names_no_winner_and_says_how_it_goes_on(tmp_path: Path) -> None:
    ended = TrialEnded(
        t=3, trial=1, attempt=1, ending="completed", loss=1.25, step=5, total_steps=5
    )
    more = TrialAdded(t=2.0, trial=2, settings={"learning_rate": 1e-3})
    out = io.StringIO()
    folder = write(tmp_path / "s", ended, more, StudyChanged(t=4, status="paused"))
    assert follow(folder, out) == 1
    assert "1 of 2 trials ended" in out.getvalue()
    assert f"tunedeck resume {folder}" in out.getvalue()
    assert "Best:" not in out.getvalue()


def test_a_full_training_ends_with_where_its_weights_are(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    events: list[AnyEvent] = [
        CREATED,
        TrialAdded(t=2.0, trial=1, settings={}, kind="full"),
        TrialEnded(t=3, trial=1, attempt=1, ending="completed", loss=1.25, step=5, total_steps=5),
        StudyChanged(t=4, status="finished"),
    ]
    (folder / "journal.jsonl").write_bytes(b"".join(seal(encode(e)) for e in events))
    out = io.StringIO()
    assert follow(folder, out) == 0
    assert "trials/0001/output" in out.getvalue()
    assert "tunedeck export" in out.getvalue() and "trials/0001 -o DIR" in out.getvalue()
    assert "place" not in out.getvalue(), "one training has no ranking"


def test_a_trial_that_waits_for_its_fix_ends_with_the_command_for_it(tmp_path: Path) -> None:
    ended = TrialEnded(t=3, trial=1, attempt=1, ending="oom", reason="asked for 8 GiB")
    fix = FixSuggested(
        t=3, trial=1, attempt=1, changes={"per_device_train_batch_size": 4}, text="8 → 4"
    )
    folder = write(tmp_path / "s", ended, fix, StudyChanged(t=4, status="finished"))
    out = io.StringIO()
    assert follow(folder, out) == 1
    assert f"tunedeck retry {folder} 1" in out.getvalue()
