from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.doctor import Finding, RunFacts, diagnose
from core.study.metrics import Point

RUN = RunFacts(total_steps=100, warmup_steps=10, learning_rate=3e-4)


def points(
    losses: Iterable[float],
    evals: Sequence[float] = (),
    norms: Sequence[float] | None = None,
    seed: int = 0,
    noise: float = 0.0,
) -> list[Point]:
    """A run that logs every update; `evals` are spread evenly over it."""
    source = random.Random(seed)
    made: list[Point] = []
    values = list(losses)
    every = len(values) // len(evals) if evals else 0
    for n, loss in enumerate(values, 1):
        shaken = loss * math.exp(source.gauss(-noise * noise / 2, noise))
        norm = 1.0 if norms is None else norms[n - 1]
        made.append(Point(t=float(n), step=n, loss=shaken, grad_norm=norm))
        if every and n % every == 0 and n // every <= len(evals):
            made.append(Point(t=float(n), step=n, eval_loss=evals[n // every - 1]))
    return made


def falling(start: float, end: float, count: int = 100, speed: float = 15.0) -> list[float]:
    return [end + (start - end) * math.exp(-n / speed) for n in range(count)]


def ended(run: RunFacts = RUN, **more: object) -> RunFacts:
    return replace(run, ended=True, **more)  # type: ignore[arg-type]


def sure(finding: Finding | None) -> Finding:
    assert finding is not None
    return finding


def told(logged: Sequence[Point], run: RunFacts) -> list[str | None]:
    """What is said as the points come, three at a time."""
    found = (diagnose(logged[:n], run) for n in range(1, len(logged) + 3, 3))
    return [finding.kind if finding is not None else None for finding in found]


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_a_run_that_learns_is_not_talked_about(noise: float) -> None:
    for seed in range(3):
        logged = points(falling(2.6, 2.1), falling(2.5, 2.15, 10, 2.0), seed=seed, noise=noise)
        assert set(told(logged, RUN)) == {None}


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    noise=st.floats(0.0, 0.3),
    start=st.floats(0.5, 5.0),
    left=st.floats(0.3, 0.85),
    speed=st.floats(2.0, 50.0),
    count=st.sampled_from([20, 60, 100, 400]),
)
@example(seed=0, noise=0.0, start=1.0, left=0.84375, speed=2.0, count=60)
def test_a_falling_curve_is_healthy_at_realistic_noise(
    seed: int, noise: float, start: float, left: float, speed: float, count: int
) -> None:
    # Whatever is down within two updates has stood still from its beginning, for whoever looks at some of them.
    losses = falling(start, start * left, count, max(2.0, speed * count / 100))
    run = RunFacts(total_steps=count, learning_rate=1e-4, ended=True)
    assert diagnose(points(losses, seed=seed, noise=noise), run) is None


def test_nothing_is_judged_before_there_is_enough() -> None:
    assert diagnose([], RUN) is None
    assert diagnose(points([2.0, 3.0, 4.0, 5.0, 6.0]), RUN) is None


def test_a_loss_that_rises_for_long_diverges_and_a_lower_rate_is_advised() -> None:
    losses = falling(2.6, 2.0, 50) + [2.0 + 0.04 * n for n in range(50)]
    finding = sure(diagnose(points(losses, noise=0.03), ended()))
    assert finding.kind == "diverging"
    assert "rose from 2.0" in finding.text and "(step 100)" in finding.text
    assert finding.advice.startswith("lower the rate: 3e-4 → 1e-4")
    assert finding.changes["learning_rate"] == 1e-4


def test_a_model_ruined_by_its_first_updates_diverges_although_the_loss_falls() -> None:
    finding = sure(diagnose(points([2.5, *falling(9.0, 6.0, 59)]), RUN))
    assert finding.kind == "diverging" and finding.severity == "error"
    assert "from 2.5" in finding.text


def test_a_loss_that_is_no_number_is_told_at_once_and_stays() -> None:
    logged = points([*falling(2.6, 2.1, 40), math.nan, math.nan])
    said = told(logged, RUN)
    assert said[:13] == [None] * 13 and said[-1] == "diverging"
    assert "not a number at step 41" in sure(diagnose(logged, ended())).text


def test_what_the_guard_stopped_is_told_in_its_words() -> None:
    run = ended(diverged="loss rose to 9.10, 4.3 times its best (2.10 at step 8)", warmup_steps=0)
    finding = sure(diagnose(points([2.5, 2.1, 9.1]), run))
    assert (finding.kind, finding.text) == ("diverging", run.diverged)
    assert "warmup_ratio 0.1" in finding.advice and finding.changes["warmup_ratio"] == 0.1
    assert sure(diagnose([], run)).kind == "diverging"


@pytest.mark.parametrize(
    "reason",
    [
        "loss is exactly 0 at step 1: either every label is masked, or a filter hides what is no number",
        "loss is exactly 0 at step 5 (it was 2.00 before): either every label is masked, or …",
    ],
)
def test_where_the_labels_are_masked_no_lower_rate_is_advised(reason: str) -> None:
    step = 1 if "step 1" in reason else 5
    logged = points([2.0] * (step - 1) + [0.0])
    finding = sure(diagnose(logged, ended(diverged=reason)))
    assert (finding.kind, finding.text, finding.changes) == ("not_learning", reason, {})
    assert "format and template" in finding.advice


def test_a_first_log_of_many_updates_that_is_no_number_is_the_rates_doing() -> None:
    logged = [Point(t=1.0, step=10, loss=math.nan)]
    run = ended(diverged="loss is not a number (NaN) at step 10")
    finding = sure(diagnose(logged, run))
    assert finding.kind == "diverging" and finding.changes["learning_rate"] == 1e-4


def test_loose_clipping_is_named_where_a_run_diverges() -> None:
    finding = sure(diagnose([], ended(diverged="it exploded", max_grad_norm=5.0)))
    assert "clip at 1 (max_grad_norm is 5)" in finding.advice


def test_training_falls_and_evaluation_rises_is_overfitting_with_both_numbers() -> None:
    evals = [2.2, 2.0, 1.92, 1.90, 1.93, 1.99, 2.05, 2.1, 2.15, 2.2]
    finding = sure(
        diagnose(points(falling(2.6, 0.9, 100, 60), evals, noise=0.03), ended(weight_decay=0.01))
    )
    assert finding.kind == "overfitting"
    assert (
        "evaluation loss rose from 1.9" in finding.text
        and "training loss fell from" in finding.text
    )
    assert "(3e-4 → 2e-4)" in finding.advice or "(3e-4 → 1e-4)" in finding.advice
    assert finding.changes["weight_decay"] == 0.1
    assert "end near step 4" in finding.advice or "end near step 3" in finding.advice


def test_both_losses_falling_is_no_overfitting() -> None:
    evals = falling(2.6, 2.2, 10, 3)
    assert diagnose(points(falling(2.6, 1.2, 100, 60), evals), ended()) is None


def test_a_loss_that_begins_to_shake_oscillates() -> None:
    source = random.Random(4)
    calm = points(falling(2.6, 2.1, 50, 8), noise=0.01)
    wild = [2.2 * math.exp(source.gauss(0, 0.15)) for _ in range(50)]
    logged = calm + [Point(t=1.0, step=n, loss=v, grad_norm=1.0) for n, v in enumerate(wild, 51)]
    finding = sure(diagnose(logged, ended(effective_batch=8)))
    assert finding.kind == "oscillating"
    assert "times as much as at first" in finding.text
    assert finding.advice == "lower the rate: 3e-4 → 1e-4, or a larger batch (8 → 16 rows)"


def test_small_batches_that_jitter_all_along_do_not_oscillate() -> None:
    for seed in range(10):
        assert diagnose(points(falling(2.6, 2.2), seed=seed, noise=0.4), ended()) is None


def test_an_evaluation_loss_that_shakes_oscillates() -> None:
    evals = [2.2, 2.0, 2.3, 1.9, 2.3, 1.95, 2.35, 1.9, 2.3, 1.95]
    finding = sure(diagnose(points(falling(2.6, 2.1, 100, 5), evals, noise=0.02), ended()))
    assert finding.kind == "oscillating" and "same rows" in finding.text


def test_a_loss_that_does_not_move_at_a_low_rate_is_too_slow() -> None:
    run = ended(replace(RUN, learning_rate=2e-6, finetuning_type="full"))
    finding = sure(diagnose(points(falling(2.6, 2.58)), run))
    assert finding.kind == "too_slow"
    assert (
        "hardly moved in 100 steps: from 2.596 to 2.580, by 0.6 %" in finding.text
        and "gradients of 1" in finding.text
    )
    assert finding.advice == "raise the rate: 2e-6 → 6e-6 (usual: 1e-5 – 3e-5)"
    assert finding.changes == {"learning_rate": 6e-6}


def test_a_loss_that_creeps_down_at_a_timid_rate_is_too_slow() -> None:
    creeping = points([2.6 - 0.001 * n for n in range(100)])
    finding = sure(diagnose(creeping, ended(learning_rate=1e-5)))
    assert finding.kind == "too_slow" and finding.changes == {"learning_rate": 3e-5}
    assert diagnose(creeping, ended(learning_rate=1e-4)) is None


def test_evaluations_that_stand_still_tell_what_noisy_batches_hide() -> None:
    evals = [2.62, 2.618, 2.617, 2.616, 2.615, 2.614, 2.613, 2.613, 2.612, 2.612]
    finding = sure(diagnose(points([2.6] * 100, evals, noise=0.1), ended(learning_rate=1e-6)))
    assert finding.kind == "too_slow"
    assert "the evaluation loss went from 2.620 to 2.612" in finding.text
    assert finding.advice.startswith("raise the rate: 1e-6 → 1e-4")


def test_a_loss_that_fell_by_a_tenth_is_not_said_to_have_hardly_moved() -> None:
    """Most of the fall came before the first evaluation, and noise may explain it."""
    evals = [1.70, 1.69, 1.685, 1.68, 1.675, 1.67]
    run = ended(replace(RUN, total_steps=30, warmup_steps=0))
    shown = []
    for seed in range(20):
        logged = points([2.2, *falling(1.9, 1.63, 29, 1.0)], evals, seed=seed, noise=0.08)
        finding = diagnose(logged, run)
        shown += re.findall(r"by ([\d.]+) %", finding.text) if finding is not None else []
    assert len(shown) <= 1 and all(float(share) <= 5 for share in shown)


def test_a_run_that_had_learnt_before_its_first_evaluation_is_not_slow() -> None:
    evals = [2.101, 2.1, 2.1, 2.099, 2.099, 2.1, 2.1, 2.1, 2.1, 2.1]
    assert diagnose(points(falling(2.6, 2.1, 100, 4), evals, noise=0.02), ended()) is None


def test_without_a_known_rate_the_advice_is_relative() -> None:
    assert (
        sure(diagnose([], ended(RunFacts(diverged="it exploded")))).advice
        == "lower the rate to a third"
    )


def test_at_a_rate_that_is_high_already_the_data_is_suspected() -> None:
    finding = sure(diagnose(points([2.6] * 50 + [2.59] * 50, noise=0.01), ended()))
    assert finding.kind == "too_slow" and not finding.changes
    assert "3e-4 is not low for lora" in finding.advice and "masked labels" in finding.advice


def test_a_loss_that_fell_a_little_and_stands_still_is_a_plateau() -> None:
    losses = falling(2.6, 2.5, 100, 4)
    finding = sure(diagnose(points(losses, noise=0.005), ended()))
    assert finding.kind == "plateau"
    assert "has stood there since step" in finding.text


def test_standing_still_while_the_rate_decays_is_the_schedules_doing() -> None:
    logged = [
        Point(t=1.0, step=n, loss=loss, lr=3e-4 * (1 - n / 101), grad_norm=1.0)
        for n, loss in enumerate(falling(2.6, 2.5, 100, 4), 1)
    ]
    assert diagnose(logged, ended()) is None


@pytest.mark.parametrize(
    ("logged", "words"),
    [
        (points([0.0] * 5), "exactly 0"),
        (points([math.nan] * 3), "not a number from the first log on"),
        (
            points([2.3] * 5 + [2.31] * 5, norms=[0.0] * 10),
            "gradients are zero in the last 10 logs",
        ),
        (points([2.3025] * 30), "a constant"),
    ],
)
def test_what_cannot_learn_is_told_early(logged: list[Point], words: str) -> None:
    finding = sure(diagnose(logged, replace(RUN, warmup_steps=3, ended=True)))
    assert finding.kind == "not_learning" and finding.severity == "error"
    assert words in finding.text and finding.advice


def test_masked_labels_are_told_with_the_rows_that_were_left_out() -> None:
    run = ended(dropped_rows=90, train_rows=10)
    assert "90 of 100 rows" in sure(diagnose(points([0.0] * 5), run)).advice


RUNS = {
    "overfitting": points(
        falling(2.6, 0.9, 100, 60),
        [2.2, 2.0, 1.92, 1.90, 1.93, 1.99, 2.05, 2.1, 2.15, 2.2],
        noise=0.05,
    ),
    "diverging": points(falling(2.6, 2.0, 50) + [2.0 + 0.04 * n for n in range(50)], noise=0.05),
    "too_slow": points(falling(2.6, 2.58), noise=0.02),
    "plateau": points(falling(2.6, 2.5, 100, 4), noise=0.01),
    "not_learning": points([2.3] * 100, norms=[0.0] * 100),
}


@pytest.mark.parametrize("kind", RUNS)
def test_as_points_come_a_finding_is_told_once_and_kept(kind: str) -> None:
    said = told(RUNS[kind], replace(RUN, learning_rate=1e-4))
    changes = [(a, b) for a, b in pairwise([None, *said]) if a != b]
    assert changes == [(None, kind)]


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    noise=st.floats(0.0, 0.2),
    bends=st.lists(st.floats(0.5, 2.0), min_size=3, max_size=6),
)
def test_after_careful_advice_it_is_never_bold(seed: int, noise: float, bends: list[float]) -> None:
    losses = []
    for a, b in pairwise([1.0, *bends]):
        losses += [2.0 * (a + (b - a) * n / 20) for n in range(20)]
    run = RunFacts(total_steps=len(losses), learning_rate=1e-5, warmup_steps=0)
    said = [kind for kind in told(points(losses, seed=seed, noise=noise), run) if kind is not None]
    careful = [kind in ("diverging", "oscillating", "overfitting") for kind in said]
    assert careful == sorted(careful)
    order = ["plateau", "too_slow", "oscillating", "overfitting", "diverging", "not_learning"]
    for a, b in pairwise(said):
        assert order.index(b) >= order.index(a) or careful[said.index(a)]


def test_a_long_run_is_thinned_and_still_judged() -> None:
    losses = falling(2.6, 2.0, 10_000, 1500)[:5000] + [2.02 + 0.0004 * n for n in range(5000)]
    run = RunFacts(total_steps=10_000, learning_rate=1e-4, ended=True)
    assert sure(diagnose(points(losses, noise=0.1), run)).kind == "diverging"


def test_a_run_of_unknown_length_is_judged_too() -> None:
    losses = falling(2.6, 2.0, 50) + [2.0 + 0.04 * n for n in range(50)]
    run = RunFacts(learning_rate=1e-4)
    assert sure(diagnose(points(losses), run)).kind == "diverging"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(width=32) | st.none(), max_size=60), st.booleans())
def test_any_losses_are_taken_without_error(losses: list[float | None], over: bool) -> None:
    logged = [
        Point(t=1.0, step=n, loss=loss, eval_loss=loss, grad_norm=loss)
        for n, loss in enumerate(losses, 1)
    ]
    finding = diagnose(logged, RunFacts(total_steps=60, ended=over))
    assert finding is None or (finding.text and finding.advice)
