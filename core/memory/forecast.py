"""What a training run needs of a device's memory, and whether that fits: the words that all tiers of forecasting share.

Three tiers answer the same question. The *estimate* (`closed_form`) is a sum of formulas, made in milliseconds without
torch. The *proof* (`prover`) is a dry run of the very step in a subprocess, replayed through a model of the caching
allocator. *Calibration* (`calibration`) holds both against what real trials measured. All sizes are bytes.
"""

from typing import Literal

import msgspec

from core.profile import Profile

GIB = 2**30
MIB = 2**20

GUARD_UNKNOWN = 0.08
"""What a forecast must leave free of the capacity, as a share of the forecast, on a device that never measured one."""
GUARD_CALIBRATED = 0.03
"""The same where enough trials measured what had been forecast."""
GUARD_CPU = 0.25
"""The same on the CPU, where the heap's gaps and what kernels take while they compute are not seen: 17 to 25 % of the
demo model's training (batch 128, fp32, torch 2.13), by the memory limits at which it runs out and goes through."""

AMPERE = (8, 0)
"""The first compute capability with bf16 and flash attention."""

Tier = Literal["estimate", "proof"]
Category = Literal[
    "weights", "adapters", "gradients", "optimizer", "activations", "logits", "workspace"
]
CATEGORIES: tuple[Category, ...] = (
    "weights", "adapters", "gradients", "optimizer", "activations", "logits", "workspace",
)  # fmt: skip
"""In the order in which a stacked bar shows them: what stays first, what comes and goes last."""
Moment = Literal["load", "forward", "backward", "optimizer", "eval", "save"]
"""A part of a run that has a peak of its own."""
MOMENTS: tuple[Moment, ...] = ("load", "forward", "backward", "optimizer", "eval", "save")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A device that a run is forecast for."""

    kind: Literal["cuda", "cpu"]
    name: str = ""
    """As the driver names it."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability; None where it is not known."""
    total: int
    """The device's memory."""
    free: int
    """What this process may take of it, its own context included: the total without what others hold."""
    limit: int | None = None
    """A cap on what the allocator may take (memory.limit_gib); None without one."""
    context: int | None = None
    """What the process holds outside of the allocator, where it was measured: CUDA's context and libraries; on the CPU
    the process itself. None takes a typical value."""
    expandable: bool = False
    """Whether the allocator works with expandable segments."""
    flash_attention: bool = False
    """Whether the flash-attn package is there."""
    gpus: int = 1
    """GPUs of this machine that a trial may have, this one among them."""

    @property
    def assumed_capability(self) -> tuple[int, int]:
        """The compute capability that is gone by: Ampere's where it is not known."""
        return self.capability or AMPERE


class Lengths(msgspec.Struct, frozen=True):
    """The longest rows in tokens: what the largest batch is as wide as."""

    train: int
    evaluation: int
    """0 where nothing is evaluated on."""
    measured: bool = False
    """Whether they come from the data; else they are data.cutoff_len, which rows may stay far below of."""
    padded: bool = True
    """Whether a batch may hold padding: not where all rows have one length, a multiple of what batches are padded to.
    Attention makes a mask of padding, and takes another kernel for it."""
    learnt: int = 0
    """The most tokens that are learnt of one row of the data, of a pair of both answers; 0 where that was not counted,
    and all may be."""

    @staticmethod
    def bound(profile: Profile) -> "Lengths":
        """The longest that rows can be: data.cutoff_len."""
        length = profile.data.cutoff_len
        return Lengths(length, length if profile.has_validation() else 0)


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs at most."""

    tier: Tier
    allocated: int
    """The most that tensors hold at once, each rounded up to the allocator's 512 bytes."""
    reserved: int
    """The most that the allocator takes from the device when nothing limits it."""
    needed: int
    """The smallest capacity of the allocator at which the run goes through: at least `allocated`."""
    context: int
    """What the process holds besides: CUDA's context and libraries; on the CPU the process itself."""
    parts: dict[Category, int]
    """What holds the memory at the peak; sums to `allocated`."""
    moments: dict[Moment, int]
    """The most allocated in each part of the run."""
    peak: Moment
    """In which part it peaks."""
    peak_step: int = 1
    """In which update, counted from 1; an evaluation belongs to the update before it, loading is 0."""
    notes: tuple[str, ...] = ()
    """What the method cannot see of this run, as sentences. A dry run with notes proves nothing: it is an estimate."""

    @property
    def total(self) -> int:
        """What the device has to have free for this process."""
        return self.needed + self.context

    @property
    def dominant(self) -> Category:
        """What holds the most at the peak."""
        return max(CATEGORIES, key=lambda category: self.parts.get(category, 0))


class Fit(msgspec.Struct, frozen=True):
    """Whether a forecast fits a device."""

    fits: bool
    capacity: int
    """What the allocator may take there."""
    headroom: int
    """What is left of the capacity, without the guard band; negative where it does not fit."""
    guard: float
    """The share of `needed` that had to stay free."""
    proven: bool
    """Whether a dry run says so, and not a sum."""


def capacity(target: Target, context: int) -> int:
    """What the allocator may take on `target` by a process that holds `context` besides."""
    left = max(0, target.free - context)
    return left if target.limit is None else min(left, target.limit)


def fit(forecast: Forecast, target: Target, guard: float = GUARD_UNKNOWN) -> Fit:
    """Hold a forecast against a device; `guard` is the share of it that has to stay free besides."""
    room = capacity(target, forecast.context)
    return Fit(
        fits=forecast.needed * (1 + guard) <= room,
        capacity=room,
        headroom=room - forecast.needed,
        guard=guard,
        proven=forecast.tier == "proof",
    )
