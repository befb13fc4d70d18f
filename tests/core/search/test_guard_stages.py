"""The guard and the stages whose loss is no loss of tokens."""

import math
import random
from collections.abc import Iterable

import pytest

from core.search.guard import Guard, Verdict, blames_data

PAIRED = ["rm", "dpo", "kto"]


def watch(stage: str, losses: Iterable[float], **more: float | None) -> list[Verdict]:
    guard = Guard(stage=stage, **more)  # type: ignore[arg-type]
    said = (guard.observe(step, loss, 1.0) for step, loss in enumerate(losses, 1))
    return [verdict for verdict in said if verdict is not None]


def fitted(seed: int, count: int) -> list[float]:
    source = random.Random(seed)
    return [0.69 * math.exp(-n / 8 + source.gauss(0, 0.8)) for n in range(count)]


@pytest.mark.parametrize("stage", PAIRED)
@pytest.mark.parametrize("seed", range(5))
def test_pairs_that_are_known_and_then_new_ones_are_nothing_to_stop_for(
    stage: str, seed: int
) -> None:
    again = [0.5 + 0.1 * random.Random(seed).random() for _ in range(40)]
    losses = [*fitted(seed, 60), *([0.0] * 5), *again]
    assert watch(stage, losses) == []
    assert any(verdict.action == "stop" for verdict in watch("sft", losses))


@pytest.mark.parametrize("stage", PAIRED)
def test_a_loss_far_above_its_start_stops(stage: str) -> None:
    losses = [*([0.69] * 10), *([0.5] * 10), *([1.4] * 20)]
    said = next(v for v in watch(stage, losses) if v.action == "stop")
    assert "its start (0.69 at step" in said.reason and "for 3 logs" in said.reason


@pytest.mark.parametrize("stage", [*PAIRED, "ppo"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_in_every_stage(stage: str, bad: float) -> None:
    said = watch(stage, [0.6, 0.5, bad])
    assert [v.action for v in said] == ["stop"] and "at step 3" in said[0].reason


def test_the_loss_of_ppo_says_nothing() -> None:
    assert watch("ppo", [0.0, 0.0, 0.1, 5.0, 90.0, 900.0, -3.0] * 5) == []


def rounds(kls: Iterable[float], target: float | None = 6.0, updates: int = 4) -> list[Verdict]:
    """What is said as rounds of some updates go by."""
    guard = Guard(stage="ppo", kl_target=target)
    logs = [kl for kl in kls for _ in range(updates)]
    said = (guard.observe(step, 0.1, 1.0, kl) for step, kl in enumerate(logs, 1))
    return [verdict for verdict in said if verdict is not None]


def test_a_policy_that_leaves_its_reference_for_good_stops() -> None:
    said = rounds([3.0, 7.0, 30.0, 61.0, 75.0, 99.0])
    assert said[0].action == "stop" and said[0].step == 5 * 4 + 1
    assert "99.00 nats" in said[0].reason and "16.5 times what ppo_target wants" in said[0].reason
    assert "for 3 rounds" in said[0].reason and not blames_data(said[0].reason)


def test_a_round_or_two_do_not_stop_and_neither_does_a_large_target() -> None:
    assert rounds([3.0, 70.0, 71.0, 20.0, 80.0, 90.0, 5.0]) == []
    assert rounds([61.0, 75.0, 99.0, 120.0], target=20.0) == []


def test_without_kl_control_no_distance_stops() -> None:
    assert rounds([100.0, 200.0, 300.0, 400.0], target=None) == []


def test_a_divergence_that_is_no_number_stops_at_once() -> None:
    (said,) = rounds([3.0, math.nan, 4.0], target=None, updates=1)
    assert "KL divergence is not a number" in said.reason and said.step == 2
