"""A learning-rate range test without a disk: what it has logged is set by the test."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.search.lr_range import read
from core.study.files import RangeTest
from tui.range_test import RangeView

FOLDER = Path("/studies/sft-night-lr-range")
TEST = RangeTest(1e-7, 1.0, 100)


def curve(count: int = 100) -> tuple[tuple[float, float], ...]:
    """The first `count` points of a test that learns from 1e-4 on and is lost at 0.05."""
    points, loss = [], 3.2
    for i in range(count):
        rate = TEST.low * (TEST.high / TEST.low) ** (i / (TEST.steps - 1))
        loss -= 0.09 * min(1.0, rate / 3e-3) * max(0.0, loss - 1.6)
        if rate > 0.05:
            loss = loss * 1.3 + 0.1
        points.append((rate, loss + 0.04 * math.sin(7.0 * i) if loss < 60 else math.nan))
    return tuple(points)


def range_view(count: int = 100, *, ended: bool | None = None) -> RangeView:
    """A test that has logged `count` points, over where it has logged all of them."""
    over = count >= TEST.steps if ended is None else ended
    points = curve(count)
    return RangeView(
        folder=FOLDER,
        test=TEST,
        points=points,
        step=count,
        status="completed" if over else "running",
        ended=over,
        reading=read(points) if points else None,
    )


@dataclass
class FakeWatch:
    """Shows one view until another is set; counts how often it was looked at."""

    view: RangeView = field(default_factory=lambda: range_view(60))
    looks: int = 0

    def look(self) -> RangeView:
        self.looks += 1
        return self.view

    def fail(self, reason: str) -> None:
        """Let the test end without having run."""
        self.view = replace(
            self.view, status="failed", reason=reason, ended=True, points=(), reading=None
        )
