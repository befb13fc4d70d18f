"""Whether a trial may start, as far as its memory is concerned. Pure."""

from dataclasses import dataclass

from core.engine.memory.jobs import Result, too_large
from core.memory.forecast import Forecast, Target, capacity, fit

EASY = 0.75
"""A trial whose estimate, with its guard band, is below this share of the capacity starts without a dry run: no formula
is that far off."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that a trial may get, and what is known of the trial's need on it."""

    uuid: str
    name: str
    """As a person calls it."""
    target: Target
    guard: float
    shape: str
    estimate: Forecast | None
    """By the closed form; None where there is none."""
    result: Result | None
    """What an adviser said about this shape, where one was asked."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about a trial's start."""

    gpus: frozenset[str] | None = None
    """Where it may start, by UUID; None for anywhere."""
    ask: Gpu | None = None
    """For which GPU an adviser is to be asked."""
    too_large: Gpu | None = None
    """The GPU with the most memory, where the trial is proven to fit none."""


ANYWHERE = Verdict()


def judge(gpus: tuple[Gpu, ...], wanted: int = 1) -> Verdict:
    """Decide from what is known for each of the GPUs that a trial may get, of which it is to have `wanted`.

    Without any GPU nothing speaks against a start.
    """
    if not gpus:
        return ANYWHERE
    unknown = [gpu for gpu in gpus if gpu.result is None and not _easy(gpu)]
    possible = [gpu for gpu in gpus if gpu not in unknown and not _too_large(gpu)]
    surely = [gpu for gpu in possible if _surely(gpu)]
    # Where enough surely fit it, those that it may just fit are left to others.
    chosen = surely if len(surely) >= wanted else possible
    if not possible and not unknown:
        return Verdict(frozenset(), too_large=max(gpus, key=_room))
    if unknown and len(possible) < wanted:
        chosen = []
    everywhere = len(chosen) == len(gpus)
    return Verdict(
        None if everywhere else frozenset(gpu.uuid for gpu in chosen),
        ask=max(unknown, key=_room, default=None),
    )


def best_forecast(gpu: Gpu) -> Forecast | None:
    """The most that is known about a trial's need on a GPU: the dry run's, else the closed form's."""
    proven = gpu.result.forecast if gpu.result is not None else None
    return proven or gpu.estimate


def _easy(gpu: Gpu) -> bool:
    """Whether the estimate alone leaves no doubt. Without an estimate a dry run could say nothing either."""
    if gpu.estimate is None:
        return True
    room = capacity(gpu.target, gpu.estimate.context)
    return gpu.estimate.needed * (1 + gpu.guard) < EASY * room


def _too_large(gpu: Gpu) -> bool:
    forecast = gpu.result.forecast if gpu.result is not None else None
    return forecast is not None and too_large(forecast, gpu.target)


def _surely(gpu: Gpu) -> bool:
    forecast = best_forecast(gpu)
    return forecast is None or fit(forecast, gpu.target, gpu.guard).fits


def _room(gpu: Gpu) -> int:
    return capacity(gpu.target, gpu.target.context or 0)
