from typing import Any

import pytest

from core.engine.memory.clearance import ANYWHERE, Gpu, Verdict, best_forecast, judge
from core.engine.memory.jobs import Result
from tests.core.engine.memory.findings import forecast, result, target

ROOM = 23.5
"""What the allocator may take of the target, GiB."""


def gpu(need: float | None, known: Result | None = None, uuid: str = "GPU-0", **more: Any) -> Gpu:
    estimate = None if need is None else forecast(need, "estimate")
    return Gpu(uuid, "GPU 0", target(**more), 0.08, "s", estimate, known)


def proven(need: float) -> Result:
    return result(forecast=forecast(need))


def test_without_a_gpu_nothing_speaks_against_a_start() -> None:
    assert judge(()) == ANYWHERE


def test_what_is_far_below_the_capacity_starts_at_once() -> None:
    assert judge((gpu(0.74 * ROOM / 1.08),)) == ANYWHERE


def test_what_is_near_the_capacity_is_proven_first() -> None:
    near = gpu(0.76 * ROOM / 1.08)
    assert judge((near,)) == Verdict(frozenset(), ask=near)


def test_a_model_of_which_nothing_is_known_starts() -> None:
    assert judge((gpu(None),)) == ANYWHERE


@pytest.mark.parametrize("need", [10, ROOM - 0.01])
def test_what_is_proven_not_to_be_too_large_starts_also_within_the_guard_band(need: float) -> None:
    assert judge((gpu(40, proven(need)),)) == ANYWHERE


def test_what_is_proven_to_be_too_large_starts_nowhere() -> None:
    large = gpu(20, proven(ROOM + 0.01))
    assert judge((large,)) == Verdict(frozenset(), too_large=large)


@pytest.mark.parametrize(
    "known", [result(problem="no dry run"), result(forecast=forecast(80, "estimate"))]
)
def test_what_cannot_be_proven_starts(known: Result) -> None:
    assert judge((gpu(80, known),)) == ANYWHERE


def test_while_one_gpu_is_looked_into_the_trial_may_start_on_another() -> None:
    small, large = gpu(16, uuid="GPU-0", free=12), gpu(16, uuid="GPU-1", free=80)
    assert judge((small, large)) == Verdict(frozenset({"GPU-1"}), ask=small)


def test_the_gpu_with_the_most_memory_is_asked_about_first() -> None:
    small, large = gpu(40, uuid="GPU-0", free=12), gpu(40, uuid="GPU-1")
    assert judge((small, large)).ask == large


def test_a_trial_that_fits_one_of_two_gpus_starts_there() -> None:
    small = gpu(20, proven(20), uuid="GPU-0", free=12)
    large = gpu(20, proven(20), uuid="GPU-1")
    assert judge((small, large)) == Verdict(frozenset({"GPU-1"}))


def test_where_one_gpu_surely_fits_a_tight_one_is_left_to_others() -> None:
    tight = gpu(20, proven(20), uuid="GPU-0", free=20.6)
    large = gpu(20, proven(20), uuid="GPU-1")
    assert judge((tight, large)) == Verdict(frozenset({"GPU-1"}))


def test_a_limit_is_part_of_the_capacity() -> None:
    assert judge((gpu(20, proven(20), limit=16),)).too_large is not None


def test_a_dry_run_tells_more_than_a_formula() -> None:
    assert best_forecast(gpu(20, proven(18))) == forecast(18)
    assert best_forecast(gpu(20, result(problem="no"))) == forecast(20, "estimate")
    assert best_forecast(gpu(None)) is None


def test_a_trial_of_several_gpus_is_not_kept_to_fewer_that_surely_fit() -> None:
    tight = gpu(20, proven(20), uuid="GPU-0", free=20.6)
    large = gpu(20, proven(20), uuid="GPU-1")
    assert judge((tight, large), 2) == ANYWHERE


def test_a_trial_of_several_gpus_waits_while_too_few_are_looked_into() -> None:
    small, large = gpu(16, uuid="GPU-0", free=12), gpu(16, uuid="GPU-1", free=80)
    assert judge((small, large), 2) == Verdict(frozenset(), ask=small)
