"""PPO's losses: sums over tokens (answers × tokens, float), to be divided by how many an update has."""

from typing import Any

import torch


def policy_loss(
    logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, clip: float
) -> tuple[Any, Any]:
    """The clipped objective, negated, and how many tokens it holds back, both summed.

    Σ max(−A r, −A clip(r, 1 ± clip)) with r = π / π_old (Schulman et al. 2017, arXiv 1707.06347, equation 7). A token
    counts as clipped where r has left 1 ± clip.
    """
    ratio = torch.exp((logprobs - old_logprobs) * mask)
    held = ratio.clamp(1 - clip, 1 + clip)
    losses = torch.maximum(-advantages * ratio, -advantages * held)
    outside = ((ratio - 1).abs() > clip).float()
    return (losses * mask).sum(), (outside * mask).sum()


def value_loss(values: Any, old_values: Any, returns: Any, mask: Any, clip: float) -> Any:
    """Half the squared error of the value head, summed; a value gains nothing from moving by more than `clip`.

    Σ ½ max((V − R)², (clip(V, V_old ± clip) − R)²), as in OpenAI's PPO2 and in TRL.
    """
    held = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    errors = torch.maximum((values - returns) ** 2, (held - returns) ** 2)
    return 0.5 * (errors * mask).sum()
