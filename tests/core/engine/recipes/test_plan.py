"""What happens next in a recipe."""

import msgspec
import pytest

from core.engine.recipes.plan import (
    Begin,
    Export,
    Finish,
    Note,
    Rest,
    Serve,
    StepView,
    next_action,
    result_trial,
)
from core.study.recipes import PlannedStep, RecipeState, StepRecord
from core.study.state import StudyState, Trial

GENERAL = PlannedStep("general", "01-general", "sft", True)
DOMAIN = PlannedStep("domain", "02-domain", "sft", False, source="general")
JUDGE = PlannedStep("judge", "02-judge", "rm", False, source="general")
ALIGN = PlannedStep("align", "03-align", "ppo", False, source="general", reward="judge")


def trained(number=1, status="completed", reason="", kind="full") -> Trial:
    return Trial(number=number, settings={}, kind=kind, status=status, reason=reason, loss=1.0)


def study(status="finished", *trials: Trial, reason="") -> StudyState:
    state = StudyState(created=1.0, status=status, reason=reason)
    state.trials = {t.number: t for t in trials}
    return state


DONE = study("finished", trained())


def view(number, planned, state=None, *, engine=False, model=False, **record) -> StepView:
    return StepView(
        number, StepRecord(planned, **record), f"r/{planned.folder}", state, engine, model
    )


def decide(*views: StepView, held="", keep=True, done=False):
    state = RecipeState(keep_models=keep, steps=[v.record for v in views], done=done)
    return next_action(state, views, held)


def test_the_first_step_begins():
    assert decide(view(1, GENERAL), view(2, DOMAIN)) == Begin(1)


def test_a_step_that_was_made_and_never_served_begins_again():
    assert decide(view(1, GENERAL, started=1.0), view(2, DOMAIN)) == Begin(1)


def test_a_step_that_runs_is_waited_for_and_one_whose_engine_died_is_served():
    running = study("running", trained(status="running"))
    rest = decide(view(1, GENERAL, running, engine=True), view(2, DOMAIN))
    assert rest == Rest("running", 1, "step 1 of 2 (general) runs")
    assert decide(view(1, GENERAL, running), view(2, DOMAIN)) == Serve(1)


def test_a_step_that_was_trained_is_exported():
    both = study("finished", trained(1, kind="probe"), trained(2), trained(3, "failed"))
    assert decide(view(1, GENERAL, both), view(2, DOMAIN)) == Export(1, 2)


def test_of_several_full_trainings_the_last_that_completed_is_the_result():
    assert result_trial(study("finished", trained(1), trained(2), trained(3, "oom"))).number == 2
    assert result_trial(study("finished", trained(1, kind="probe"))) is None


def test_an_export_that_was_killed_is_done_again_and_one_that_was_not_recorded_is_only_noted():
    assert decide(view(1, GENERAL, DONE, exporting=1), view(2, DOMAIN)) == Export(1, 1)
    assert decide(view(1, GENERAL, DONE, exporting=1, model=True), view(2, DOMAIN)) == Note(1, 1)


def test_a_model_of_another_training_than_the_last_is_no_result():
    again = study("finished", trained(1), trained(2))
    assert decide(view(1, GENERAL, again, exporting=1, model=True), view(2, DOMAIN)) == Export(1, 2)


def test_the_next_step_begins_when_the_result_is_there():
    first = view(1, GENERAL, DONE, exported=1, model=True)
    assert decide(first, view(2, DOMAIN)) == Begin(2)


def test_a_result_that_is_gone_is_made_again_as_long_as_no_step_has_begun_with_it():
    gone = view(1, GENERAL, DONE, exported=1)
    assert decide(gone, view(2, DOMAIN)) == Export(1, 1)
    running = study("running", trained(status="running"))
    assert decide(gone, view(2, DOMAIN, running, engine=True)).kind == "running"


def test_a_step_whose_study_was_deleted_after_the_next_began_is_not_run_again():
    gone = view(1, GENERAL, None, exported=1)
    assert decide(gone, view(2, DOMAIN, DONE)) == Export(2, 1)


def test_a_reward_model_is_taken_as_its_training_left_it():
    first = view(1, GENERAL, DONE, exported=1, model=True)
    assert decide(first, view(2, JUDGE, DONE), view(3, ALIGN)) == Note(2, 1)
    assert decide(first, view(2, JUDGE, DONE, exported=1), view(3, ALIGN)) == Begin(3)


@pytest.mark.parametrize("status", ["paused", "stopped"])
def test_a_step_that_a_person_stopped_or_paused_rests(status):
    rest = decide(view(1, GENERAL, study(status, reason=f"{status} by you")), view(2, DOMAIN))
    assert rest == Rest(status, 1, f"step 1 of 2 (general) is {status} ({status} by you)")


def test_a_step_without_a_winner_ends_the_recipe_with_the_reason_and_what_to_do():
    nothing = study("finished", trained(1, "oom", kind="probe"), trained(2, "oom", kind="probe"))
    rest = decide(view(1, GENERAL, nothing), view(2, DOMAIN))
    assert rest.kind == "failed" and rest.step == 1
    assert (
        "step 1 of 2 (general) has no result: no trial completed: all ran out of memory"
        in rest.text
    )
    assert "`tunedeck retry r/01-general N`" in rest.text


def test_a_full_training_that_failed_ends_the_recipe_with_its_reason_and_what_to_do():
    diverged = study(
        "finished", trained(1, kind="probe"), trained(2, "diverged", "its loss is NaN")
    )
    rest = decide(view(1, GENERAL, diverged), view(2, DOMAIN))
    assert "its full training, trial 2, diverged: its loss is NaN" in rest.text
    assert "`tunedeck retry r/01-general 2`, after which the recipe goes on by itself" in rest.text


def test_while_a_person_holds_the_recipe_no_step_begins_and_nothing_is_exported():
    first = view(1, GENERAL, DONE, exported=1, model=True)
    assert decide(first, view(2, DOMAIN), held="stopped") == Rest(
        "stopped", 2, "stopped before step 2 of 2 (domain)"
    )
    rest = decide(view(1, GENERAL, DONE), view(2, DOMAIN), held="paused")
    assert rest == Rest("paused", 1, "paused when step 1 of 2 (general) was trained")


def test_when_all_steps_have_results_the_recipe_is_finished_and_then_done():
    views = (view(1, GENERAL, DONE, exported=1, model=True), view(2, DOMAIN, DONE, exported=1, model=True))  # fmt: skip
    assert decide(*views) == Finish(())
    assert decide(*views, keep=False) == Finish((1,))
    assert decide(view(1, GENERAL), done=True).kind == "done"


def test_models_that_a_reward_model_at_the_end_stands_on_are_kept():
    text = PlannedStep("text", "01-text", "pt", False)
    chat = PlannedStep("chat", "02-chat", "sft", False, source="text")
    judge = msgspec.structs.replace(JUDGE, folder="03-judge", source="chat")
    views = (
        view(1, text, DONE, exported=1, model=True),
        view(2, chat, DONE, exported=1, model=True),
        view(3, judge, DONE, exported=1),
    )
    assert decide(*views, keep=False) == Finish((1,))
