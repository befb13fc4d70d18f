from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.search.metric import (
    METRICS,
    MetricError,
    curve_of,
    find,
    noise_of,
    resolve,
    signed,
    value_of,
)
from core.search.smoothing import jitter, smooth
from core.study.metrics import Point


def losses(*values: float, tokens: int | None = None) -> list[Point]:
    return [
        Point(t=float(n), step=n, loss=value, tokens=tokens * n if tokens else None)
        for n, value in enumerate(values, 1)
    ]


def evals(*values: float) -> list[Point]:
    return [Point(t=float(n), step=10 * n, eval_loss=value) for n, value in enumerate(values, 1)]


def test_auto_is_the_evaluation_loss_where_there_is_validation_data() -> None:
    assert resolve("auto", has_validation=True).name == "eval_loss"
    assert resolve("auto", has_validation=False).name == "loss"


def test_a_metric_knows_which_way_is_good_unless_told_otherwise() -> None:
    assert resolve("eval_loss").direction == "min"
    assert resolve("eval_accuracy").direction == "max"
    assert resolve("tokens_per_s").direction == "max"
    assert resolve("grad_norm", "max").direction == "max"


def test_a_metric_that_no_trial_logs_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(MetricError, match="no trial logs eval_los: did you mean eval_loss"):
        resolve("eval_los")
    with pytest.raises(MetricError, match="eval_accuracy"):
        resolve("bleu")
    with pytest.raises(MetricError, match="no trial logs eval_accuracy"):
        resolve("eval_accuracy", stage="reward")


@pytest.mark.parametrize("name", ["eval_loss", "eval_accuracy"])
def test_an_evaluations_metric_needs_validation_data(name: str) -> None:
    with pytest.raises(MetricError, match="validation data"):
        resolve(name, has_validation=False)


def test_a_journals_metric_is_found_whatever_it_is() -> None:
    assert find("eval_loss") == METRICS["eval_loss"]
    assert find("eval_reward").direction == "max"
    assert find("eval_reward", "min").direction == "min"
    assert find("something").direction == "min"


@given(st.floats(allow_nan=False), st.sampled_from(["min", "max"]))
def test_signing_undoes_itself(value: float, direction: str) -> None:
    assert signed(signed(value, direction), direction) == value  # type: ignore[arg-type]


def test_the_training_loss_counts_by_its_average() -> None:
    points = losses(3.0, 2.0, 2.5)
    assert value_of(points, METRICS["loss"]) == smooth([3.0, 2.0, 2.5])[-1]


def test_of_evaluations_the_last_counts() -> None:
    assert value_of(evals(3.0, 2.0, 2.1), METRICS["eval_loss"]) == 2.1


@pytest.mark.parametrize("name", ["loss", "eval_loss", "loss_fall"])
def test_a_run_that_ends_in_no_number_has_no_value(name: str) -> None:
    points = losses(*[2.0] * 40, math.nan) + evals(2.0, math.nan)
    assert value_of(points, METRICS[name]) is None


def test_a_run_without_the_metric_has_no_value_and_no_curve() -> None:
    assert value_of(losses(2.0), METRICS["eval_loss"]) is None
    assert curve_of(losses(2.0), METRICS["eval_loss"], 10) == ()
    assert value_of([], METRICS["loss_fall"]) is None


def test_other_measures_are_read_by_name() -> None:
    points = [Point(t=1.0, step=n, eval_loss=1.0, more={"eval_accuracy": n / 10}) for n in (1, 2)]
    metric = resolve("eval_accuracy")
    assert value_of(points, metric) == 0.2
    assert curve_of(points, metric, 4) == ((0.25, 0.1), (0.5, 0.2))


def test_a_lone_slow_log_does_not_change_the_speed() -> None:
    points = [Point(t=1.0, step=n, tokens_per_s=v) for n, v in enumerate([100, 101, 99, 5, 100.0])]
    assert value_of(points, METRICS["tokens_per_s"]) == 100


def test_a_curve_is_over_shares_of_the_probe_and_leaves_out_what_is_not_finite() -> None:
    points = evals(3.0, math.inf, 2.0)
    assert curve_of(points, METRICS["eval_loss"], 40) == ((0.25, 3.0), (0.75, 2.0))
    assert curve_of(points, METRICS["eval_loss"], 0) == ()
    assert curve_of(points, METRICS["eval_loss"], 20)[-1] == (1.0, 2.0)


@pytest.mark.parametrize("tokens", [None, 512])
def test_the_fall_is_in_nats_for_each_doubling(tokens: int | None) -> None:
    points = losses(*[5 - 0.3 * math.log2(n) for n in range(1, 201)], tokens=tokens)
    assert value_of(points, METRICS["loss_fall"]) == pytest.approx(0.3, abs=0.01)


def test_a_few_wild_losses_hardly_change_the_fall() -> None:
    source = random.Random(0)
    values = [5 - 0.3 * math.log2(n) + source.gauss(0, 0.05) for n in range(1, 201)]
    values[120] = values[40] = 30.0
    assert value_of(losses(*values), METRICS["loss_fall"]) == pytest.approx(0.3, abs=0.1)


def test_what_the_loss_does_in_the_warm_up_is_no_part_of_its_fall() -> None:
    points = [
        Point(
            t=1.0, step=n, loss=9.0 if n < 40 else 3 - 0.1 * math.log2(n), lr=1e-4 * min(1, n / 40)
        )
        for n in range(1, 201)
    ]
    assert value_of(points, METRICS["loss_fall"]) == pytest.approx(0.1, abs=0.01)


def test_the_fall_has_a_curve() -> None:
    points = losses(*[5 - 0.3 * math.log2(n) for n in range(1, 201)])
    curve = curve_of(points, METRICS["loss_fall"], 200)
    assert len(curve) >= 10
    assert curve[-1] == (1.0, value_of(points, METRICS["loss_fall"]))
    assert [share for share, _ in curve] == sorted({share for share, _ in curve})


def test_the_noise_of_evaluations_is_how_much_they_go_up_and_down() -> None:
    source = random.Random(1)
    found = [
        noise_of(evals(*[2.0 + source.gauss(0, 0.05) for _ in range(9)]), METRICS["eval_loss"])
        for _ in range(200)
    ]
    assert sum(found) / 200 == pytest.approx(0.05, rel=0.1)  # type: ignore[arg-type]


def test_a_steady_fall_is_no_noise() -> None:
    assert noise_of(evals(3.0, 2.5, 2.2, 2.1, 2.05), METRICS["eval_loss"]) == 0


def test_of_few_evaluations_and_of_the_training_loss_the_noise_is_not_known() -> None:
    assert noise_of(evals(3.0, 2.5, 2.6), METRICS["eval_loss"]) is None
    assert noise_of(losses(*[2.0, 3.0] * 20), METRICS["loss"]) is None


def test_jitter_needs_five_values() -> None:
    assert jitter([1.0, 2.0, 1.0, 2.0]) is None


def test_a_share_of_few_rows_is_known_no_better_than_they_tell() -> None:
    accuracy = find("eval_reward_accuracy")
    points = [Point(t=float(i), step=i, more={"eval_reward_accuracy": 0.8}) for i in range(1, 7)]
    assert noise_of(points, accuracy) == 0
    # sqrt(0.8 × 0.2 / 64)
    assert noise_of(points, accuracy, 64) == pytest.approx(0.05)
    assert noise_of(points, METRICS["eval_loss"], 64) is None
