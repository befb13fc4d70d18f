"""Losses of pairs of answers that TRL's DPO has not; log probabilities are means over an answer's tokens, nats."""

import math
from typing import Any

import torch
from torch.nn.functional import logsigmoid

NEEDS_NONE = frozenset({"orpo", "simpo"})
"""The values of alignment.pref_loss that compare with no reference."""


def odds_ratio_losses(chosen: Any, rejected: Any, beta: float) -> Any:
    """ORPO's losses, one a pair: the supervised loss on the chosen answer and `beta` times the odds ratio's (Hong et
    al. 2024, arXiv 2403.07691, equations 6 and 7, where beta is λ)."""
    odds = (chosen - rejected) - (_log_of_rest(chosen) - _log_of_rest(rejected))
    return -chosen - beta * logsigmoid(odds)


def simple_losses(chosen: Any, rejected: Any, beta: float, gamma: float) -> Any:
    """SimPO's losses, one a pair (Meng et al. 2024, arXiv 2405.14734, equation 6)."""
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def smoothing(margins: Any, beta: float, share: float) -> Any:
    """What the loss −log σ(βm) becomes more by where a `share` of the pairs is taken to be the wrong way round
    (conservative DPO: Mitchell 2023, A note on DPO with noisy preferences, equation 3), a mean over pairs.

    −(1 − ε) log σ(x) − ε log σ(−x) = −log σ(x) + εx, as log σ(x) − log σ(−x) = x.
    """
    return share * beta * margins.mean()


def _log_of_rest(log_probability: Any) -> Any:
    """log(1 − e^x) of x < 0, by whichever of two forms is exact there (Mächler 2012, Accurately Computing
    log(1 − exp(−|a|))). Of a probability that has been rounded to 1 it stays finite."""
    x = log_probability.clamp(max=-torch.finfo(log_probability.dtype).eps)
    near = x > -math.log(2)
    # Both forms are computed, and the one that is left out must not bring NaN into the gradient.
    small = torch.where(near, x, torch.full_like(x, -1.0))
    large = torch.where(near, torch.full_like(x, -1.0), x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
