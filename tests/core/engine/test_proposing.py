from typing import Any

import msgspec
import pytest

from core.engine.proposing import Proposer, drawn, proposed, request_for
from core.engine.scheduler import Supply
from core.engine.searching import wanted
from core.profile import Profile, from_document, loads
from core.search.proposals import ProposeRequest
from core.study.events import SearchPlanned, TrialAdded
from core.study.state import RungResult, StudyState, Trial, TrialStatus, apply


def profile(**space: Any) -> Profile:
    rates = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": "d"},
            "method": {"lora_rank": 8, "lora_alpha": 16},
            "search": {"strategy": "bayesian", "trials": 9, "seed": 5, "space": space or rates},
        }
    )


def study(*trials: Trial, **more: Any) -> StudyState:
    state = StudyState(
        created=1.0, strategy="bayesian", planned=9, trials={t.number: t for t in trials}
    )
    for name, value in more.items():
        setattr(state, name, value)
    return state


def trial(number: int, status: TrialStatus, **more: Any) -> Trial:
    point = {"learning_rate": number * 1e-4}
    return msgspec.structs.replace(Trial(number, point, status=status, sampled=point), **more)


class TestRequest:
    def seen(self, made: Trial, **more: Any) -> tuple[str, float | None, float]:
        (one,) = request_for(study(made, **more), profile(), 2).trials
        return one.state, one.value, one.share

    def test_it_carries_the_profile_and_the_seed(self) -> None:
        request = request_for(study(), profile(), 2)
        assert loads(request.profile) == profile()
        assert (request.count, request.seed, request.trials) == (2, 5, [])

    @pytest.mark.parametrize(
        ("status", "told"),
        [
            ("queued", "running"),
            ("running", "running"),
            ("pausing", "running"),
            ("paused", "running"),
            ("diverged", "diverged"),
            ("oom", "oom"),
            ("skipped", "oom"),
            ("failed", "failed"),
            ("stopped", "failed"),
            ("lost", "failed"),
        ],
    )
    def test_the_sampler_hears_how_each_trial_fared(self, status: TrialStatus, told: str) -> None:
        assert self.seen(trial(1, status)) == (told, None, 0.0)

    def test_a_trial_that_a_fix_is_looked_for_still_runs(self) -> None:
        assert self.seen(trial(1, "oom", advising="fix"))[0] == "running"

    def test_values_are_of_the_whole_probe_or_of_the_last_rung(self) -> None:
        rungs = (RungResult(0.1, 5, 3.0), RungResult(0.3, 15, 2.0))
        assert self.seen(trial(1, "completed", value=1.5, rungs=rungs)) == ("completed", 1.5, 1.0)
        assert self.seen(trial(1, "pruned", value=2.0, rungs=rungs)) == ("completed", 2.0, 0.3)
        assert self.seen(trial(1, "rung", value=2.0, rungs=rungs)) == ("running", 2.0, 0.3)
        (one,) = request_for(study(trial(1, "pruned", rungs=rungs)), profile(), 1).trials
        assert one.rungs == ((0.1, 3.0), (0.3, 2.0))

    def test_the_sampler_always_hears_that_lower_is_better(self) -> None:
        done = trial(1, "completed", value=0.75, rungs=(RungResult(0.1, 5, 0.5),))
        (one,) = request_for(study(done, direction="max"), profile(), 1).trials
        assert (one.value, one.rungs) == (-0.75, ((0.1, -0.5),))

    def test_full_trainings_are_left_out(self) -> None:
        full = trial(1, "completed", kind="full")
        assert request_for(study(full), profile(), 1).trials == []

    def test_what_a_person_added_stands_for_its_point_of_the_space(self) -> None:
        chosen = profile(learning_rate=[1e-4, 2e-4], lora_rank=[8, 16])
        added = trial(2, "completed", sampled={}, source="user", value=1.5)
        (one,) = request_for(study(added), chosen, 1).trials
        assert (one.sampled, one.value) == ({"learning_rate": 2e-4, "lora_rank": 8}, 1.5)

    @pytest.mark.parametrize(
        "settings", [{"weight_decay": 0.1, "lora_rank": 16}, {"lora_rank": 16, "lora_alpha": 1}, {"lora_rank": 16}]
    )  # fmt: skip
    def test_what_a_person_added_beside_the_space_says_nothing_about_it(
        self, settings: dict[str, Any]
    ) -> None:
        # The last one leaves lora_alpha as it is, which the search would have changed with the rank.
        added = trial(2, "completed", sampled={}, source="user", settings=settings)
        assert request_for(study(added), profile(lora_rank=[8, 16]), 1).trials == []

    def test_what_neither_a_person_nor_the_profile_gives_a_value_to_is_no_point(self) -> None:
        added = trial(2, "completed", sampled={}, source="user")
        chosen = profile(learning_rate=[1e-4, 2e-4], warmup_steps=[5, 10])
        assert request_for(study(added), chosen, 1).trials == []


class TestProposed:
    def test_a_point_becomes_a_trial_with_what_follows_from_it(self) -> None:
        chosen = profile(lora_rank=[4, 8, 16])
        (event,) = proposed(study(trial(3, "completed")), chosen, [{"lora_rank": 4}], 0.1, 9.0)
        assert isinstance(event, TrialAdded)
        assert (event.trial, event.sampled, event.until, event.source) == (
            4,
            {"lora_rank": 4},
            0.1,
            "search",
        )
        assert event.settings == {"lora_rank": 4, "lora_alpha": 8}

    def test_nothing_is_tried_twice(self) -> None:
        point = {"learning_rate": 5e-4}
        state = study(trial(1, "completed"))
        events = proposed(state, profile(), [{"learning_rate": 1e-4}, point, point], 1.0, 9.0)
        assert [e.trial for e in events if isinstance(e, TrialAdded)] == [2]

    def test_what_a_person_had_added_is_replaced_by_another(self) -> None:
        state = study(trial(1, "completed", source="user", sampled={}))
        (event,) = proposed(state, profile(), [{"learning_rate": 1e-4}], 1.0, 9.0)
        assert isinstance(event, TrialAdded)
        assert event.settings != state.trials[1].settings

    def test_what_a_person_had_added_in_other_words_is_not_tried_again(self) -> None:
        chosen = profile(learning_rate=[1e-4, 2e-4], lora_rank=[8, 16])
        state = study(trial(1, "completed", source="user", sampled={}))
        same = {"learning_rate": 1e-4, "lora_rank": 8}
        (event,) = proposed(state, chosen, [same], 1.0, 9.0)
        assert isinstance(event, TrialAdded)
        assert event.sampled != same

    def test_nothing_new_ends_the_search(self) -> None:
        chosen = profile(lora_rank=[4, 8])
        for points in ([], [{"lora_rank": 4}]):
            state = study()
            for event in proposed(state, chosen, [{"lora_rank": 4}, {"lora_rank": 8}], 1.0, 9.0):
                apply(state, event)
            (ended,) = proposed(state, chosen, points, 1.0, 9.0)
            assert isinstance(ended, SearchPlanned)
            assert ended.planned == 2
            apply(state, ended)
            assert state.to_come() == 0


class TestDrawn:
    def test_points_are_new_and_the_same_each_time(self) -> None:
        state = study()
        points = drawn(state, profile(), 3)
        assert points == drawn(state, profile(), 3)
        for event in proposed(state, profile(), points, 1.0, 9.0):
            apply(state, event)
        more = drawn(state, profile(), 3)
        assert len(more) == 3
        assert not [p for p in more if p in points]

    def test_a_space_that_is_used_up_gives_none(self) -> None:
        chosen = profile(lora_rank=[4, 8])
        state = study()
        for event in proposed(state, chosen, drawn(state, chosen, 5), 1.0, 9.0):
            apply(state, event)
        assert len(state.trials) == 2
        assert drawn(state, chosen, 5) == []


class TestWanted:
    def test_there_is_one_for_each_place_that_is_free(self) -> None:
        assert wanted(study(trial(1, "running"), trial(2, "queued")), Supply("cpu", 4)) == 2
        assert wanted(study(trial(1, "running")), Supply("cuda", 4, ("a", "b"))) == 2

    def test_a_trial_that_is_about_to_end_leaves_its_place(self) -> None:
        assert wanted(study(trial(1, "pausing")), Supply("cpu", 1)) == 1

    def test_one_waits_for_a_gpu_where_none_is_free_and_nothing_runs(self) -> None:
        busy = Supply("cuda", 4, ())
        assert wanted(study(), busy) == 1
        assert wanted(study(trial(1, "queued")), busy) == 0
        assert wanted(study(trial(1, "running")), busy) == 0


def test_the_real_process_answers(tmp_path: Any, waits: Any) -> None:
    proposer = Proposer()
    proposer.start(
        ProposeRequest(profile=request_for(study(), profile(), 1).profile, trials=[], count=2)
    )
    assert proposer.busy
    reply = waits(proposer.poll)
    assert not proposer.busy
    assert len(reply.points) == 2
    assert all(1e-5 <= p["learning_rate"] <= 1e-3 for p in reply.points)
