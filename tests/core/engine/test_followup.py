from typing import Any

import msgspec
import pytest

from core.engine.endings import Outcome
from core.engine.followup import follow_up
from core.memory.oom import OomKind
from core.profile import Profile, from_document
from core.study.events import (
    AdviceAsked,
    AnyEvent,
    Ending,
    FixSuggested,
    StudyChanged,
    TrialEnded,
    TrialQueued,
    Warned,
)
from core.study.state import Attempt, StudyState, Trial


def profile(on_oom: str = "apply", **train: Any) -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": "d"},
            "memory": {"on_oom": on_oom},
            "train": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **train},
        }
    )


def ended(ending: Ending, reason: str = "why", **more: Any) -> Trial:
    made = Trial(1, {}, status=ending, reason=reason, attempts=(Attempt(1, ending=ending),))
    return msgspec.structs.replace(made, **more)


def follow(
    trial: Trial, chosen: Profile | None = None, others: tuple[Trial, ...] = (), progress: bool = False,
    status: Any = "running", **outcome: Any,
) -> list[AnyEvent]:  # fmt: skip
    state = StudyState(status=status, trials={t.number: t for t in (trial, *others)})
    event = TrialEnded(t=9.0, trial=trial.number, attempt=1, ending=trial.status)  # type: ignore[arg-type]
    made = Outcome(event, **{"trained": True, **outcome})
    return follow_up(state, trial.number, made, chosen or profile(), progress, 9.0)


@pytest.mark.parametrize("ending", ["completed", "stopped", "diverged", "paused"])
def test_nothing_follows_an_end_that_was_wanted(ending: Ending) -> None:
    assert follow(ended(ending, asked_by="user")) == []


class TestRung:
    def test_a_pause_that_came_too_late_for_it_holds_there(self) -> None:
        at = ended(
            "rung", asked="pause", asked_by="user", asked_reason="paused by you", step=5, value=2.0
        )
        (event,) = follow(at)
        assert isinstance(event, TrialEnded)
        assert (event.ending, event.reason, event.step, event.value) == (
            "paused",
            "paused by you",
            5,
            2.0,
        )

    @pytest.mark.parametrize("by", [None, "study"])
    def test_otherwise_it_waits_for_the_decision(self, by: Any) -> None:
        assert follow(ended("rung", asked="pause" if by else None, asked_by=by)) == []

    def test_a_lost_or_mended_attempt_goes_to_the_same_rung_again(self) -> None:
        for ending in ("lost", "oom"):
            events = follow(ended(ending, until=0.1))
            again = [e for e in events if isinstance(e, TrialQueued)]
            assert [e.until for e in again] == [None]


def test_failures_alike_pause_a_study_that_would_propose_more() -> None:
    state = StudyState(
        strategy="bayesian",
        planned=5,
        trials={n: msgspec.structs.replace(ended("failed", "no model"), number=n) for n in (1, 2)},
    )
    event = TrialEnded(t=9.0, trial=1, attempt=1, ending="failed")
    (change,) = follow_up(state, 1, Outcome(event, trained=False), profile(), False, 9.0)
    assert isinstance(change, StudyChanged)
    assert change.status == "paused"


class TestMemory:
    def test_a_fix_is_applied_and_tried_at_once(self) -> None:
        fix, again = follow(ended("oom"))
        assert isinstance(fix, FixSuggested)
        assert isinstance(again, TrialQueued)
        assert (
            fix.changes
            == again.overrides
            == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
        )
        assert (again.attempt, again.reason, again.resume_from) == (2, fix.text, None)

    def test_the_next_fix_builds_on_the_last(self) -> None:
        batch = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
        fix, _ = follow(ended("oom", overrides=batch))
        assert isinstance(fix, FixSuggested)
        assert fix.changes == {"gradient_checkpointing": True}

    @pytest.mark.parametrize("kind", ["cuda", "cpu-allocator", "limit"])
    @pytest.mark.parametrize("on_oom", ["apply", "ask"])
    @pytest.mark.parametrize("trained", [True, False])
    def test_a_fix_that_fits_is_looked_for_first(
        self, kind: OomKind, on_oom: str, trained: bool
    ) -> None:
        (asked,) = follow(ended("oom"), profile(on_oom), memory=kind, trained=trained)
        assert asked == AdviceAsked(t=9.0, trial=1, attempt=1, about="fix")

    @pytest.mark.parametrize(
        "given", [{"memory": "host-killed"}, {"memory": "limit", "status": "stopped"}]
    )
    def test_where_a_dry_run_knows_nothing_or_nobody_waits_the_ladder_answers(
        self, given: dict[str, Any]
    ) -> None:
        assert isinstance(follow(ended("oom"), **given)[0], FixSuggested)

    def test_a_neighbours_memory_is_no_reason_to_change_a_trial(self) -> None:
        (again,) = follow(ended("oom"), memory="cuda", neighbour=True)
        assert isinstance(again, TrialQueued)
        assert (again.attempt, again.overrides) == (2, {})
        twice = (Attempt(1, ending="oom"), Attempt(2, ending="oom"))
        (asked,) = follow(
            ended("oom", attempts=twice, next_attempt=2), memory="cuda", neighbour=True
        )
        assert isinstance(asked, AdviceAsked)

    def test_nothing_is_looked_for_where_a_crash_is_to_be_left_alone(self) -> None:
        assert follow(ended("oom"), profile("skip"), memory="cuda") == []

    @pytest.mark.parametrize("asker", ["user", "guard"])
    def test_a_trial_that_was_to_end_is_not_started_again(self, asker: str) -> None:
        assert [type(e) for e in follow(ended("oom", asked="stop", asked_by=asker))] == [
            FixSuggested
        ]

    def test_a_trial_that_the_study_paused_gets_its_fix_for_later(self) -> None:
        trial = ended("oom", asked="pause", asked_by="study")
        assert [type(e) for e in follow(trial, status="paused")] == [FixSuggested, TrialQueued]

    def test_asking_only_suggests(self) -> None:
        assert [type(e) for e in follow(ended("oom"), profile("ask"))] == [FixSuggested]

    def test_skipping_does_nothing(self) -> None:
        assert follow(ended("oom"), profile("skip")) == []

    def test_when_no_remedy_is_left_it_says_so(self) -> None:
        last = profile(per_device_train_batch_size=1, gradient_checkpointing=True)
        (warned,) = follow(ended("oom"), last)
        assert isinstance(warned, Warned)
        assert "no remedy is left" in warned.text

    def test_a_model_that_does_not_fit_is_not_tried_with_smaller_batches(self) -> None:
        (warned,) = follow(ended("oom"), trained=False)
        assert isinstance(warned, Warned)
        assert "the model itself is too large" in warned.text

    def test_a_full_training_keeps_what_it_has_saved(self) -> None:
        _, again = follow(ended("oom", kind="full", resume_from="checkpoints/checkpoint-9"))
        assert isinstance(again, TrialQueued)
        assert again.resume_from == "checkpoints/checkpoint-9"

    def test_a_large_evaluation_batch_is_halved_first(self) -> None:
        fix, _ = follow(
            ended("oom"), profile(per_device_eval_batch_size=16), evaluating=True, memory="cuda"
        )
        assert isinstance(fix, FixSuggested)
        assert fix.changes == {"per_device_eval_batch_size": 8}

    def test_an_evaluation_that_follows_the_training_batch_gets_its_fix(self) -> None:
        fix, _ = follow(ended("oom"), evaluating=True)
        assert isinstance(fix, FixSuggested)
        assert fix.changes["per_device_train_batch_size"] == 2


class TestLost:
    def test_it_is_tried_once_more_from_its_checkpoint(self) -> None:
        (again,) = follow(ended("lost", "gone", resume_from="checkpoints/checkpoint-3"))
        assert isinstance(again, TrialQueued)
        assert (again.attempt, again.resume_from) == (2, "checkpoints/checkpoint-3")
        assert again.reason == "tried once more: gone"

    def test_it_is_not_tried_for_ever(self) -> None:
        twice = (Attempt(1, ending="lost"), Attempt(2, ending="lost"))
        assert follow(ended("lost", attempts=twice, next_attempt=2)) == []


class TestFullDisk:
    def test_the_trial_waits_in_a_paused_study(self) -> None:
        again, paused = follow(ended("failed"), disk_full=True)
        assert isinstance(again, TrialQueued)
        assert isinstance(paused, StudyChanged)
        assert paused.status == "paused"
        assert "the disk is full" in paused.reason


class TestAlike:
    one = ended("failed", "no model", number=2)
    waiting = Trial(3, {})

    def test_two_that_fail_alike_at_their_start_pause_the_study(self) -> None:
        (paused,) = follow(
            ended("failed", "no model"), others=(self.one, self.waiting), trained=False
        )
        assert isinstance(paused, StudyChanged)
        assert paused.status == "paused"
        assert (
            paused.reason
            == "trials 1, 2 failed alike before their first step, so the rest would too: no model"
        )

    @pytest.mark.parametrize(
        "given",
        [
            {"others": (waiting,)},
            {"others": (ended("failed", "another", number=2), waiting)},
            {"others": (one,)},
            {"others": (one, waiting), "progress": True},
            {"others": (one, waiting), "trained": True},
            {"others": (one, waiting), "status": "stopped"},
        ],
    )
    def test_otherwise_the_rest_is_tried(self, given: dict[str, Any]) -> None:
        assert follow(ended("failed", "no model"), **{"trained": False, **given}) == []


def test_a_trial_that_paused_after_the_study_was_resumed_is_queued_again() -> None:
    paused = ended("paused", asked_by="study", resume_from="checkpoints/checkpoint-4")
    (again,) = follow(paused)
    assert isinstance(again, TrialQueued)
    assert again.resume_from == "checkpoints/checkpoint-4"
    assert follow(paused, status="paused") == []
