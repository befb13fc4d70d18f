from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.search.curves import Drawn, Run
from bench.search.simulate import Engine
from core.search.cost import expected_share
from core.search.halving import HalvingSettings, Stopping, decide, first_until

RULE = HalvingSettings()


def test_without_stopping_everything_is_paid_for() -> None:
    assert expected_share(RULE, "none", 32) == 1


def test_as_many_trials_as_finalists_all_run_to_the_end() -> None:
    assert expected_share(RULE, "halving", 2) == 1


@pytest.mark.parametrize(("trials", "share"), [(8, 0.33), (16, 0.23), (32, 0.185)])
def test_it_is_near_what_recorded_curves_cost(trials: int, share: float) -> None:
    # Shares as `python -m bench search` printed them for eight tasks of TaskSet, a tenth of the trials failing.
    assert expected_share(RULE, "halving", trials) == pytest.approx(share, abs=0.025)


@given(
    trials=st.integers(1, 200),
    first=st.sampled_from([0.02, 0.06, 0.1, 0.5, 0.9]),
    reduction=st.floats(1.1, 10),
    finalists=st.integers(1, 5),
    stopping=st.sampled_from(["none", "halving", "asha"]),
)
def test_it_is_a_share_and_more_finalists_cost_more(
    trials: int, first: float, reduction: float, finalists: int, stopping: Stopping
) -> None:
    settings = HalvingSettings(first, reduction, finalists)
    share = expected_share(settings, stopping, trials)
    assert 0 < share <= 1
    more = HalvingSettings(first, reduction, finalists + 1)
    assert expected_share(more, stopping, trials) >= share - 1e-12


@pytest.mark.parametrize("trials", [8, 27, 64])
def test_plain_halving_costs_what_the_engine_in_small_comes_to(trials: int) -> None:
    plain = HalvingSettings(first_rung=0.1, pace=0)
    drawn = [Drawn(Run("", 1e-4, (n,) * 100, n), (n,) * 100, 100, 100) for n in range(trials)]
    real = Engine(drawn, partial(decide, plain), first_until(plain)).run().cost / trials
    # The engine rounds down where the forecast has parts of trials.
    assert expected_share(plain, "halving", trials) == pytest.approx(real, abs=0.03)
