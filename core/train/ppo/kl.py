"""How strongly PPO holds a policy to its reference."""

HORIZON = 10_000
"""Answers over which the weight of the penalty may change by a factor of about e^0.2 (TRL's default, from the code of
Ziegler et al. 2019)."""
_MOST = 0.2
"""Errors count up to this share of the target."""


def adapted(coefficient: float, kl: float, target: float, answers: int) -> float:
    """The weight of the KL penalty after `answers` answers whose mean divergence was `kl` (nats an answer).

    β ← β (1 + K e), e = clip((KL − target) / target, ±0.2) (Ziegler et al. 2019, arXiv 1909.08593, section 2.2). K is
    answers / horizon, as in the paper's code, and at most 1: however many answers a round has, one says no more than
    the error's sign. A weight of 0 stays 0: no KL control.
    """
    error = max(-_MOST, min(_MOST, (kl - target) / target))
    return coefficient * (1 + error * min(1.0, answers / HORIZON))
