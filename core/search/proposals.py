"""What the daemon and the process that proposes settings say to each other: one JSON object each way.

The daemon loads no sampler: `tunedeck _propose` reads a `ProposeRequest` on its input, prints a `ProposeReply` and
ends. All that it needs is in the request, so that nothing is lost with it and the same request gets the same reply.
"""

from typing import Literal

import msgspec

from core.values import Scalar

SeenState = Literal["running", "completed", "diverged", "oom", "failed"]
"""`running`: no value yet, or more to come (queued, running, waiting at a rung); `completed`: ended with a value, be it
at a rung where it was dropped."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One trial that exists, in the order of their numbers.

    `value` is of what the study ranks by, lower better (a metric that is to be high comes negated), `share` the part of
    the probe at which it was measured.
    """

    sampled: dict[str, Scalar]
    """The point of the space, as `Planned.sampled` has it."""
    value: float | None = None
    state: SeenState = "running"
    share: float = 0.0
    rungs: tuple[tuple[float, float], ...] = ()
    """(share, value) at every rung that it came to: trials are compared at a rung that most of them reached."""


class ProposeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the next `count` points of a profile's space."""

    profile: str
    """The study's profile, TOML."""
    trials: list[Seen]
    count: int = 1
    seed: int = 0


class ProposeReply(msgspec.Struct, frozen=True):
    """The next points to try; fewer than asked for where the space holds no others."""

    points: list[dict[str, Scalar]]
