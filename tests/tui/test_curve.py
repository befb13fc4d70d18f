"""Digesting a trial's metrics point by point."""

import math

from core.study.metrics import Point, merge
from tests.tui.fake import NOW, points
from tui.curve import SPARK_CELLS, CurveBuilder


def build(*batches: list[Point]) -> CurveBuilder:
    builder = CurveBuilder()
    for batch in batches:
        builder.add(batch)
    return builder


def test_points_in_one_batch_or_many_come_to_the_same() -> None:
    all_points = points(1.8, 400)
    whole = build(all_points).digest(None, whole=True)
    assert build(*[[p] for p in all_points]).digest(None, whole=True) == whole
    assert whole.step == 400 and whole.loss == all_points[-1].loss
    assert whole.train is not None and len(whole.train) == len(all_points)
    assert whole.evals is not None and [step for step, _ in whole.evals] == list(range(40, 401, 40))


def test_points_are_only_handed_out_when_asked_for() -> None:
    curve = build(points(1.8, 40)).digest(None, whole=False)
    assert curve.train is None and curve.evals is None and curve.spark


def test_a_later_attempt_overrides_as_the_reader_of_metrics_has_it() -> None:
    first = [Point(t=NOW + s, step=s, loss=3.0 - s / 100) for s in range(1, 51)]
    second = [Point(t=NOW + 90 + s, step=s, attempt=2, loss=1.0) for s in range(31, 41)]
    curve = build(first, second).digest(None, whole=True)
    expected = merge(list(first), second)
    assert curve.train == tuple((float(p.step), p.loss) for p in expected)
    assert curve.step == 40 and curve.steps_per_s == 1.0


def test_a_spark_never_outgrows_its_cells_and_keeps_the_newest_value() -> None:
    builder = CurveBuilder()
    for step in range(1, 5001):
        builder.add([Point(t=NOW + step, step=step, loss=float(step))])
        if step % 777 == 0:
            spark = builder.digest(None, whole=False).spark
            assert len(spark) <= SPARK_CELLS and spark[-1] == step
    assert list(spark) == sorted(spark)


def test_what_is_not_finite_is_not_hidden() -> None:
    curve = build([Point(t=NOW, step=1, loss=2.0), Point(t=NOW, step=2, loss=math.nan)]).digest(
        None, whole=True
    )
    assert curve.loss is not None and math.isnan(curve.loss)
    assert math.isnan(curve.spark[-1])


def test_nothing_logged_is_an_empty_curve() -> None:
    curve = build().digest(None, whole=True)
    assert curve.train == () and curve.step == 0 and curve.loss is None


def aligned() -> list[Point]:
    """Two updates of a preference stage, and an evaluation after them."""
    return [
        Point(t=NOW, step=1, loss=0.69, grad_norm=2.0, lr=1e-6, more={"reward_margin": 0.1}),
        Point(t=NOW + 1, step=2, loss=0.6, grad_norm=1.0, lr=2e-6, more={"reward_margin": 0.4}),
        Point(t=NOW + 2, step=2, eval_loss=0.65, more={"eval_reward_margin": 0.3, "eval_kl": 2.0}),
    ]


def test_whatever_a_stage_logs_can_be_drawn_with_its_evaluations_beside_it() -> None:
    builder = build(aligned())
    assert builder.digest(None, whole=True).measures == (
        "loss", "reward_margin", "kl", "grad_norm", "lr",
    )  # fmt: skip
    margins = builder.digest(None, whole=True, measure="reward_margin")
    assert margins.train == ((1.0, 0.1), (2.0, 0.4)) and margins.evals == ((2.0, 0.3),)
    only_evaluated = builder.digest(None, whole=True, measure="kl")
    assert only_evaluated.train == () and only_evaluated.evals == ((2.0, 2.0),)
    norms = builder.digest(None, whole=True, measure="grad_norm")
    assert norms.train == ((1.0, 2.0), (2.0, 1.0)) and norms.evals == ()


def test_the_smoothed_loss_can_be_drawn_and_is_no_measure_of_the_stage() -> None:
    points = [Point(t=NOW + s, step=s, loss=3.0 - s, loss_smoothed=3.5 - s) for s in (1, 2)]
    curve = build(points).digest(None, whole=True, measure="loss_smoothed")
    assert curve.train == ((1.0, 2.5), (2.0, 1.5)) and curve.measures == ("loss", "loss_smoothed")
    assert curve.own_measures == ()


def test_the_last_values_of_a_stages_own_measures_are_told_apart_from_what_every_stage_logs() -> (
    None
):
    curve = build(aligned()).digest(None, whole=False)
    assert dict(curve.own_measures) == {
        "reward_margin": 0.4,
        "eval_reward_margin": 0.3,
        "eval_kl": 2.0,
    }
