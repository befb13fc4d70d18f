from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.params import SearchTable
from core.profile import from_document
from core.search.halving import (
    Entrant,
    EntrantState,
    HalvingSettings,
    decide,
    decide_asha,
    first_look,
    first_until,
    profile_settings,
    rungs,
    settings_of,
    value_at,
)

PLAIN = HalvingSettings(first_rung=0.1, pace=0)
RULE = HalvingSettings(first_rung=0.1)


def entrant(
    trial: int,
    *values: float,
    state: EntrantState = "rung",
    until: float = 0.1,
    rate: float | None = 1e-4,
) -> Entrant:
    """A trial evaluated a third of the way to 10 %, there, and at the later rungs, as far as `values` go."""
    places = (0.1 / 3, *rungs(RULE), 1.0)
    return Entrant(trial, until, state, tuple(zip(places, values, strict=False)), rate)


def flat(trial: int, value: float, **more: object) -> Entrant:
    return entrant(trial, value, value, **more)  # type: ignore[arg-type]


class TestRungs:
    def test_they_double_and_the_last_lies_at_three_quarters(self) -> None:
        assert rungs(HalvingSettings()) == (0.06, 0.12, 0.24, 0.48, 0.75)
        assert rungs(RULE) == (0.1, 0.2, 0.4, 0.75)

    @pytest.mark.parametrize("first", [0.001, 0.03, 0.3, 0.55, 0.61, 0.75, 0.8, 0.99])
    def test_they_rise_from_the_first_one_and_stay_below_one(self, first: float) -> None:
        found = rungs(HalvingSettings(first_rung=first))
        assert found[0] == first_until(HalvingSettings(first_rung=first)) == first
        assert list(found) == sorted(set(found))
        assert all(0 < share < 1 for share in found)

    def test_the_first_look_comes_before_the_first_rung(self) -> None:
        assert first_look(RULE) == pytest.approx(0.1 / 3)

    def test_the_profile_decides(self) -> None:
        search = SearchTable(first_rung=0.2, reduction=4, finalists=3)
        assert settings_of(search) == HalvingSettings(0.2, 4, 3)
        assert settings_of(SearchTable()) == HalvingSettings()

    @pytest.mark.parametrize(
        ("train", "search", "first"),
        [
            ({}, {}, 0.1),
            ({"warmup_ratio": 0.0}, {}, 0.06),
            ({"warmup_ratio": 0.05}, {}, 0.06),
            ({"lr_scheduler_type": "constant"}, {}, 0.06),
            ({}, {"first_rung": 0.3}, 0.3),
            ({}, {"space": {"warmup_ratio": [0.0, 0.2]}}, 0.2),
            ({}, {"space": {"warmup_ratio": {"low": 0.0, "high": 0.3}}}, 0.3),
            ({"warmup_ratio": 0.02}, {"probe_schedule": "full", "budget": 0.2}, 0.1),
            ({"warmup_steps": 20, "max_steps": 100}, {}, 0.2),
            ({"warmup_steps": 20}, {}, 0.06),
            ({"warmup_ratio": 0.9}, {}, 0.75),
        ],
    )
    def test_no_rung_lies_within_the_warm_up(
        self, train: dict[str, Any], search: dict[str, Any], first: float
    ) -> None:
        model, data = {"model_name_or_path": "demo"}, {"dataset": "demo"}
        document = {"model": model, "data": data, "train": train, "search": search}
        found = rungs(profile_settings(from_document(document)))
        assert found[0] == pytest.approx(first)
        assert list(found) == sorted(set(found)) and found[-1] <= 0.75


class TestARung:
    def test_the_best_third_goes_on(self) -> None:
        found = decide(RULE, [flat(n, 2 + n / 10) for n in range(1, 10)], 0)
        assert found is not None
        assert found.kept == {1: 0.2, 2: 0.2, 3: 0.2}
        assert set(found.dropped) == {4, 5, 6, 7, 8, 9}
        assert (found.rung, found.at) == (1, 0.1)

    def test_it_waits_for_those_on_their_way(self) -> None:
        waiting = [flat(n, 2.0) for n in (1, 2)]
        assert decide(RULE, [*waiting, entrant(3, state="open")], 0) is None
        assert decide(RULE, waiting, expected=1) is None

    def test_reasons_say_how_far_above_the_cut(self) -> None:
        values = (1.850, 1.860, 1.872, 1.906, 1.95, 1.96, 1.97, 1.98, 1.99)
        found = decide(RULE, [flat(n, v) for n, v in enumerate(values, 1)], 0)
        assert found is not None
        assert (
            found.dropped[4]
            == "0.034 above the cut of 1.872 at 10 %, and too slow to catch up with 1.850"
        )
        assert found.text == "rung 1 at 10 %: 3 of 9 go on to 20 %"

    def test_a_metric_of_which_more_is_better_is_shown_as_it_is(self) -> None:
        field = [flat(n, -0.9 + n / 100) for n in range(1, 10)]
        found = decide(replace(RULE, negated=True), field, 0)
        assert found is not None
        assert found.dropped[4].startswith("0.010 below the cut of 0.870 at 10 %")

    def test_equal_values_prefer_the_lower_rate(self) -> None:
        field = [flat(n, 2.0, rate=1 / n) for n in range(1, 10)]
        found = decide(RULE, field, 0)
        assert found is not None
        assert set(found.kept) == {9, 8, 7}
        assert "which lower rates passed" in found.dropped[1]

    def test_an_unknown_rate_loses_a_tie(self) -> None:
        field = [flat(1, 2.0, rate=None), flat(2, 2.0), flat(3, 2.0)]
        found = decide(RULE, field, 0)
        assert found is not None and set(found.dropped) == {1}

    def test_there_are_at_least_two_finalists(self) -> None:
        found = decide(RULE, [flat(n, 2 + n / 10) for n in range(1, 5)], 0)
        assert found is not None and set(found.kept) == {1, 2}

    @pytest.mark.parametrize("count", [1, 2])
    def test_fewer_trials_than_finalists_all_go_on(self, count: int) -> None:
        found = decide(RULE, [flat(n, 2 + n) for n in range(count)], 0)
        assert found is not None
        assert set(found.kept) == set(range(count)) and not found.dropped

    def test_one_without_a_value_is_dropped_with_that_reason(self) -> None:
        field = [flat(1, 2.0), flat(2, 2.1), entrant(3)]
        found = decide(RULE, field, 0)
        assert found is not None
        assert found.dropped == {3: "no value at 10 %"}

    def test_without_any_value_the_lowest_rates_go_on(self) -> None:
        found = decide(RULE, [entrant(n, rate=n) for n in (1, 2, 3)], 0)
        assert found is not None and set(found.kept) == {1, 2}

    def test_past_the_last_rung_they_run_to_the_end(self) -> None:
        field = [entrant(n, *(5.0,) * 4, 2 + n, until=0.75) for n in (1, 2)]
        found = decide(RULE, field, 0)
        assert found is not None
        assert found.kept == {1: 1.0, 2: 1.0}
        assert found.text == "rung 4 at 75 %: 2 of 2 go on to the end"


class TestCatchingUp:
    def field(self, *values: float) -> list[Entrant]:
        """Fifteen flat curves and one that a test is about, the sixteenth."""
        return [*(flat(n, 2 + n / 100) for n in range(1, 16)), entrant(16, *values)]

    def test_one_that_falls_fast_goes_on_however_high_it_stands(self) -> None:
        # 4 nats in the last 6.7 % of the probe: a quarter of that pace takes it far below 2.
        found = decide(RULE, self.field(9.0, 5.0), 0)
        assert found is not None and 16 in found.kept
        assert "1 of them since they may catch up" in found.text

    def test_one_that_would_need_its_whole_pace_is_dropped(self) -> None:
        # (3.0 - 2.9) / 0.0667 x 0.9 = 1.35 nats with all of its pace, 0.34 with a quarter.
        found = decide(RULE, self.field(3.0, 2.9), 0)
        assert found is not None and 16 in found.dropped
        trusting = decide(replace(RULE, pace=1), self.field(3.0, 2.9), 0)
        assert trusting is not None and 16 in trusting.kept

    def test_a_curve_that_jumps_about_is_judged_later_than_a_flat_one(self) -> None:
        smooth = decide(RULE, self.field(2.2, 2.2), 0)
        jumpy = decide(RULE, self.field(2.0, 2.2), 0)
        assert smooth is not None and 16 in smooth.dropped
        assert jumpy is not None and 16 in jumpy.kept

    def test_more_trials_are_more_patient(self) -> None:
        few = [*(flat(n, 2 + n / 100) for n in range(1, 8)), entrant(99, 2.5, 2.4)]
        many = [*(flat(n, 2 + n / 100) for n in range(1, 64)), entrant(99, 2.9, 2.7)]
        assert 99 in (decide(RULE, few, 0) or pytest.fail()).dropped
        assert 99 in (decide(RULE, many, 0) or pytest.fail()).kept

    def test_without_a_second_value_there_is_no_pace(self) -> None:
        one_value = Entrant(16, 0.1, "rung", ((0.1, 2.2),), 1e-4)
        found = decide(RULE, [*self.field(2.2, 2.2)[:15], one_value], 0)
        assert found is not None
        assert found.dropped[16] == "0.150 above the cut of 2.050 at 10 %"

    def test_plain_halving_knows_none_of_it(self) -> None:
        found = decide(PLAIN, self.field(9.0, 5.0), 0)
        assert found is not None and 16 in found.dropped


class TestLateComers:
    def test_one_that_comes_late_is_compared_with_what_the_others_had_there(self) -> None:
        others = [
            *(entrant(n, 2.0 + n, 2.0 + n, 1.0, state="done", until=1.0) for n in (1, 2)),
            *(flat(n, 2.0 + n, state="pruned") for n in range(3, 9)),
        ]
        good = decide(RULE, [*others, flat(9, 2.5)], 0)
        bad = decide(RULE, [*others, flat(9, 7.5)], 0)
        assert good is not None and good.kept == {9: 0.2}
        assert bad is not None and set(bad.dropped) == {9}

    def test_one_on_its_way_to_an_early_rung_holds_nobody_up_at_a_later_one(self) -> None:
        field = [entrant(n, 3.0, 2.0, 1.9 + n / 10, until=0.2) for n in (1, 2, 3)]
        late = entrant(4, state="open", until=0.1)
        found = decide(RULE, [*field, late], 0)
        assert found is not None and found.at == 0.2

    def test_trials_that_are_yet_to_come_hold_up_the_first_rung_alone(self) -> None:
        field = [entrant(n, 3.0, 2.0, 1.9 + n / 10, until=0.2) for n in (1, 2, 3)]
        assert decide(RULE, field, expected=2) is not None

    def test_one_that_is_paused_holds_nobody_up(self) -> None:
        found = decide(RULE, [flat(1, 2.0), flat(2, 2.1), entrant(3, state="out")], 0)
        assert found is not None and set(found.kept) == {1, 2}


class TestRevival:
    def test_when_the_leader_fails_those_dropped_for_it_go_on(self) -> None:
        # The leader alone is far below; with it, nobody could catch up.
        others = [entrant(n, 2.1 + n / 100, 2.05 + n / 100, state="pruned") for n in range(1, 10)]
        kept = [entrant(n, 2.0, 2.0, 1.9, 1.9, 1.9, 1.9, state="done", until=1.0) for n in (20, 21)]
        leader = entrant(30, 1.0, 0.1, state="out", until=0.2)
        assert decide(RULE, [*others, *kept], 0) is None
        found = decide(RULE, [*others, *kept, leader], 0)
        assert found is not None and found.kept and not found.dropped
        assert "since trials that were better have failed" in found.text

    def test_the_best_dropped_ones_go_on_when_too_few_finish(self) -> None:
        field = [
            entrant(1, state="out"),
            entrant(2, 2.0, 2.0, 1.9, 1.8, 1.8, 1.8, state="done", until=1.0),
            flat(3, 2.2, state="pruned"),
            flat(4, 2.1, state="pruned"),
        ]
        found = decide(PLAIN, field, 0)
        assert found is not None
        assert found.kept == {4: 0.2}
        assert found.text == (
            "rung 1 at 10 %: trial 4 goes on after all, since fewer than 2 came to the end, to 20 %"
        )

    def test_one_that_stood_better_than_all_that_finished_goes_on(self) -> None:
        exploded = [
            entrant(n, 2.0, 1.5, 1.4, 1.3, 1.3, 9.0, state="done", until=1.0) for n in (1, 2)
        ]
        better, equal = flat(3, 2.2, state="pruned"), flat(4, 9.0, state="pruned", rate=1e-9)
        found = decide(RULE, [*exploded, better, equal], 0)
        assert found is not None and found.kept == {3: 0.2}
        assert "since all that came to the end are worse" in found.text
        assert decide(RULE, [*exploded, equal], 0) is None

    def test_nothing_is_revived_while_others_run(self) -> None:
        field = [flat(3, 2.2, state="pruned"), entrant(4, state="open", until=1.0)]
        assert decide(RULE, field, 0) is None

    def test_when_all_are_out_there_is_nothing_to_decide(self) -> None:
        assert decide(RULE, [entrant(n, state="out") for n in (1, 2)], 0) is None
        assert decide(RULE, [], 0) is None


class TestAsha:
    def test_the_leaders_go_on_while_others_are_on_their_way(self) -> None:
        field = [flat(1, 2.0), flat(2, 2.1), flat(3, 2.2), entrant(4, state="open")]
        found = decide_asha(RULE, field, expected=5)
        assert found is not None
        assert found.kept == {1: 0.2} and not found.dropped

    def test_nobody_is_dropped_before_all_came(self) -> None:
        field = [flat(1, 2.0), flat(2, 2.1), entrant(3, state="open")]
        assert decide_asha(RULE, field, 0) is None
        assert decide_asha(RULE, field[:2], expected=1) is None

    def test_a_higher_rung_comes_first(self) -> None:
        low = [flat(n, 2.0 + n / 100) for n in range(1, 5)]
        high = [entrant(n, 2.0, 1.9, 1.8 + n / 100, until=0.2) for n in range(5, 8)]
        found = decide_asha(RULE, [*low, *high], 0)
        assert found is not None and found.kept == {5: 0.4}

    def test_once_all_came_the_rest_is_decided(self) -> None:
        gone = entrant(1, 2.0, 2.0, state="open", until=0.2)
        found = decide_asha(RULE, [gone, flat(2, 2.1), flat(3, 2.2), flat(4, 2.3)], 0)
        assert found is not None
        assert set(found.kept) == {2} and set(found.dropped) == {3, 4}


def test_a_value_at_a_rung_is_the_first_measured_there_or_after() -> None:
    late = Entrant(1, 0.2, "open", ((0.05, 3.0), (0.104, 2.5), (0.15, 2.0)))
    assert value_at(late, 0.1) == 2.5
    early = Entrant(1, 0.1, "rung", ((0.05, 3.0), (0.098, 2.5)))
    assert value_at(early, 0.1) == 2.5
