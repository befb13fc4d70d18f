"""How long a worker took to its first step, and on what; and what its start can do without."""

import os
import sys
import time
from pathlib import Path

from core.profile import Profile
from core.train.model.source import needs_bitsandbytes

_WITH_TRL = ("rm", "dpo", "kto")
"""Stages whose Trainers are TRL's, which needs datasets."""


def hide_unused(profile: Profile) -> None:
    """Keep libraries from being imported that this run does not need and others import where they are installed.

    peft imports bitsandbytes, and that the whole of torch._inductor: 0.8 s that only a quantised model needs.
    transformers' Trainer imports datasets, and that pandas: 0.2 s, more where the disk is slow.
    """
    unused = [] if needs_bitsandbytes(profile) else ["bitsandbytes"]
    if profile.method.stage not in _WITH_TRL:
        unused.append("datasets")
    for name in unused:
        # None is Python's way to say that a module is not there.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


class Stopwatch:
    """Times the parts of a start, one after the other, from the moment that the process was started."""

    def __init__(self) -> None:
        self._start = time.monotonic() - _age()
        self._last = self._start
        self._parts: list[tuple[str, float]] = []

    def mark(self, part: str) -> None:
        """What ran since the last mark was `part`."""
        now = time.monotonic()
        self._parts.append((part, now - self._last))
        self._last = now

    def total(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._start

    def describe(self) -> str:
        """As "3.9 s (imports 2.1, model 0.9, data 0.3)"."""
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self._parts)
        return f"{self.total():.1f} s ({parts})"


def _age() -> float:
    """Seconds since this process was started, to a clock tick (usually 10 ms)."""
    # The name in field 2 may hold spaces and brackets; what follows its last bracket starts with field 3.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
