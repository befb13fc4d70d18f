"""How long a worker took to its first step, and on what."""

import os
import time
from pathlib import Path


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
