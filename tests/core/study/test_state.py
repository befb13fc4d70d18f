import copy
import math
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.study.events import (
    JOURNAL_VERSION,
    AdviceAsked,
    AdviceGiven,
    AnyEvent,
    DaemonStarted,
    Ending,
    FixOption,
    FixSuggested,
    RungDecided,
    SearchPlanned,
    StudyChanged,
    StudyCreated,
    StudyTooNewError,
    TrialAdded,
    TrialAsked,
    TrialEnded,
    TrialQueued,
    TrialStalled,
    TrialStarted,
    TrialStarting,
    Warned,
    decode,
    encode,
)
from core.study.files import ProcessRecord
from core.study.state import LIVE, MOST_WARNINGS, StudyState, Trial, apply, finite, max_or_none

SHIM = ProcessRecord(10, 20, "boot")
CREATED = StudyCreated(t=1.0, version=1, name="s", tunedeck="0", rank_by="eval_loss", planned=2)

number = st.integers(1, 4)
texts = st.text(max_size=5)
scalars = st.dictionaries(st.sampled_from(["lora_rank", "seed"]), st.integers(0, 9), max_size=2)
moments = st.floats(1, 2e9)
losses = st.none() | st.floats(0, 10)
events: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(SearchPlanned, t=moments, planned=st.integers(0, 9)),
    st.builds(TrialStalled, t=moments, trial=number, attempt=number, text=texts),
    st.builds(
        RungDecided, t=moments, rung=number, at=st.just(0.1), kept=st.dictionaries(number, st.just(0.3), max_size=3),
        dropped=st.dictionaries(number, texts, max_size=3), text=texts,
    ),
    st.builds(StudyChanged, t=moments, status=st.sampled_from(["running", "paused", "stopped", "finished"]), reason=texts),
    st.builds(DaemonStarted, t=moments, process=st.just(SHIM)),
    st.builds(TrialAdded, t=moments, trial=number, settings=scalars),
    st.builds(TrialQueued, t=moments, trial=number, attempt=number, overrides=scalars, reason=texts),
    st.builds(TrialStarting, t=moments, trial=number, attempt=number, device=st.sampled_from(["cuda", "cpu"])),
    st.builds(TrialStarted, t=moments, trial=number, attempt=number, shim=st.just(SHIM)),
    st.builds(
        TrialAsked, t=moments, trial=number, attempt=number, ask=st.sampled_from(["pause", "stop"]), by=st.just("user")
    ),
    st.builds(
        TrialEnded, t=moments, trial=number, attempt=number, ending=st.sampled_from(get_args(Ending)), loss=losses,
        seconds=st.floats(0, 100), peak_memory=st.none() | st.integers(0, 100),
    ),
    st.builds(FixSuggested, t=moments, trial=number, attempt=number, changes=scalars, text=texts),
    st.builds(AdviceAsked, t=moments, trial=number, attempt=number, about=st.sampled_from(["start", "fit", "fix"])),
    st.builds(
        AdviceGiven, t=moments, trial=number, attempt=number, about=st.sampled_from(["start", "fit", "fix"]), text=texts,
        overrides=scalars,
    ),
    st.builds(Warned, t=moments, text=texts),
)  # fmt: skip


def fold(*happened: AnyEvent) -> StudyState:
    state = StudyState()
    for event in happened:
        apply(state, event)
    return state


def started(attempt: int = 1) -> tuple[AnyEvent, ...]:
    return (
        TrialStarting(t=2.0, trial=1, attempt=attempt, device="cpu"),
        TrialStarted(t=3.0, trial=1, attempt=attempt, shim=SHIM),
    )


ADDED = TrialAdded(t=1.5, trial=1, settings={"lora_rank": 8})


def the_trial(*happened: AnyEvent) -> Trial:
    return fold(CREATED, ADDED, *happened).trials[1]


@given(st.lists(events, max_size=25))
def test_every_prefix_of_any_journal_folds_and_stays_consistent(happened: list[AnyEvent]) -> None:
    state = fold(CREATED)
    for count, event in enumerate(happened, 2):
        before = dict(state.trials)
        apply(state, event)
        assert state.version == count
        assert state.updated == event.t
        touched = getattr(event, "trial", None)
        for other, trial in before.items():
            if other != touched:
                assert state.trials[other] is trial
        for trial in state.trials.values():
            assert len({a.number for a in trial.attempts}) == len(trial.attempts)
            assert trial.live == (trial.status in LIVE)
            assert not (trial.live and trial.ended)


@given(st.lists(events, max_size=20), st.integers(0, 20))
def test_folding_in_two_parts_is_folding_at_once(happened: list[AnyEvent], cut: int) -> None:
    parts = fold(CREATED, *happened[:cut])
    parts = copy.copy(parts)
    for event in happened[cut:]:
        apply(parts, event)
    assert parts == fold(CREATED, *happened)


@given(events)
def test_an_event_is_read_as_it_was_written(event: AnyEvent) -> None:
    assert decode(encode(event)) == event


@pytest.mark.parametrize(
    "body", [b'{"event":"trial-cloned","t":1.0}', b'{"event":"warned"}', b'{"t":1.0}', b"[]", b"{"]
)
def test_a_record_of_another_kind_means_a_newer_version(body: bytes) -> None:
    with pytest.raises(StudyTooNewError, match="newer version"):
        decode(body)


def test_a_study_of_a_later_journal_version_is_refused() -> None:
    later = JOURNAL_VERSION + 1
    with pytest.raises(StudyTooNewError, match=f"journal version {later}"):
        decode(encode(msgspec.structs.replace(CREATED, version=later)))


OLD = (
    b'{"event":"study-created","t":1.0,"version":1,"name":"s","tunedeck":"0","rank_by":"loss","planned":1}',
    b'{"event":"trial-added","t":1.5,"trial":1,"settings":{"lora_rank":8}}',
    b'{"event":"trial-starting","t":2.0,"trial":1,"attempt":1,"device":"cuda","gpus":["GPU-0"]}',
    b'{"event":"trial-ended","t":4.0,"trial":1,"attempt":1,"ending":"oom","peak_memory":100}',
    b'{"event":"fix-suggested","t":5.0,"trial":1,"attempt":1,"changes":{"seed":1},"text":"half"}',
    b'{"event":"trial-queued","t":6.0,"trial":1,"attempt":2,"overrides":{"seed":1},"reason":"half"}',
)


def test_a_journal_of_the_first_version_is_read_as_it_was() -> None:
    trial = fold(*map(decode, OLD)).trials[1]
    assert (trial.status, trial.next_attempt, trial.fixes) == ("queued", 2, ("half",))
    assert (trial.peak_memory, trial.forecast, trial.advising) == (100, None, None)
    assert fold(*map(decode, OLD[:5])).trials[1].options == 1


def test_a_trial_goes_from_queued_over_running_to_its_end() -> None:
    assert the_trial().status == "queued"
    assert the_trial(started()[0]).status == "starting"
    running = the_trial(*started())
    assert running.status == "running"
    assert running.attempt is not None
    assert running.attempt.shim == SHIM
    ended = TrialEnded(
        t=9.0,
        trial=1,
        attempt=1,
        ending="completed",
        step=10,
        total_steps=10,
        loss=1.5,
        seconds=6.0,
    )
    done = the_trial(*started(), ended)
    assert (done.status, done.step, done.loss, done.seconds) == ("completed", 10, 1.5, 6.0)
    assert done.ended


@pytest.mark.parametrize(("ask", "status"), [("pause", "pausing"), ("stop", "stopping")])
def test_a_live_trial_that_is_asked_is_on_its_way(ask: str, status: str) -> None:
    asked = TrialAsked(t=4.0, trial=1, attempt=1, ask=ask, by="guard", reason="why")  # type: ignore[arg-type]
    trial = the_trial(*started(), asked)
    assert (trial.status, trial.asked_by, trial.asked_reason) == (status, "guard", "why")


def test_asking_a_trial_that_waits_leaves_it_waiting() -> None:
    assert (
        the_trial(TrialAsked(t=4.0, trial=1, attempt=1, ask="pause", by="user")).status == "queued"
    )


def test_fixes_add_up_over_attempts() -> None:
    oom = TrialEnded(t=4.0, trial=1, attempt=1, ending="oom", peak_memory=100, seconds=2.0)
    one = TrialQueued(
        t=5.0, trial=1, attempt=2, overrides={"per_device_train_batch_size": 2}, reason="half"
    )
    two = TrialQueued(
        t=8.0, trial=1, attempt=3, overrides={"gradient_checkpointing": True}, reason="recompute"
    )
    again = TrialEnded(t=7.0, trial=1, attempt=2, ending="oom", peak_memory=80, seconds=2.5)
    trial = the_trial(*started(), oom, one, *started(2), again, two)
    assert trial.fixes == ("half", "recompute")
    assert trial.changes == {
        "lora_rank": 8,
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": True,
    }
    assert [a.overrides for a in trial.attempts] == [{}, {"per_device_train_batch_size": 2}]
    assert (trial.peak_memory, trial.seconds, trial.next_attempt) == (100, 4.5, 3)


def test_a_suggestion_stands_until_another_attempt_is_queued() -> None:
    fix = FixSuggested(t=5.0, trial=1, attempt=1, changes={"seed": 1}, text="try")
    oom = TrialEnded(t=4.0, trial=1, attempt=1, ending="oom")
    waiting = the_trial(*started(), oom, fix)
    assert waiting.suggestion is not None
    assert waiting.suggestion.text == "try"
    assert (
        the_trial(*started(), oom, fix, TrialQueued(t=6.0, trial=1, attempt=2)).suggestion is None
    )


OPTION = FixOption(
    changes={"seed": 1}, text="try", needed=10, headroom=2, slowdown=(1.0, 1.3), proven=True
)
OOM = TrialEnded(t=4.0, trial=1, attempt=1, ending="oom")
LOOKING = AdviceAsked(t=5.0, trial=1, attempt=1, about="fix")


def test_a_trial_whose_memory_is_looked_into_keeps_its_study_unfinished() -> None:
    state = fold(CREATED, ADDED, *started(), OOM, LOOKING)
    assert (state.trials[1].status, state.trials[1].advising) == ("oom", "fix")
    assert state.unfinished()
    apply(state, AdviceGiven(t=6.0, trial=1, attempt=1, about="fix", text="activations dominate"))
    assert (state.trials[1].advising, state.trials[1].advice) == (None, "activations dominate")
    assert not state.unfinished()


@pytest.mark.parametrize(
    "event",
    [
        TrialQueued(t=6.0, trial=1, attempt=2),
        FixSuggested(t=6.0, trial=1, attempt=1, changes={}, text="half"),
        TrialEnded(t=6.0, trial=1, attempt=1, ending="stopped"),
        TrialStarting(t=6.0, trial=1, attempt=1, device="cpu"),
    ],
)
def test_whatever_happens_to_a_trial_ends_the_look_into_its_memory(event: AnyEvent) -> None:
    assert the_trial(*started(), OOM, LOOKING, event).advising is None


def test_a_batch_that_was_chosen_by_memory_is_no_fix() -> None:
    batch = {"per_device_train_batch_size": 4}
    given = AdviceGiven(t=2.0, trial=1, attempt=1, about="fit", text="batch 4", overrides=batch)
    trial = the_trial(given)
    assert (trial.overrides, trial.fitted, trial.fixes) == (batch, "batch 4", ())
    assert the_trial(msgspec.structs.replace(given, attempt=2)).overrides == {}


def test_several_fixes_can_be_chosen_from() -> None:
    fix = FixSuggested(
        t=5.0, trial=1, attempt=1, changes={"seed": 1}, text="try", fixes=(OPTION, OPTION)
    )
    trial = the_trial(*started(), OOM, fix)
    assert trial.options == 2
    assert the_trial().options == 0
    assert decode(encode(fix)) == fix


def test_a_skipped_trial_has_ended_without_an_attempt_and_the_next_is_the_one_that_was_planned() -> (
    None
):
    trial = the_trial(TrialEnded(t=2.0, trial=1, attempt=1, ending="skipped", reason="31 GiB"))
    assert trial.ended
    assert (trial.attempts, trial.upcoming) == ((), 1)
    assert the_trial(*started(), OOM).upcoming == 2


def test_a_start_without_another_look_is_meant_for_one_attempt() -> None:
    again = TrialQueued(t=5.0, trial=1, attempt=2, unchecked=True)
    assert the_trial(*started(), OOM, again).checked
    assert not the_trial(*started(), OOM, again, *started(2), OOM).checked


def test_the_forecast_is_kept_beside_what_its_attempt_measured() -> None:
    ended = TrialEnded(
        t=4.0, trial=1, attempt=1, ending="completed", peak_memory=17, forecast=18, proven=True
    )
    trial = the_trial(*started(), ended)
    assert (trial.forecast, trial.measured, trial.proven) == (18, 17, True)
    stopped = TrialEnded(t=9.0, trial=1, attempt=2, ending="stopped", peak_memory=3)
    assert the_trial(*started(), ended, stopped).measured == 17


def test_announcing_an_attempt_twice_keeps_one() -> None:
    assert len(the_trial(*started(), *started()).attempts) == 1


def test_only_the_latest_warnings_are_kept() -> None:
    state = fold(CREATED, *(Warned(t=float(i), text=str(i)) for i in range(MOST_WARNINGS + 5)))
    assert len(state.warnings) == MOST_WARNINGS
    assert state.warnings[-1].text == str(MOST_WARNINGS + 4)


def test_a_study_is_unfinished_while_something_runs_or_waits() -> None:
    assert not fold(CREATED).unfinished()
    assert fold(CREATED, ADDED).unfinished()
    assert fold(CREATED, ADDED, *started()).unfinished()
    assert not fold(CREATED, ADDED, StudyChanged(t=2.0, status="paused")).unfinished()
    done = TrialEnded(t=4.0, trial=1, attempt=1, ending="completed")
    assert not fold(CREATED, ADDED, *started(), done).unfinished()


def test_trials_are_numbered_on() -> None:
    assert fold(CREATED).next_number() == 1
    assert fold(CREATED, ADDED).next_number() == 2


def test_numbers_that_are_missing_or_not_finite_are_left_out() -> None:
    assert max_or_none(None, 3, None, 1) == 3
    assert max_or_none(None) is None
    assert finite(math.nan) is None
    assert finite(None) is None
    assert finite(0.0) == 0.0


def test_a_trial_that_was_asked_before_its_start_was_known_goes_on_ending() -> None:
    state = fold(
        CREATED,
        TrialAdded(t=2.0, trial=1, settings={}),
        TrialStarting(t=3.0, trial=1, attempt=1, device="cpu"),
        TrialAsked(t=4.0, trial=1, attempt=1, ask="stop", by="user"),
        TrialStarted(t=5.0, trial=1, attempt=1, shim=SHIM),
    )
    assert state.trials[1].status == "stopping"


class TestRungs:
    def at_rung(self, until: float = 0.1, **more: object) -> StudyState:
        added = msgspec.structs.replace(ADDED, until=until)
        ended = TrialEnded(
            t=4.0, trial=1, attempt=1, ending="rung", step=5, value=2.5, checkpoint="checkpoints/checkpoint-5"
        )  # fmt: skip
        return fold(CREATED, added, *started(), msgspec.structs.replace(ended, **more))

    def test_a_trial_waits_there_neither_live_nor_ended(self) -> None:
        state = self.at_rung()
        trial = state.trials[1]
        assert (trial.status, trial.live, trial.ended, trial.at_rung) == (
            "rung",
            False,
            False,
            True,
        )
        assert state.waiting_at_rung() == [trial]
        assert state.unfinished()
        assert [(r.at, r.step, r.value) for r in trial.rungs] == [(0.1, 5, 2.5)]

    def test_a_decision_sends_it_on_or_drops_it(self) -> None:
        state = self.at_rung()
        apply(state, RungDecided(t=5.0, rung=1, at=0.1, kept={1: 0.3}))
        on = state.trials[1]
        assert (on.status, on.until, on.next_attempt, on.at_rung) == ("queued", 0.3, 2, False)
        assert on.resume_from == "checkpoints/checkpoint-5"
        state = self.at_rung()
        apply(state, RungDecided(t=5.0, rung=1, at=0.1, kept={}, dropped={1: "0.3 above"}))
        off = state.trials[1]
        assert (off.status, off.ended, off.reason) == ("pruned", True, "0.3 above")
        assert not state.unfinished()

    def test_what_was_dropped_can_be_revived(self) -> None:
        state = self.at_rung()
        apply(state, RungDecided(t=5.0, rung=1, at=0.1, kept={}, dropped={1: "x"}))
        apply(state, RungDecided(t=6.0, rung=1, at=0.1, kept={1: 1.0}))
        assert (state.trials[1].status, state.trials[1].until) == ("queued", 1.0)
        assert len(state.decisions) == 2

    def test_a_decision_about_others_changes_nothing(self) -> None:
        state = fold(CREATED, ADDED, *started())
        apply(state, RungDecided(t=5.0, rung=1, at=0.1, kept={1: 0.3, 9: 0.3}, dropped={1: "x"}))
        assert state.trials[1].status == "running"

    def test_a_trial_that_begins_again_comes_to_its_rungs_again(self) -> None:
        state = self.at_rung()
        apply(state, RungDecided(t=5.0, rung=1, at=0.1, kept={1: 0.3}))
        apply(state, TrialStarting(t=6.0, trial=1, attempt=2, device="cpu"))
        apply(state, TrialEnded(t=7.0, trial=1, attempt=2, ending="rung", step=15, value=2.0))
        assert [r.at for r in state.trials[1].rungs] == [0.1, 0.3]
        apply(state, TrialQueued(t=8.0, trial=1, attempt=3, overrides={"lora_rank": 4}))
        assert state.trials[1].until == 0.3
        apply(state, TrialEnded(t=9.0, trial=1, attempt=3, ending="rung", step=16, value=1.5))
        assert [(r.at, r.step) for r in state.trials[1].rungs] == [(0.1, 5), (0.3, 16)]

    def test_a_retry_can_send_it_to_its_end(self) -> None:
        state = self.at_rung()
        apply(state, TrialQueued(t=5.0, trial=1, attempt=2, until=1.0))
        assert state.trials[1].until == 1.0

    def test_silence_is_over_with_the_attempt(self) -> None:
        state = fold(
            CREATED, ADDED, *started(), TrialStalled(t=3.0, trial=1, attempt=1, text="no log")
        )
        assert state.trials[1].stalled == "no log"
        apply(state, TrialEnded(t=4.0, trial=1, attempt=1, ending="lost"))
        assert state.trials[1].stalled == ""


class TestSearch:
    def test_a_search_that_proposes_is_unfinished_until_all_are_there(self) -> None:
        bayesian = msgspec.structs.replace(CREATED, strategy="bayesian", planned=3)
        done = TrialEnded(t=4.0, trial=1, attempt=1, ending="completed")
        state = fold(bayesian, ADDED, *started(), done)
        assert (state.to_come(), state.unfinished()) == (2, True)
        apply(state, TrialAdded(t=5.0, trial=2, settings={}, source="user"))
        apply(state, TrialAdded(t=5.0, trial=3, settings={}, source="confirm", parent=1))
        assert state.to_come() == 2
        apply(state, TrialAdded(t=5.0, trial=4, settings={}, source="portfolio"))
        assert state.to_come() == 1
        apply(state, SearchPlanned(t=6.0, planned=2))
        assert state.to_come() == 0

    def test_other_strategies_have_all_their_trials_from_the_beginning(self) -> None:
        state = fold(msgspec.structs.replace(CREATED, planned=9), ADDED)
        assert state.to_come() == 0

    def test_stopping_a_study_stops_its_search_until_it_is_resumed(self) -> None:
        bayesian = msgspec.structs.replace(CREATED, strategy="bayesian", planned=3)
        state = fold(bayesian, StudyChanged(t=2.0, status="stopped", search=False))
        apply(state, StudyChanged(t=3.0, status="running"))
        assert (state.to_come(), state.left_to_propose()) == (0, 3)
        apply(state, StudyChanged(t=4.0, status="running", search=True))
        assert state.to_come() == 3
