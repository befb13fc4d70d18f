"""What follows from a combination: the settings of its trial, with what the search holds or scales beside them."""

import math
from collections.abc import Mapping

from core.profile import Profile
from core.space_checks import ACCUMULATION, BATCH, active_part, deciding_values
from core.values import Scalar

Settings = dict[str, Scalar]


def derive(profile: Profile, sampled: Mapping[str, Scalar]) -> Settings:
    """The settings of the trial that stands for the combination `sampled`, which can run.

    Parameters without effect are left out. Where the search asks for it (and the space does not say otherwise):
    accumulation holds the effective batch, lora_alpha holds its ratio to lora_rank, and the learning rate is multiplied
    by √(effective batch / the profile's), as Adam bears it (Malladi et al. 2022, "On the SDEs and Scaling Rules for
    Adaptive Gradient Algorithms").
    """
    settings = active_part(deciding_values(profile.tables()), sampled)
    if profile.search.hold_effective_batch:
        settings |= _held_batch(profile, settings)
    if profile.search.hold_lora_ratio:
        settings |= _held_ratio(profile, settings)
    if profile.search.scale_rate_with_batch:
        settings |= _scaled_rate(profile, settings)
    return settings


def _held_batch(profile: Profile, settings: Settings) -> Settings:
    """The other factor of the effective batch; the two are whole numbers, or the combination could not run."""
    batch, accumulation = settings.get(BATCH), settings.get(ACCUMULATION)
    held = profile.batch_per_gpu()
    if isinstance(batch, int) and accumulation is None:
        return {ACCUMULATION: held // batch}
    if isinstance(accumulation, int) and batch is None:
        return {BATCH: held // accumulation}
    return {}


def _held_ratio(profile: Profile, settings: Settings) -> Settings:
    """Without an alpha of its own a profile's follows the rank by itself."""
    rank, alpha = settings.get("lora_rank"), profile.method.lora_alpha
    if not isinstance(rank, int) or "lora_alpha" in settings or alpha is None:
        return {}
    return {"lora_alpha": float(f"{alpha / profile.method.lora_rank * rank:.6g}")}


def _scaled_rate(profile: Profile, settings: Settings) -> Settings:
    batch = settings.get(BATCH, profile.train.per_device_train_batch_size)
    accumulation = settings.get(ACCUMULATION, profile.train.gradient_accumulation_steps)
    rate = settings.get("learning_rate", profile.train.learning_rate)
    times = float(batch) * float(accumulation) / profile.batch_per_gpu()
    if times == 1:
        return {}
    return {"learning_rate": float(f"{float(rate) * math.sqrt(times):.4g}")}
