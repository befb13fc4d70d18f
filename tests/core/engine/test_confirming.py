from typing import Any

import msgspec
import pytest

from core.engine.confirming import confirmations
from core.profile import Profile, from_document
from core.study.state import StudyState, Trial, TrialStatus, apply

VALUES = {1: 2.0, 2: 1.0, 3: 1.5}


def profile(confirm: int = 2, **train: Any) -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": "d"},
            "train": train,
            "search": {"confirm": confirm},
        }
    )


def study(*statuses: TrialStatus) -> StudyState:
    trials = {
        n: Trial(
            n,
            {"learning_rate": n * 1e-4},
            status=s,
            value=VALUES.get(n),
            sampled={"learning_rate": n * 1e-4},
        )
        for n, s in enumerate(statuses, 1)
    }
    return StudyState(created=1.0, rank_by="eval_loss", trials=trials)


def test_the_best_run_again_when_all_else_is_done() -> None:
    first, second = confirmations(study("completed", "completed", "completed"), profile(), 9.0)
    assert [(e.t, e.trial, e.parent, e.source, e.kind, e.until) for e in (first, second)] == [
        (9.0, 4, 2, "confirm", "probe", 1.0),
        (9.0, 5, 3, "confirm", "probe", 1.0),
    ]
    assert first.settings["learning_rate"] == 2e-4
    assert first.sampled == {"learning_rate": 2e-4}


def test_their_seeds_are_others_and_told_by_the_profile_alone() -> None:
    state = study("completed", "completed")
    (one, _) = confirmations(state, profile(seed=7, data_seed=8), 9.0)
    (again, _) = confirmations(state, profile(seed=7, data_seed=8), 10.0)
    assert one.settings == again.settings
    assert (one.settings["seed"], one.settings["order_seed"]) == (1_000_010, 1_000_011)
    assert "data_seed" not in one.settings
    (last, _) = confirmations(state, profile(seed=2**32 - 1, order_seed=3), 9.0)
    assert (last.settings["seed"], last.settings["order_seed"]) == (1_000_002, 1_000_006)


def test_memory_fixes_go_with_them() -> None:
    state = study("completed")
    fix = {"per_device_train_batch_size": 1}
    state.trials[1] = msgspec.structs.replace(state.trials[1], overrides=fix)
    (event,) = confirmations(state, profile(), 9.0)
    assert event.settings["per_device_train_batch_size"] == 1


@pytest.mark.parametrize(
    "status", ["queued", "starting", "running", "pausing", "stopping", "rung", "paused"]
)
def test_they_wait_for_every_other_trial(status: TrialStatus) -> None:
    assert confirmations(study("completed", "completed", status), profile(), 9.0) == []


def test_they_wait_for_fixes_and_proposals() -> None:
    state = study("completed", "oom")
    state.trials[2] = msgspec.structs.replace(state.trials[2], advising="fix")
    assert confirmations(state, profile(), 9.0) == []
    state = study("completed", "completed")
    state.strategy, state.planned = "bayesian", 3
    assert confirmations(state, profile(), 9.0) == []


def test_they_are_made_once() -> None:
    state = study("completed", "completed", "completed")
    for event in confirmations(state, profile(), 9.0):
        apply(state, event)
    assert confirmations(state, profile(), 10.0) == []
    for number, value in ((4, 9.0), (5, 9.0)):
        done = msgspec.structs.replace(state.trials[number], status="completed", value=value)
        state.trials[number] = done
    # Trial 1 leads now, by other trials' bad luck alone.
    assert confirmations(state, profile(), 11.0) == []


def test_what_was_added_after_them_is_confirmed_where_it_is_among_the_best() -> None:
    state = study("completed", "completed", "completed")
    for event in confirmations(state, profile(), 9.0):
        apply(state, event)
        done = msgspec.structs.replace(
            state.trials[event.trial], status="completed", value=VALUES[event.parent or 0]
        )
        state.trials[event.trial] = done
    state.trials[6] = Trial(6, {"lora_rank": 4}, source="user", status="completed", value=0.5)
    assert [e.parent for e in confirmations(state, profile(), 10.0)] == [6]


@pytest.mark.parametrize("confirm", [0, 5])
def test_no_more_are_confirmed_than_wanted_and_than_there_are(confirm: int) -> None:
    state = study("completed", "diverged", "completed")
    assert len(confirmations(state, profile(confirm), 9.0)) == min(confirm, 2)


def test_a_stopped_search_confirms_nothing() -> None:
    state = study("completed", "completed")
    state.search_on = False
    assert confirmations(state, profile(), 9.0) == []
