from typing import Any

import msgspec
import pytest

from core.engine.memory.advice import after_crash, after_fit, after_look, misfit, too_large_to_start
from core.engine.memory.jobs import Result
from core.profile import Profile, from_document
from core.study.events import AdviceGiven, AnyEvent, FixSuggested, TrialEnded, TrialQueued, Warned
from core.study.state import Attempt, StudyState, Trial, apply
from tests.core.engine.memory.findings import forecast, found, option, result, target


def profile(on_oom: str = "apply") -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": "d"},
            "memory": {"on_oom": on_oom},
            "train": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        }
    )


def crashed(**more: Any) -> Trial:
    made = Trial(1, {}, status="oom", attempts=(Attempt(1),), advising="fix", total_steps=10)
    return msgspec.structs.replace(made, **more)


def queued(**more: Any) -> Trial:
    return msgspec.structs.replace(Trial(1, {}), **more)


def after(trial: Trial, said: Result, on_oom: str = "apply", status: Any = "running") -> Any:
    state = StudyState(status=status, trials={1: trial})
    return after_crash(state, trial, said, profile(on_oom), 9.0)


def kinds(events: list[AnyEvent]) -> list[type]:
    return [type(event) for event in events]


THREE = result(
    about="fix",
    summary="activations dominate",
    fixes=(found(20, numerics="different"), found(12, text="second"), found(8)),
)


class TestCrash:
    def test_all_fixes_are_suggested_and_the_first_that_changes_no_result_is_applied(self) -> None:
        given, fix, again = after(crashed(), THREE)
        assert given.text == "activations dominate"
        assert isinstance(fix, FixSuggested)
        assert fix.fixes == tuple(f.option for f in THREE.fixes)
        assert fix.changes == THREE.fixes[0].option.changes
        assert isinstance(again, TrialQueued)
        assert (again.attempt, again.reason, again.unchecked) == (2, "second", True)

    def test_asking_only_suggests(self) -> None:
        assert kinds(after(crashed(), THREE, "ask")) == [AdviceGiven, FixSuggested]

    def test_a_fix_that_changes_the_result_is_never_applied(self) -> None:
        different = result(fixes=(found(numerics="different"),))
        assert kinds(after(crashed(), different)) == [AdviceGiven, FixSuggested]

    def test_more_gpus_are_taken_only_when_a_person_says_so(self) -> None:
        more = found(8)
        changes = {"gpus_per_trial": 2, "sharding": "fsdp"}
        more = msgspec.structs.replace(
            more, option=msgspec.structs.replace(more.option, changes=changes)
        )
        assert kinds(after(crashed(), result(fixes=(more,)))) == [AdviceGiven, FixSuggested]

    @pytest.mark.parametrize("given", [{"asked_by": "user"}, {"asked_by": "guard"}])
    def test_a_trial_that_was_to_end_is_not_started_again(self, given: dict[str, Any]) -> None:
        assert kinds(after(crashed(**given), THREE)) == [AdviceGiven, FixSuggested]

    def test_nothing_starts_in_a_study_that_was_stopped_meanwhile(self) -> None:
        assert kinds(after(crashed(), THREE, status="stopped")) == [AdviceGiven, FixSuggested]

    def test_a_full_training_keeps_what_it_has_saved(self) -> None:
        trial = crashed(kind="full", resume_from="checkpoints/checkpoint-9")
        assert after(trial, THREE)[2].resume_from == "checkpoints/checkpoint-9"
        assert after(crashed(resume_from="checkpoints/checkpoint-9"), THREE)[2].resume_from is None

    def test_a_full_training_takes_the_fix_with_which_its_optimizer_goes_on(self) -> None:
        trial = crashed(kind="full", resume_from="checkpoints/checkpoint-9")
        paged = found(8, changes={"optim": "paged_adamw_32bit"}, text="paged")
        again = after(trial, result(fixes=(paged, found(9, text="smaller"))))[2]
        assert (again.reason, again.resume_from) == ("smaller", trial.resume_from)
        assert after(crashed(kind="full"), result(fixes=(paged, found(9))))[2].reason == "paged"

    def test_a_full_training_by_another_method_starts_over(self) -> None:
        trial = crashed(kind="full", resume_from="checkpoints/checkpoint-9")
        lora = found(8, changes={"finetuning_type": "lora"}, text="LoRA")
        assert after(trial, result(fixes=(lora,)))[2].resume_from is None

    def test_what_cannot_be_proven_falls_back_to_the_ladder_and_says_so(self) -> None:
        given, fix, again = after(crashed(), result(problem="no dry run of packed rows"))
        assert given.text == "cannot prove: no dry run of packed rows"
        assert fix.changes == again.overrides
        assert again.overrides == {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4,
        }
        assert (fix.fixes, again.unchecked) == ((), True)

    def test_a_model_that_did_not_load_is_not_tried_with_smaller_batches(self) -> None:
        _, warned = after(crashed(total_steps=0), result(problem="no"))
        assert "the model itself is too large" in warned.text

    def test_where_no_fix_is_found_it_says_so(self) -> None:
        _, warned = after(crashed(), result(summary="weights dominate"))
        assert isinstance(warned, Warned)

    def test_the_records_leave_the_trial_queued_with_the_fix(self) -> None:
        state = StudyState(trials={1: crashed()})
        for event in after(crashed(), THREE):
            apply(state, event)
        trial = state.trials[1]
        assert (trial.status, trial.advising, trial.checked) == ("queued", None, True)
        assert (trial.fixes, trial.suggestion) == (("second",), None)


class TestTooLarge:
    def skip(self, on_oom: str, *fixes: Any) -> Any:
        trial = queued()
        return too_large_to_start(
            StudyState(trials={1: trial}),
            trial,
            forecast(31.2),
            result(fixes=fixes),
            ("GPU 0", target(23.6)),
            profile(on_oom),
            9.0,
        )

    def test_it_is_skipped_with_the_numbers_and_queued_with_the_first_fix(self) -> None:
        ended, fix, again = self.skip("apply", found())
        assert isinstance(ended, TrialEnded)
        assert ended.ending == "skipped"
        assert ended.reason == "proven not to fit: needs 31.7 GiB, GPU 0 has 23.6 GiB free"
        assert isinstance(fix, FixSuggested)
        assert (again.attempt, again.overrides, again.unchecked) == (
            1,
            option().changes,
            True,
        )

    def test_asking_leaves_the_suggestion_and_skipping_nothing(self) -> None:
        assert kinds(self.skip("ask", found())) == [TrialEnded, FixSuggested]
        assert kinds(self.skip("skip", found())) == [TrialEnded]

    def test_where_no_fix_is_found_it_says_so(self) -> None:
        assert kinds(self.skip("apply")) == [TrialEnded, Warned]

    def test_a_limit_that_is_short_is_named(self) -> None:
        assert misfit(forecast(20), "GPU 0", target(24, limit=16)) == (
            "proven not to fit: its tensors need 20.0 GiB, memory.limit_gib allows 16.0 GiB"
        )


class TestFit:
    def test_the_batch_is_taken_over_with_its_reason(self) -> None:
        (given,) = after_fit(queued(), result(about="fit", fixes=(found(17.3),)), 9.0)
        assert given.overrides == option().changes
        assert given.text == "batch 4 → 2 (needs 17.3 GiB, proven)"

    def test_a_batch_that_is_right_already_stays(self) -> None:
        (given,) = after_fit(queued(), result(fixes=(found(9, changes={}, proven=False),)), 9.0)
        assert given.text == (
            "the batch stays as it is: none larger fits or has the same effective batch "
            "(needs 9.0 GiB, an estimate)"
        )

    def test_without_an_answer_the_batch_stays(self) -> None:
        (given,) = after_fit(queued(), result(problem="no model here"), 9.0)
        assert (given.overrides, given.text) == ({}, "the batch stays as it is: no model here")


class TestLook:
    def text(self, **said: Any) -> str:
        return after_look(queued(), result(**said), 9.0).text

    def test_it_says_what_was_proven_and_what_was_not(self) -> None:
        assert self.text(forecast=forecast(17)) == "proven to need 17.5 GiB"
        about = forecast(17, "estimate", notes=("experts are routed by the data",))
        assert self.text(forecast=about) == (
            "needs about 17.5 GiB, an estimate (experts are routed by the data)"
        )
        assert self.text(problem="too slow") == "cannot prove that it fits: too slow"
