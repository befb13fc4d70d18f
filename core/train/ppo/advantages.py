"""What each token of an answer earned, and by how much that is more than was expected.

All tensors are answers × tokens, float; `mask` is 1 where an answer has a token, and these come first in each row.
"""

from typing import Any

import torch

_LEAST_VARIANCE = 1e-8
"""Keeps a batch of equal numbers from being divided by zero."""


def token_rewards(scores: Any, log_ratios: Any, mask: Any, kl_coef: float) -> Any:
    """The reward of each token: minus `kl_coef` × log(policy / reference), and at the last token the answer's score.

    `scores` has one number an answer, `log_ratios` one a token. (Ziegler et al. 2019, arXiv 1909.08593, equation 2,
    with the penalty given where it arises.)
    """
    rewards = -kl_coef * log_ratios * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(last)), last] += scores
    return rewards


def advantages(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> tuple[Any, Any]:
    """Generalised advantage estimates, and the returns that the value head is to learn (advantage + value).

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γ λ A_{t+1}, where all is 0 after the last token (Schulman et al.
    2015, arXiv 1506.02438, equation 16).
    """
    values = values * mask
    found = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for at in reversed(range(rewards.shape[1])):
        after = values[:, at + 1] if at + 1 < rewards.shape[1] else torch.zeros_like(following)
        delta = rewards[:, at] + gamma * after - values[:, at]
        following = (delta + gamma * lam * following) * mask[:, at]
        found[:, at] = following
    return found, (found + values) * mask


def whiten(numbers: Any, mask: Any, *, shift: bool = True) -> Any:
    """The masked numbers with deviation 1, and mean 0 where `shift`; 0 outside the mask."""
    count = mask.sum()
    mean = (numbers * mask).sum() / count
    variance = ((numbers - mean) ** 2 * mask).sum() / count
    white = (numbers - mean) * torch.rsqrt(variance + _LEAST_VARIANCE)
    return (white if shift else white + mean) * mask
