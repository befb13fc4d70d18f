"""How far a profile can go on a device, and the smallest device that it can go on."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from core.memory.closed_form import estimate
from core.memory.fixes import Prove
from core.memory.forecast import GIB, GUARD_UNKNOWN, Forecast, Lengths, Target, fit
from core.memory.models.shape import Architecture
from core.memory.prover import ProofError
from core.profile import Profile

COMMON_GPUS: dict[int, float] = {
    8: 7.6, 11: 10.7, 12: 11.6, 16: 14.5, 20: 19.6, 24: 22.0, 32: 31.3, 40: 39.4, 48: 44.3, 80: 79.1, 96: 93.0,
    141: 139.7, 180: 178.0, 192: 184.0,
}  # fmt: skip
"""GPUs by what they are sold as, in GB, and the GiB that CUDA gives to programs on the scarcest of each size: drivers
keep some, and memory with error correction another sixteenth (16: T4; 24: A10 and L4; 48: A40 and L40S)."""

MOST_BATCH = 4096
LONGEST = 1_048_576
STEP = 64
"""Sequences are told in multiples of this."""
MOST_PROOFS = 3
NEAR = 0.02
"""Nearer to the boundary than this no further dry run is worth its seconds."""


class Bound(msgspec.Struct, frozen=True):
    """The largest value that fits."""

    value: int
    """0 where not even the least does."""
    proven: bool
    """Whether a dry run went through with it."""
    most: bool = False
    """Whether it is the largest that a profile can hold, so that more might fit."""


def largest_batch(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
    prove: Prove | None = None,
    *,
    guard: float = GUARD_UNKNOWN,
    bias: float = 1.0,
) -> Bound:
    """The most rows at once that fit, with everything else as it is; the effective batch grows with it.

    `bias` is what a dry run of the profile needs as a share of what the closed form says, where that is known.
    """

    def made(size: int) -> Profile:
        return _with(profile, per_device_train_batch_size=size)

    def forecast(size: int) -> Forecast:
        return estimate(made(size), architecture, target, lengths)

    return _largest(made, forecast, target, guard, prove, MOST_BATCH, 1, bias)


def longest_sequence(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
    prove: Prove | None = None,
    *,
    guard: float = GUARD_UNKNOWN,
    bias: float = 1.0,
) -> Bound:
    """The longest rows that fit, in tokens, with everything else as it is; told in multiples of 64.

    `bias` as for `largest_batch`. `prove` must not be bound to shorter lengths: rows are taken to be as long as
    data.cutoff_len lets them be.
    """

    def made(size: int) -> Profile:
        table = profile.data.model_copy(update={"cutoff_len": size})
        return replace(profile, data=table)

    def forecast(size: int) -> Forecast:
        evaluation = size if lengths.evaluation else 0
        rows = msgspec.structs.replace(lengths, train=size, evaluation=evaluation)
        return estimate(made(size), architecture, target, rows)

    return _largest(made, forecast, target, guard, prove, LONGEST, STEP, bias)


def smallest_gpu(forecast: Forecast, guard: float = GUARD_UNKNOWN) -> int | None:
    """The smallest of the common sizes of GPUs (GB) that the run fits with the guard band; None where it needs more."""
    needed = forecast.needed * (1 + guard) + forecast.context
    return next((size for size, usable in COMMON_GPUS.items() if needed <= usable * GIB), None)


def _with(profile: Profile, **changes: int) -> Profile:
    # A value inside of its bounds needs no check of the whole profile, which a bisection would make twenty times.
    return replace(profile, train=profile.train.model_copy(update=changes))


def _largest(
    made: Callable[[int], Profile],
    forecast: Callable[[int], Forecast],
    target: Target,
    guard: float,
    prove: Prove | None,
    most: int,
    step: int,
    bias: float,
) -> Bound:
    """The largest multiple of `step` up to `most` that fits: bisected by the closed form, moved by dry runs."""

    def fits(size: int) -> bool:
        return fit(_scaled(forecast(size), bias), target, guard).fits

    found = _bisect(fits, most, step)
    best = 0
    for _ in range(MOST_PROOFS if prove is not None else 0):
        assert prove is not None
        if found == 0 or found <= best:
            break
        (result,) = prove([made(found)])
        if isinstance(result, ProofError) or result.tier != "proof":
            break
        bias = result.needed / max(1, forecast(found).needed)
        through = fit(result, target, guard).fits
        best = max(best, found) if through else best
        # One that does not fit by a little is followed by one that is smaller by enough to tell.
        ceiling = most if through else min(found - step, int(found * (1 - NEAR)))
        found = _bisect(fits, ceiling, step)
        if best and found <= best * (1 + NEAR):
            break
    return Bound(best or found, best > 0, (best or found) == most)


def _bisect(fits: Callable[[int], bool], most: int, step: int) -> int:
    """The largest multiple of `step` up to `most` for which `fits` holds; below one that fits, all do."""
    if most < step or not fits(step):
        return 0
    low, high = 1, max(1, most // step)
    if fits(high * step):
        return high * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle)
    return low * step


def _scaled(forecast: Forecast, bias: float) -> Forecast:
    return msgspec.structs.replace(forecast, needed=int(forecast.needed * bias))
