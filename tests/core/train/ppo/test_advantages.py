"""Rewards and advantages against numbers worked out by hand, and against the sums that define them."""

import math

import pytest
import torch

from core.train.ppo.advantages import advantages, token_rewards, whiten


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values)


def test_each_token_pays_for_its_distance_and_the_last_earns_the_score() -> None:
    ratios, mask = rows([0.5, -1.0, 2.0], [1.0, 3.0, 9.0]), rows([1, 1, 1], [1, 1, 0])
    found = token_rewards(torch.tensor([10.0, -4.0]), ratios, mask, 0.1)
    assert found.tolist() == pytest.approx(
        [pytest.approx([-0.05, 0.1, 9.8]), pytest.approx([-0.1, -4.3, 0.0])]
    )


def test_advantages_by_hand() -> None:
    """δ = (1 + 0.5·2 − 1, 0 + 0.5·4 − 2, 3 − 4) = (1, 0, −1), and γλ = 0.4."""
    found, returns = advantages(
        rows([1.0, 0.0, 3.0]), rows([1.0, 2.0, 4.0]), rows([1, 1, 1]), 0.5, 0.8
    )
    assert found[0].tolist() == pytest.approx([1 + 0.4 * (0 + 0.4 * -1), 0.4 * -1, -1.0])
    assert returns[0].tolist() == pytest.approx([1 + 0.84, 2 - 0.4, 4 - 1.0])


def test_what_comes_after_an_answer_counts_for_nothing() -> None:
    rewards, values = rows([1.0, 2.0, 0.0]), rows([0.5, 0.25, 77.0])
    short = advantages(rewards[:, :2], values[:, :2], rows([1, 1]), 0.9, 0.7)
    padded = advantages(rewards, values, rows([1, 1, 0]), 0.9, 0.7)
    for one, other in zip(short, padded, strict=True):
        assert other[0, :2].tolist() == pytest.approx(one[0].tolist())
        assert other[0, 2] == 0


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_the_paper_s_sum_of_errors(gamma: float, lam: float) -> None:
    """A_t = Σ (γλ)^k δ_{t+k} (Schulman et al. 2015, equation 16)."""
    torch.manual_seed(3)
    rewards, values = torch.randn(2, 6), torch.randn(2, 6)
    mask = torch.ones(2, 6)
    found, returns = advantages(rewards, values, mask, gamma, lam)
    following = torch.cat([values[:, 1:], torch.zeros(2, 1)], 1)
    deltas = rewards + gamma * following - values
    for row in range(2):
        for t in range(6):
            own = sum((gamma * lam) ** k * float(deltas[row, t + k]) for k in range(6 - t))
            assert float(found[row, t]) == pytest.approx(own, abs=1e-5)
    if lam == 1.0:
        # Then the return is what was really earned from there on.
        assert returns[0, 0] == pytest.approx(
            sum(gamma**k * float(rewards[0, k]) for k in range(6)), abs=1e-5
        )


def test_whitened_numbers_have_mean_0_and_deviation_1_inside_the_mask() -> None:
    numbers, mask = rows([1.0, 5.0, 900.0], [3.0, 7.0, 900.0]), rows([1, 1, 0], [1, 1, 0])
    white = whiten(numbers, mask)
    inside = white[:, :2].flatten()
    assert float(inside.mean()) == pytest.approx(0, abs=1e-6)
    assert float(inside.std(correction=0)) == pytest.approx(1, rel=1e-4)
    assert white[:, 2].tolist() == [0, 0]
    kept = whiten(numbers, mask, shift=False)[:, :2]
    assert float(kept.mean()) == pytest.approx(4.0, rel=1e-5)


def test_numbers_that_are_all_the_same_stay_finite() -> None:
    assert whiten(rows([2.0, 2.0]), rows([1, 1])).tolist() == [[0.0, 0.0]]
    assert math.isfinite(float(whiten(rows([2.0]), rows([1]), shift=False)))
