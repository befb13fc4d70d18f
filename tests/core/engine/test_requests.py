from typing import Any

import msgspec
import pytest

from core.engine.messages import Reply, Request
from core.engine.requests import answer
from core.profile import Profile, from_document
from core.search.halving import first_until, profile_settings
from core.study.events import (
    FixOption,
    StudyChanged,
    TrialAdded,
    TrialAsked,
    TrialEnded,
    TrialQueued,
)
from core.study.state import Attempt, RungResult, StudyState, Suggestion, Trial, TrialStatus, apply


def profile(**tables: dict[str, Any]) -> Profile:
    document = {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}, **tables}
    return from_document(document)


def trial(number: int, status: TrialStatus, **more: Any) -> Trial:
    attempts = () if status == "queued" else (Attempt(1),)
    return msgspec.structs.replace(
        Trial(number, {"learning_rate": 1e-4 * number}, status=status, attempts=attempts), **more
    )


OF_THE_STUDY = ("stopping", "strategy", "planned", "search_on")


def study(*statuses: TrialStatus, status: str = "running", **more: Any) -> StudyState:
    """`more` is of the study where it is named so there, else of all its trials."""
    own = {k: v for k, v in more.items() if k not in OF_THE_STUDY}
    trials = {n: trial(n, s, **own) for n, s in enumerate(statuses, 1)}
    state = StudyState(created=1.0, status=status, trials=trials)  # type: ignore[arg-type]
    for name in more.keys() - own.keys():
        setattr(state, name, more[name])
    return state


def ask(
    state: StudyState,
    command: Any,
    trial: int | None = None,
    changes: Any = None,
    fix: int | None = None,
) -> Reply:
    """Make a request and apply what it leads to."""
    decided = answer(state, profile(), Request(command, trial, changes, fix), 9.0)
    assert decided.reply.ok or not decided.events
    for event in decided.events:
        apply(state, event)
    return decided.reply


class TestStudy:
    def test_pausing_asks_all_that_run_and_leaves_the_queue(self) -> None:
        state = study("completed", "running", "starting", "pausing", "stopping", "queued")
        decided = answer(state, profile(), Request("pause"), 9.0)
        asked = [e for e in decided.events if isinstance(e, TrialAsked)]
        assert [(e.trial, e.ask, e.by) for e in asked] == [
            (2, "pause", "study"),
            (3, "pause", "study"),
        ]
        assert decided.events[0] == StudyChanged(t=9.0, status="paused", reason="paused by you")
        ask(state, "pause")
        assert state.trials[6].status == "queued"

    def test_resuming_queues_what_the_study_had_paused_and_no_more(self) -> None:
        state = study("paused", "paused", "queued", status="paused")
        state.trials[1] = trial(
            1, "paused", asked_by="study", resume_from="checkpoints/checkpoint-3"
        )
        state.trials[2] = trial(2, "paused", asked_by="user")
        assert ask(state, "resume").ok
        assert state.status == "running"
        assert [t.status for t in state.trials.values()] == ["queued", "paused", "queued"]
        assert (state.trials[1].resume_from, state.trials[1].next_attempt) == (
            "checkpoints/checkpoint-3",
            2,
        )

    def test_resuming_queues_what_users_paused_when_nothing_else_is_left(self) -> None:
        state = study("completed", "paused", status="paused", asked_by="user")
        assert ask(state, "resume").ok
        assert state.trials[2].status == "queued"

    def test_a_trial_that_a_fix_is_looked_for_is_work_to_go_on_with(self) -> None:
        state = study("completed", status="paused")
        state.trials[2] = trial(2, "oom", advising="fix")
        reply = ask(state, "resume")
        assert (reply.ok, state.status) == (True, "running")
        assert reply.text == "the study goes on with 1 trial"
        assert state.trials[2].advising == "fix"

    def test_stopping_ends_what_waits_and_asks_what_runs(self) -> None:
        state = study("completed", "running", "queued", "paused")
        assert ask(state, "stop").ok
        assert state.status == "stopped"
        assert [t.status for t in state.trials.values()] == [
            "completed",
            "stopping",
            "stopped",
            "paused",
        ]

    def test_a_stopped_study_can_go_on_where_it_was_stopped(self) -> None:
        state = study("completed", "queued", "queued")
        ask(state, "stop")
        reply = ask(state, "resume")
        assert reply.ok
        assert reply.text == "the study goes on with 2 trials"
        assert [t.next_attempt for t in state.queued()] == [1, 1]

    @pytest.mark.parametrize(
        ("command", "status", "text"),
        [
            ("pause", "paused", "the study is paused: there is nothing to pause"),
            ("pause", "finished", "the study is finished: there is nothing to pause"),
            ("stop", "stopped", "the study is stopped already"),
            (
                "resume",
                "running",
                "the study is running already; resume a paused trial by its number",
            ),
            ("resume", "finished", "nothing is left to do: add a trial, retry or promote one"),
            ("promote", "running", "say which trial to promote"),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_words(
        self, command: Any, status: str, text: str
    ) -> None:
        state = study("completed", status=status)
        assert ask(state, command) == Reply(False, text)
        assert state.version == 0

    def test_a_ping_tells_what_goes_on(self) -> None:
        reply = ask(study("running", "queued", "queued", "oom"), "ping")
        assert reply == Reply(True, "the study is running: 1 running, 2 waiting, 1 ended")


class TestStopAndPause:
    @pytest.mark.parametrize("command", ["stop", "pause"])
    def test_a_running_trial_is_asked(self, command: Any) -> None:
        decided = answer(study("running"), profile(), Request(command, 1), 9.0)
        (event,) = decided.events
        assert isinstance(event, TrialAsked)
        assert (event.trial, event.attempt, event.ask, event.by) == (1, 1, command, "user")

    @pytest.mark.parametrize(("command", "status"), [("stop", "stopped"), ("pause", "paused")])
    def test_a_waiting_trial_ends_at_once_and_keeps_what_it_had(
        self, command: Any, status: str
    ) -> None:
        kept = {
            "resume_from": "checkpoints/checkpoint-9",
            "step": 9,
            "loss": 1.5,
            "eval_loss": 1.7,
            "seconds": 60.0,
        }
        state = study("queued", next_attempt=2, **kept)
        assert ask(state, command, 1).ok
        assert state.trials[1].status == status
        assert {name: getattr(state.trials[1], name) for name in kept} == kept

    def test_a_trial_that_a_fix_is_looked_for_can_be_kept_from_starting_again(self) -> None:
        state = study("oom", advising="fix")
        assert ask(state, "stop", 1).ok
        stopped = state.trials[1]
        assert (stopped.status, stopped.asked_by, stopped.advising) == ("oom", "user", "fix")
        assert not ask(state, "stop", 1).ok

    def test_a_pausing_trial_can_still_be_stopped(self) -> None:
        state = study("pausing")
        assert ask(state, "stop", 1).ok
        assert state.trials[1].status == "stopping"

    @pytest.mark.parametrize(
        ("command", "status"),
        [("stop", "stopping"), ("stop", "completed"), ("pause", "pausing"), ("pause", "stopping"), ("pause", "failed"),
         ("resume", "running"), ("resume", "pausing"), ("resume", "completed"), ("retry", "running"), ("retry", "queued")],
    )  # fmt: skip
    def test_requests_that_come_too_late_or_too_early_are_refused(
        self, command: Any, status: TrialStatus
    ) -> None:
        state = study(status)
        reply = ask(state, command, 1)
        assert not reply.ok
        assert "trial 1" in reply.text


class TestResume:
    def test_a_paused_trial_continues_with_the_next_attempt(self) -> None:
        state = study("paused", "running", resume_from="checkpoints/checkpoint-5")
        reply = ask(state, "resume", 1)
        assert reply.text == "trial 1 continues from its checkpoint"
        assert (state.trials[1].next_attempt, state.trials[1].resume_from) == (
            2,
            "checkpoints/checkpoint-5",
        )

    def test_a_trial_that_never_ran_starts_with_its_first_attempt(self) -> None:
        state = study("queued")
        ask(state, "pause", 1)
        ask(state, "resume", 1)
        assert (state.trials[1].status, state.trials[1].next_attempt) == ("queued", 1)

    def test_in_a_paused_study_it_waits_and_is_told_so(self) -> None:
        state = study("paused", "queued", status="paused")
        assert "waits until the study is resumed" in ask(state, "resume", 1).text
        assert state.status == "paused"

    def test_it_wakes_a_study_that_only_waited_for_it(self) -> None:
        state = study("paused", "completed", status="paused")
        ask(state, "resume", 1)
        assert state.status == "running"


class TestRetry:
    def test_without_changes_the_suggested_fix_is_applied(self) -> None:
        fix = Suggestion(
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, "half the batch"
        )
        state = study("oom", suggestion=fix, resume_from="checkpoints/checkpoint-5")
        reply = ask(state, "retry", 1)
        assert reply.text == "trial 1 is tried again: half the batch"
        again = state.trials[1]
        assert (again.status, again.next_attempt, again.resume_from) == ("queued", 2, None)
        assert again.overrides == fix.changes
        assert again.fixes == ("half the batch",)

    @pytest.mark.parametrize(
        ("changes", "keeps"),
        [
            ({"optim": "adamw_8bit"}, True),
            ({"per_device_train_batch_size": 2}, True),
            ({"finetuning_type": "lora"}, False),
        ],
    )
    def test_a_full_training_keeps_what_it_has_saved_unless_its_method_changes(
        self, changes: dict[str, Any], keeps: bool
    ) -> None:
        saved = "checkpoints/checkpoint-5"
        fix = Suggestion(changes, "a fix")
        state = study("oom", suggestion=fix, resume_from=saved, kind="full")
        assert ask(state, "retry", 1).ok
        assert state.trials[1].resume_from == (saved if keeps else None)

    options = tuple(
        FixOption(changes={"per_device_train_batch_size": n}, text=f"batch {n}", needed=1, headroom=1, slowdown=(1.0, 1.1))
        for n in (4, 2)
    )  # fmt: skip
    several = Suggestion({"per_device_train_batch_size": 4}, "batch 4", options)

    @pytest.mark.parametrize(("fix", "batch"), [(None, 4), (1, 4), (2, 2)])
    def test_one_of_several_fixes_is_chosen_by_its_number(
        self, fix: int | None, batch: int
    ) -> None:
        state = study("skipped", suggestion=self.several)
        assert ask(state, "retry", 1, fix=fix).text == f"trial 1 is tried again: batch {batch}"
        assert state.trials[1].overrides == {"per_device_train_batch_size": batch}
        assert state.trials[1].checked

    @pytest.mark.parametrize("status", ["oom", "skipped"])
    def test_without_a_fix_it_starts_as_it_is_whatever_was_found(self, status: TrialStatus) -> None:
        state = study(status, suggestion=self.several)
        assert ask(state, "retry", 1, fix=0).ok
        assert (state.trials[1].overrides, state.trials[1].checked) == ({}, True)

    def test_other_changes_are_looked_at_before_they_start(self) -> None:
        state = study("skipped", suggestion=self.several)
        assert ask(state, "retry", 1, {"lora_rank": 4}).ok
        assert not state.trials[1].checked

    @pytest.mark.parametrize("fix", [3, -1])
    def test_a_fix_that_was_not_suggested_is_refused(self, fix: int) -> None:
        reply = ask(study("oom", suggestion=self.several), "retry", 1, fix=fix)
        assert reply.text == f"trial 1 has 2 fixes to choose from: there is no number {fix}"

    def test_a_fix_is_not_chosen_where_there_is_none_or_together_with_changes(self) -> None:
        assert "has no fixes to choose from" in ask(study("oom"), "retry", 1, fix=1).text
        refused = ask(study("oom", suggestion=self.several), "retry", 1, {"lora_rank": 4}, fix=1)
        assert not refused.ok

    def test_changes_are_named_in_short_and_start_over(self) -> None:
        state = study("failed", resume_from="checkpoints/checkpoint-5")
        reply = ask(state, "retry", 1, {"train.learning_rate": 2e-4})
        assert reply.ok
        assert state.trials[1].overrides == {"learning_rate": 2e-4}
        assert state.trials[1].resume_from is None

    def test_what_failed_goes_on_from_its_checkpoint_and_what_diverged_does_not(self) -> None:
        failed = study("failed", resume_from="checkpoints/checkpoint-5")
        ask(failed, "retry", 1)
        assert failed.trials[1].resume_from == "checkpoints/checkpoint-5"
        diverged = study("diverged", resume_from="checkpoints/checkpoint-5")
        ask(diverged, "retry", 1)
        assert diverged.trials[1].resume_from is None

    def test_it_wakes_a_finished_study(self) -> None:
        state = study("failed", status="finished")
        assert ask(state, "retry", 1).ok
        assert state.status == "running"

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"learning_rat": 1e-4}, "did you mean train.learning_rate"),
            ({"learning_rate": -1.0}, "learning_rate: -1 is not allowed: a number above 0"),
            ({"limit_gib": 4.0}, "memory.limit_gib belongs to the whole study"),
            ({"quantization_bit": 4, "finetuning_type": "full"}, "quantised weights"),
        ],
    )
    def test_changes_that_cannot_be_are_refused_in_words(
        self, changes: dict[str, Any], text: str
    ) -> None:
        reply = ask(study("failed"), "retry", 1, changes)
        assert not reply.ok
        assert text in reply.text


class TestAddAndPromote:
    def test_an_added_trial_has_the_next_number(self) -> None:
        state = study("completed", "running")
        reply = ask(state, "add", changes={"learning_rate": 5e-4, "method.lora_rank": 4})
        assert (reply.ok, reply.trial) == (True, 3)
        assert state.trials[3].settings == {"learning_rate": 5e-4, "lora_rank": 4}
        assert (state.trials[3].source, state.trials[3].kind) == ("user", "probe")

    def test_adding_what_cannot_be_is_refused(self) -> None:
        assert not ask(study("running"), "add", changes={"lora_rank": 0}).ok

    def test_a_promoted_trial_keeps_its_settings_and_its_memory_fixes(self) -> None:
        state = study("completed", status="finished", overrides={"gradient_checkpointing": True})
        reply = ask(state, "promote", 1)
        assert reply.trial == 2
        full = state.trials[2]
        assert full.settings == {"learning_rate": 1e-4, "gradient_checkpointing": True}
        assert (full.kind, full.parent, full.source, state.status) == (
            "full",
            1,
            "promote",
            "running",
        )

    def test_a_trial_is_promoted_once_at_a_time(self) -> None:
        state = study("completed")
        ask(state, "promote", 1)
        assert ask(state, "promote", 1).text == "trial 2 is the full training of trial 1 already"
        assert ask(state, "promote", 2).text == "trial 2 is a full training already"

    def test_new_work_waits_in_a_study_that_a_user_paused(self) -> None:
        state = study("completed", "queued", status="paused")
        reply = ask(state, "promote", 1)
        assert "waits until the study is resumed" in reply.text
        assert state.status == "paused"


def test_a_trial_that_is_not_there_is_named_with_those_that_are() -> None:
    assert (
        ask(study("running", "queued"), "stop", 9).text
        == "there is no trial 9: they are numbered 1 to 2"
    )


def test_events_are_of_the_moment_of_the_request() -> None:
    for command in ("pause", "stop", "promote"):
        for event in answer(study("running"), profile(), Request(command, 1), 42.0).events:  # type: ignore[arg-type]
            assert event.t == 42.0
            assert isinstance(event, TrialAsked | TrialAdded | TrialQueued | TrialEnded)


class TestTheEndOfAStudy:
    def test_stopping_the_last_paused_trial_lets_the_study_finish(self) -> None:
        state = study("completed", "paused", status="paused")
        assert ask(state, "stop", 2).ok
        assert state.status == "running"

    def test_stopping_the_last_waiting_trial_of_a_paused_study_lets_it_finish(self) -> None:
        state = study("completed", "queued", status="paused")
        assert ask(state, "stop", 2).ok
        assert state.status == "running"

    @pytest.mark.parametrize("other", ["queued", "running"])
    def test_a_paused_study_with_other_work_stays_paused(self, other: TrialStatus) -> None:
        state = study(other, "paused", status="paused")
        assert ask(state, "stop", 2).ok
        assert state.status == "paused"

    def test_a_stopped_study_stays_stopped(self) -> None:
        state = study("completed", "paused", status="stopped")
        assert ask(state, "stop", 2).ok
        assert state.status == "stopped"

    def test_a_study_that_still_stops_is_not_resumed_without_the_trials_that_are_ending(
        self,
    ) -> None:
        state = study("running", "queued")
        ask(state, "stop")
        assert ask(state, "resume").text == "a trial is still stopping: try again in a moment"


def at_rung(status: TrialStatus = "rung", **more: Any) -> Trial:
    """A trial that has come to the rung that it was sent to."""
    return trial(
        1,
        status,
        **{"until": 0.1, "rungs": (RungResult(0.1, 5, 2.0),), "value": 2.0, "step": 5,
           "resume_from": "checkpoints/checkpoint-5", **more},
    )  # fmt: skip


def with_first(state: StudyState, first: Trial) -> StudyState:
    state.trials[1] = first
    return state


class TestRungs:
    def test_stopping_the_study_ends_what_waits_and_its_search(self) -> None:
        state = with_first(study("rung", "running"), at_rung())
        assert ask(state, "stop").ok
        assert (state.trials[1].status, state.search_on) == ("stopped", False)
        assert state.trials[1].value == 2.0

    def test_resuming_it_puts_the_trial_back_to_its_rung(self) -> None:
        state = with_first(study("rung", "queued"), at_rung())
        ask(state, "stop")
        assert ask(state, "resume").text == "the study goes on with 2 trials"
        assert [t.status for t in state.trials.values()] == ["rung", "queued"]
        assert (state.search_on, state.trials[1].rungs) == (True, at_rung().rungs)

    def test_pausing_the_study_leaves_it_there(self) -> None:
        state = with_first(study("rung"), at_rung())
        assert ask(state, "pause").ok
        assert state.trials[1].status == "rung"
        assert ask(state, "resume").ok

    @pytest.mark.parametrize(("command", "status"), [("pause", "paused"), ("stop", "stopped")])
    def test_a_person_can_take_it_out_and_put_it_back(self, command: Any, status: str) -> None:
        state = with_first(study("rung", "running"), at_rung())
        assert ask(state, command, 1).ok
        assert state.trials[1].status == status
        back: Any = "resume" if command == "pause" else "retry"
        assert ask(state, back, 1).ok
        assert (state.trials[1].status, state.trials[1].until) == ("rung", 0.1)
        assert len(state.trials[1].rungs) == 1

    @pytest.mark.parametrize("command", ["resume", "retry"])
    def test_it_cannot_be_hurried(self, command: Any) -> None:
        state = with_first(study("rung", "running"), at_rung())
        assert "rung" in ask(state, command, 1).text
        assert state.trials[1].status == "rung"

    @pytest.mark.parametrize("command", ["resume", "retry"])
    def test_what_was_dropped_can_be_run_to_its_end(self, command: Any) -> None:
        state = with_first(study("pruned", status="finished"), at_rung("pruned"))
        assert ask(state, command, 1).ok
        again = state.trials[1]
        assert (again.status, again.until, again.resume_from, state.status) == (
            "queued",
            1.0,
            "checkpoints/checkpoint-5",
            "running",
        )

    def test_a_retry_with_changes_begins_again_and_is_compared_again(self) -> None:
        state = with_first(study("pruned"), at_rung("pruned"))
        assert ask(state, "retry", 1, {"lora_rank": 4}).ok
        again = state.trials[1]
        assert (again.status, again.until, again.resume_from) == ("queued", 0.1, None)

    def test_a_trial_that_completed_is_retried_from_its_beginning(self) -> None:
        state = with_first(study("completed"), at_rung("completed", until=1.0))
        assert ask(state, "retry", 1).ok
        assert state.trials[1].resume_from is None

    def test_an_added_trial_is_sent_to_the_first_rung(self) -> None:
        state = study("running", stopping="halving")
        ask(state, "add", changes={"lora_rank": 4})
        assert state.trials[2].until == first_until(profile_settings(profile())) < 1
        state.search_on = False
        ask(state, "add", changes={"lora_rank": 2})
        assert state.trials[3].until == 1.0

    def test_new_work_does_not_wake_a_search_that_was_stopped(self) -> None:
        state = study(
            "completed", status="stopped", strategy="bayesian", planned=9, search_on=False
        )
        assert ask(state, "promote", 1).ok
        assert (state.status, state.search_on, state.to_come()) == ("running", False, 0)
        assert ask(state, "stop").ok
        assert ask(state, "resume").ok
        assert (state.search_on, state.to_come()) == (True, 8)

    def test_a_pause_holds_what_is_still_to_be_proposed(self) -> None:
        state = study("completed", strategy="bayesian", planned=3)
        assert ask(state, "ping").text == "the study is running: 1 ended, 2 to come"
        ask(state, "pause")
        assert "waits until the study is resumed" in ask(state, "promote", 1).text
        assert state.status == "paused"
        assert ask(state, "resume").text == "the study goes on with 3 trials"

    def test_a_ping_tells_who_waits_at_a_rung(self) -> None:
        assert ask(study("running", "rung", "rung"), "ping").text == (
            "the study is running: 1 running, 2 at a rung"
        )


class TestHandOver:
    def test_what_was_dropped_can_be_promoted(self) -> None:
        state = with_first(study("pruned"), at_rung("pruned"))
        assert ask(state, "promote", 1).ok
        assert state.trials[2].kind == "full"

    def test_it_starts_over_unless_it_is_to_continue(self) -> None:
        state = study("completed", resume_from="checkpoints/checkpoint-50", step=50)
        ask(state, "promote", 1)
        assert state.trials[2].continues is None

    def test_it_continues_from_what_its_probe_kept(self) -> None:
        state = study("completed", resume_from="checkpoints/checkpoint-50", step=50)
        reply = promote(state, continues=True)
        assert "from update 50 of its probe on" in reply.text
        assert state.trials[2].continues == "trials/0001/checkpoints/checkpoint-50"

    @pytest.mark.parametrize("status", ["completed", "pruned", "running"])
    def test_without_a_kept_checkpoint_that_is_refused(self, status: TrialStatus) -> None:
        kept = None if status == "completed" else "checkpoints/checkpoint-5"
        state = study(status, resume_from=kept)
        reply = promote(state, continues=True)
        assert not reply.ok
        assert "search.keep_checkpoints = true" in reply.text
        assert len(state.trials) == 1

    def test_what_continues_keeps_the_shape_of_its_model(self) -> None:
        state = study("completed", resume_from="checkpoints/checkpoint-50")
        refused = promote(state, {"lora_rank": 64}, continues=True)
        assert refused.text == "a training that continues from a checkpoint cannot change lora_rank"
        assert promote(state, {"learning_rate": 5e-5}, continues=True).ok

    def test_the_horizons_effect_on_the_rate_is_told(self) -> None:
        reply = promote(study("completed"))
        assert "It keeps the learning rate 0.0001" in reply.text
        assert "about twice too high" in reply.text
        assert "5e-05 may end better" in reply.text

    def test_it_is_not_told_where_it_is_chosen_or_means_nothing(self) -> None:
        state = study("completed")
        reply = promote(state, {"learning_rate": 5e-5})
        assert "twice" not in reply.text
        assert state.trials[2].settings == {"learning_rate": 5e-5}
        for search in ({"budget": 1.0}, {"probe_schedule": "full"}):
            assert "twice" not in promote(study("completed"), search=search).text

    def test_a_range_test_is_not_promoted(self) -> None:
        assert not ask(study("completed", kind="range"), "promote", 1).ok


def promote(
    state: StudyState, changes: Any = None, *, continues: bool = False, search: Any = None
) -> Reply:
    request = Request("promote", 1, changes, continues=continues)
    decided = answer(state, profile(search=search or {}), request, 9.0)
    for event in decided.events:
        apply(state, event)
    return decided.reply


@pytest.mark.parametrize(
    ("status", "how"),
    [("diverged", "diverged"), ("oom", "ran out of memory"), ("failed", "failed")],
)
def test_what_did_not_work_is_not_promoted(status: TrialStatus, how: str) -> None:
    reply = ask(study(status), "promote", 1)
    assert not reply.ok
    assert f"trial 1 {how}" in reply.text


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("queued", "trial 1 has the same settings already (queued)"),
        ("failed", "trial 1 has the same settings already (failed): retry it"),
    ],
)
def test_the_same_trial_is_not_added_twice(status: TrialStatus, text: str) -> None:
    state = study(status)
    assert ask(state, "add", changes={"learning_rate": 1e-4}).text == text
    assert ask(state, "add", changes={"learning_rate": 3e-4}).ok


@pytest.mark.parametrize("status", ["stopping", "pausing"])
def test_a_retry_waits_for_the_end_that_is_on_its_way(status: TrialStatus) -> None:
    text = f"trial 1 is still {status}: try again in a moment"
    assert ask(study(status), "retry", 1).text == text
