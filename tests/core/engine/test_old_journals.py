"""Journals that earlier versions wrote, as they wrote them (recorded; only the machine's number is another one).

In each, a grid of four trials ran: one was paused and resumed, one ran out of memory and was mended, two diverged. The
best was promoted, and another trial was added.
"""

import shutil
from pathlib import Path

import pytest

from core.engine.costs import still_to_start
from core.engine.outcome import summary
from core.engine.standing import best_trial, ranking
from core.study.store import StudyReader

RECORDED = Path(__file__).parents[2] / "data"


@pytest.fixture(params=[1, 2])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> StudyReader:
    shutil.copy(RECORDED / f"journal-v{request.param}.jsonl", tmp_path / "journal.jsonl")
    return StudyReader(tmp_path)


def test_their_trials_are_what_they_were(old: StudyReader) -> None:
    trials = old.state.trials
    assert [t.status for t in trials.values()] == [
        "completed",
        "completed",
        "diverged",
        "diverged",
        "completed",
        "completed",
    ]
    assert [a.ending for a in trials[1].attempts] == ["paused", "completed"]
    assert trials[2].overrides == {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    assert (trials[5].kind, trials[5].source, trials[5].parent) == ("full", "promote", 1)
    assert trials[6].source == "user"
    assert {t.until for t in trials.values()} == {1.0}


def test_they_know_of_no_early_stopping_and_await_nothing(old: StudyReader) -> None:
    state = old.state
    assert (state.stopping, state.direction, state.decisions) == ("none", "min", [])
    assert (state.to_come(), state.waiting_at_rung(), state.unfinished()) == (0, [], False)


def test_their_winner_is_the_one_that_was_named_then(old: StudyReader) -> None:
    state = old.state
    best = best_trial(state)
    assert best is not None
    assert best.number == 1
    assert summary(state).startswith(state.reason)
    assert {r.trial for r in ranking(state) if r.place is not None} == {1, 2, 6}


def test_nothing_of_them_is_left_to_start(old: StudyReader) -> None:
    assert still_to_start(list(old.state.trials.values()), to_come=old.state.to_come()) == 0
