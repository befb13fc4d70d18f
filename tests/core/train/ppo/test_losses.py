"""PPO's losses token by token."""

import math

import pytest
import torch

from core.train.ppo.kl import adapted
from core.train.ppo.losses import policy_loss, value_loss


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]])


def clipped(ratio: float, advantage: float, clip: float = 0.2) -> tuple[float, float]:
    loss, outside = policy_loss(one(math.log(ratio)), one(0.0), one(advantage), one(1.0), clip)
    return float(loss), float(outside)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "outside"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.1, 2.0, -2.2, 0),
        (1.5, 2.0, -2.4, 1),  # no more to gain above 1.2
        (0.5, 2.0, -1.0, 1),  # moved the wrong way: all of it counts
        (0.5, -2.0, 1.6, 1),  # no more to gain below 0.8
        (1.5, -2.0, 3.0, 1),
    ],
)
def test_the_clipped_objective(ratio: float, advantage: float, loss: float, outside: float) -> None:
    assert clipped(ratio, advantage) == (pytest.approx(loss), outside)


@pytest.mark.parametrize(("ratio", "pulls"), [(1.1, True), (1.5, False), (0.5, True)])
def test_a_token_that_gained_enough_has_no_gradient(ratio: float, pulls: bool) -> None:
    logprob = one(math.log(ratio)).requires_grad_()
    policy_loss(logprob, one(0.0), one(1.0), one(1.0), 0.2)[0].backward()
    assert (float(logprob.grad) != 0) == pulls


def test_the_gradient_of_the_first_pass_is_that_of_the_policy_gradient() -> None:
    """At ratio 1: −A per token."""
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    gains = torch.tensor([[3.0, -5.0]])
    policy_loss(logprobs, logprobs.detach(), gains, torch.ones(1, 2), 0.2)[0].backward()
    assert logprobs.grad.tolist() == [[-3.0, 5.0]]


def test_tokens_outside_the_mask_add_nothing() -> None:
    logprobs, mask = torch.tensor([[0.0, 700.0]]), torch.tensor([[1.0, 0.0]])
    loss, outside = policy_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), mask, 0.2)
    assert (float(loss), float(outside)) == (-1.0, 0.0)
    assert float(value_loss(logprobs, torch.zeros(1, 2), torch.zeros(1, 2), mask, 0.2)) == 0


@pytest.mark.parametrize(
    ("value", "old", "earned", "loss"),
    [
        (1.0, 1.0, 2.0, 0.5),
        (1.1, 1.0, 2.0, 0.5 * 0.9**2),
        (1.5, 1.0, 2.0, 0.5 * 0.8**2),  # moved too far: what it would have been at 1.2
        (0.5, 1.0, 2.0, 0.5 * 1.5**2),  # the wrong way: all of it counts
    ],
)
def test_the_value_loss(value: float, old: float, earned: float, loss: float) -> None:
    found = value_loss(one(value), one(old), one(earned), one(1.0), 0.2)
    assert float(found) == pytest.approx(loss)


@pytest.mark.parametrize(
    ("kl", "after"),
    [
        (6.0, 0.2),
        (6.6, 0.2 * (1 + 0.1 * 64 / 10_000)),
        (60.0, 0.2 * (1 + 0.2 * 64 / 10_000)),
        (0.0, 0.2 * (1 - 0.2 * 64 / 10_000)),
        (-3.0, 0.2 * (1 - 0.2 * 64 / 10_000)),
    ],
)
def test_the_weight_of_the_penalty_follows_the_divergence(kl: float, after: float) -> None:
    assert adapted(0.2, kl, 6.0, 64) == pytest.approx(after, rel=1e-12)


def test_no_kl_control_stays_off_and_a_weight_stays_above_zero() -> None:
    assert adapted(0.0, 60.0, 6.0, 64) == 0
    for answers in (10_000, 100_000):
        assert 0.1 < adapted(0.2, 0.0, 6.0, answers) < 0.2 < adapted(0.2, 60.0, 6.0, answers) < 0.3


def test_the_weight_comes_to_the_target_of_a_policy_that_follows_it() -> None:
    """A policy whose divergence is 2 / weight ends at the target of 5."""
    weight = 1.0
    for _ in range(2000):
        weight = adapted(weight, 2 / weight, 5.0, 256)
    assert 2 / weight == pytest.approx(5.0, rel=0.01)
