import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.scheduler import Start, Supply, schedule, summary
from core.study.events import StudyChanged
from core.study.state import StudyState, Trial, TrialStatus

CPU = Supply("cpu", most=2)


def state(*statuses: TrialStatus, **more: object) -> StudyState:
    trials = {
        n: Trial(n, {"lora_rank": n}, status=s, next_attempt=1) for n, s in enumerate(statuses, 1)
    }
    made = StudyState(created=1.0, rank_by="eval_loss", trials=trials)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_waiting_trials_start_in_order_as_far_as_there_is_room() -> None:
    decided = schedule(state("completed", "queued", "queued", "queued"), CPU, 9.0)
    assert decided.starts == (Start(2, 1, "cpu"), Start(3, 1, "cpu"))
    assert decided.change is None


@pytest.mark.parametrize("live", ["starting", "running", "pausing", "stopping"])
def test_whatever_may_have_a_process_takes_room(live: TrialStatus) -> None:
    assert len(schedule(state(live, "queued", "queued"), CPU, 9.0).starts) == 1


@pytest.mark.parametrize("status", ["paused", "stopped", "finished"])
def test_a_study_that_does_not_run_starts_nothing_and_changes_nothing(status: str) -> None:
    decided = schedule(state("queued", status=status), CPU, 9.0)
    assert (decided.starts, decided.change) == ((), None)


def test_each_trial_gets_a_free_gpu() -> None:
    supply = Supply("cuda", most=4, free=("GPU-b", "GPU-a"))
    decided = schedule(state("running", "queued", "queued", "queued"), supply, 9.0)
    assert decided.starts == (Start(2, 1, "cuda", ("GPU-b",)), Start(3, 1, "cuda", ("GPU-a",)))


def test_parallel_limits_gpus_too() -> None:
    supply = Supply("cuda", most=1, free=("GPU-a", "GPU-b"))
    assert len(schedule(state("queued", "queued"), supply, 9.0).starts) == 1


def test_a_retried_trial_starts_with_its_next_attempt() -> None:
    waiting = state("queued")
    waiting.trials[1] = msgspec.structs.replace(waiting.trials[1], next_attempt=3)
    assert schedule(waiting, CPU, 9.0).starts == (Start(1, 3, "cpu"),)


def test_waiting_for_a_gpu_is_said_once() -> None:
    busy = Supply(
        "cuda", most=1, waiting="waiting for a free GPU; GPU 0: 41.2 GiB of its memory are in use"
    )
    decided = schedule(state("queued"), busy, 9.0)
    assert decided.change == StudyChanged(t=9.0, status="running", reason=busy.waiting)
    told = state("queued", reason=busy.waiting)
    assert schedule(told, busy, 10.0).change is None
    other = Supply("cuda", most=1, waiting=busy.waiting.replace("41.2", "7"))
    assert schedule(told, other, 10.0).change is None


def test_other_reasons_are_told_now_and_then_only() -> None:
    told = state("queued", reason="waiting for a free GPU; GPU 0: busy", updated=100.0)
    other = Supply("cuda", most=1, waiting="waiting for a free GPU; GPU 0: another study uses it")
    assert schedule(told, other, 110.0).change is None
    assert schedule(told, other, 140.0).change is not None


def test_a_gpu_that_is_quiet_and_not_yet_free_is_no_news() -> None:
    told = state("queued", reason="waiting for a free GPU; GPU 0: busy")
    assert schedule(told, Supply("cuda", most=1), 9.0).change is None
    assert schedule(state("queued"), Supply("cuda", most=1), 9.0).change is None


def test_the_reason_goes_when_the_wait_is_over() -> None:
    told = state("running", reason="waiting for a free GPU; GPU 0: busy")
    decided = schedule(told, Supply("cuda", most=1), 9.0)
    assert decided.change == StudyChanged(t=9.0, status="running")


def test_busy_gpus_are_no_news_while_nothing_waits() -> None:
    busy = Supply("cuda", most=2, waiting="waiting for a free GPU; GPU 1: busy")
    assert schedule(state("running"), busy, 9.0).change is None


def test_a_study_with_nothing_left_is_finished_and_names_its_best() -> None:
    done = state("completed", "completed", "diverged")
    for number, loss in ((1, 2.5), (2, 1.23456)):
        done.trials[number] = msgspec.structs.replace(done.trials[number], eval_loss=loss)
    decided = schedule(done, CPU, 9.0)
    assert decided.change == StudyChanged(
        t=9.0, status="finished", reason="best: trial 2, eval_loss 1.235"
    )


def test_trials_that_ask_about_memory_do_not_keep_a_study_open() -> None:
    decided = schedule(state("oom", "failed"), CPU, 9.0)
    assert decided.change is not None
    assert decided.change.status == "finished"
    assert decided.change.reason == "no trial completed: 1 ran out of memory, 1 failed"


def test_a_study_of_which_nothing_fits_says_so() -> None:
    decided = schedule(state("skipped", "skipped"), CPU, 9.0)
    assert decided.change is not None
    assert decided.change.reason == "no trial completed: none fits its GPU"


def test_a_paused_trial_that_is_left_pauses_the_study() -> None:
    decided = schedule(state("completed", "paused"), CPU, 9.0)
    assert decided.change is not None
    assert decided.change.status == "paused"
    assert "trial 2 is paused" in decided.change.reason


def test_the_summary_of_a_study_ranked_by_training_loss_gives_that() -> None:
    done = state("completed", rank_by="loss")
    done.trials[1] = msgspec.structs.replace(done.trials[1], loss=0.5, eval_loss=0.1)
    assert summary(done) == "best: trial 1, loss 0.5"


statuses = st.sampled_from(
    ["queued", "starting", "running", "pausing", "stopping", "paused", "completed", "oom", "failed"]
)


@given(
    st.lists(statuses, max_size=12), st.integers(1, 4),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True), st.sampled_from(["cpu", "cuda"]),
)  # fmt: skip
def test_never_more_than_allowed_and_never_a_gpu_twice(
    all_statuses: list[TrialStatus], most: int, free: list[str], device: str
) -> None:
    now = state(*all_statuses)
    supply = Supply(device, most, tuple(free) if device == "cuda" else ())  # type: ignore[arg-type]
    decided = schedule(now, supply, 9.0)
    used = [uuid for start in decided.starts for uuid in start.gpus]
    assert len(now.live()) + len(decided.starts) <= max(most, len(now.live()))
    assert len(used) == len(set(used))
    assert set(used) <= set(free)
    assert all(now.trials[start.trial].status == "queued" for start in decided.starts)
    if decided.change is not None and decided.change.status != "running":
        assert not now.live()
        assert not now.queued()


def test_a_clock_that_was_set_back_does_not_silence_the_news() -> None:
    waiting = state("queued")
    waiting.reason, waiting.updated = "GPU 0: busy", 5000.0
    busy = Supply("cuda", 1, (), "GPU 1: another study uses it")
    change = schedule(waiting, busy, 10.0).change
    assert change is not None
    assert change.reason == "GPU 1: another study uses it"


GPUS = Supply("cuda", most=2, free=("GPU-0", "GPU-1"))


def test_a_trial_whose_memory_is_looked_into_lets_others_pass() -> None:
    decided = schedule(state("queued", "queued"), CPU, 9.0, {2: None})
    assert [s.trial for s in decided.starts] == [2]
    assert schedule(state("queued"), CPU, 9.0, {}) == schedule(
        StudyState(status="paused"), CPU, 9.0
    )


def test_each_trial_gets_the_first_free_gpu_that_it_fits() -> None:
    ready = {1: frozenset({"GPU-1"}), 2: None}
    decided = schedule(state("queued", "queued"), GPUS, 9.0, ready)
    assert [(s.trial, s.gpus) for s in decided.starts] == [(1, ("GPU-1",)), (2, ("GPU-0",))]


def test_a_trial_that_fits_no_free_gpu_lets_others_pass() -> None:
    one = Supply("cuda", most=2, free=("GPU-0",), waiting="waiting for a free GPU; GPU 1 is busy")
    ready = {1: frozenset({"GPU-1"}), 2: None}
    assert [s.trial for s in schedule(state("queued", "queued"), one, 9.0, ready).starts] == [2]
    alone = schedule(state("queued"), one, 9.0, {1: frozenset({"GPU-1"})})
    assert alone.starts == ()
    assert alone.change is not None
    assert alone.change.reason == one.waiting


def test_a_study_is_not_over_while_a_fix_is_looked_for() -> None:
    looking = state("oom")
    looking.trials[1] = msgspec.structs.replace(looking.trials[1], advising="fix")
    assert schedule(looking, CPU, 9.0).change is None


def own_gpus(number: int) -> dict[str, int]:
    return {"gpus_per_trial": number}


def with_gpus(made: StudyState, **wanted: int) -> StudyState:
    """`wanted` is trial_NUMBER=GPUS."""
    for name, gpus in wanted.items():
        number = int(name.removeprefix("trial_"))
        made.trials[number] = msgspec.structs.replace(made.trials[number], settings=own_gpus(gpus))
    return made


FOUR = Supply("cuda", most=2, free=("a", "b", "c", "d"), each=2, total=4)


def test_a_trial_gets_all_of_its_gpus() -> None:
    decided = schedule(state("queued", "queued", "queued"), FOUR, 9.0)
    assert [(s.trial, s.gpus) for s in decided.starts] == [(1, ("a", "b")), (2, ("c", "d"))]


def test_a_trial_that_finds_too_few_gpus_starts_on_none_of_them() -> None:
    one = Supply("cuda", most=2, free=("a",), waiting="waiting; GPU 1: busy", each=2, total=4)
    decided = schedule(state("queued"), one, 9.0)
    assert decided.starts == ()
    assert decided.change is not None and decided.change.reason == one.waiting


def test_later_trials_do_not_starve_one_that_waits_for_several() -> None:
    waits = with_gpus(state("queued", "queued"), trial_1=2, trial_2=1)
    assert schedule(waits, Supply("cuda", 4, ("a",), total=2), 9.0).starts == ()
    both = schedule(waits, Supply("cuda", 4, ("a", "b"), total=2), 9.0).starts
    assert [(s.trial, s.gpus) for s in both] == [(1, ("a", "b"))]


def test_only_gpus_that_a_waiting_trial_fits_are_kept_for_it() -> None:
    waits = with_gpus(state("queued", "queued"), trial_1=2, trial_2=1)
    supply = Supply("cuda", 4, ("small", "large"), total=3)
    ready = {1: frozenset({"large", "huge"}), 2: None}
    assert [(s.trial, s.gpus) for s in schedule(waits, supply, 9.0, ready).starts] == [
        (2, ("small",))
    ]


def test_a_trial_that_is_to_have_more_gpus_than_there_are_says_so_and_stops_no_other() -> None:
    waits = with_gpus(state("queued", "queued"), trial_1=8, trial_2=1)
    supply = Supply("cuda", 4, ("a", "b"), total=2)
    assert [s.trial for s in schedule(waits, supply, 9.0).starts] == [2]
    alone = schedule(with_gpus(state("queued"), trial_1=8), supply, 9.0).change
    assert alone is not None
    assert alone.reason.startswith("trial 1 is to have 8 GPUs, and the study may use 2 here")


def test_gpus_are_not_kept_for_a_trial_that_fits_too_few_of_them() -> None:
    waits = with_gpus(state("queued", "queued"), trial_1=2, trial_2=1)
    supply = Supply("cuda", 4, ("large",), total=2)
    ready = {1: frozenset({"large"}), 2: None}
    assert [s.trial for s in schedule(waits, supply, 9.0, ready).starts] == [2]
    alone = schedule(with_gpus(state("queued"), trial_1=2), supply, 9.0, ready).change
    assert alone is not None
    assert alone.reason == (
        "trial 1 is to have 2 GPUs, and those here with the memory that it needs are 1"
    )


def test_several_gpus_are_not_to_be_had_on_the_cpu() -> None:
    decided = schedule(state("queued"), Supply("cpu", 1, each=2), 9.0)
    assert decided.starts == ()
    assert decided.change is not None
    assert "is to have 2 GPUs, and trials run on the CPU here" in decided.change.reason
