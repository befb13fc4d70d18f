"""A learning-rate range test as a person watches it: an ordinary study of one trial, read from its folder."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from core.search.lr_range import RangeReading, read
from core.study.files import RangeTest, read_record
from core.study.metrics import MetricsTail
from core.study.state import StudyState, Trial, TrialStatus
from core.study.store import StudyError, StudyReader
from tui import words
from tui.range_picture import Cell, Marks, picture, rate_text

TRIAL = 1
"""The number of the one trial of a range test."""
_BOUNDS = re.compile(
    r"(\S+?)\s*(?:\.\.|to)\s*(\S+?)(?:\s*,\s*|\s+in\s+|\s+)(\d+)\s*(?:steps|updates)?",
    re.IGNORECASE,
)
HOW_TO = "write two rates and a number of updates, as 1e-7 .. 1, 100 updates"


@dataclass(frozen=True, slots=True)
class RangeView:
    """A range test at one moment."""

    folder: Path
    test: RangeTest
    points: tuple[tuple[float, float], ...] = ()
    """(learning rate, training loss), in the order in which they were logged."""
    step: int = 0
    status: TrialStatus = "queued"
    reason: str = ""
    ended: bool = False
    problem: str = ""
    """Why nothing more can be read."""
    reading: RangeReading | None = None
    """What the points say; None while there are none."""

    @property
    def useful(self) -> bool:
        """Whether a range is suggested that can be taken over."""
        return self.ended and self.reading is not None and self.reading.useful

    @property
    def failed(self) -> bool:
        """Whether it has ended without having been run."""
        return self.ended and self.status not in ("completed", "diverged", "stopped")


class RangeFollower:
    """Reads a range test again and again; each look reads only what was added."""

    def __init__(self, folder: Path) -> None:
        """Open the study.

        Raises:
            StudyError: there is no study, it is damaged, or it is no range test.
        """
        self.reader = StudyReader(folder)
        self._test = read_record(self.reader.folder.range_test, RangeTest)
        if self._test is None and not is_range_test(self.reader.state):
            raise StudyError(f"{folder} is no range test")
        self._tail = MetricsTail(self.reader.folder.trial(TRIAL).metrics)
        self._points: list[tuple[float, float]] = []
        self._step = 0
        self._attempt = 0

    def look(self) -> RangeView:
        """The test now. Never raises: what is wrong is the view's `problem`."""
        folder, test = self.reader.folder.path, self._test or RangeTest()
        problem = ""
        try:
            self.reader.poll()
        except StudyError as error:
            problem = str(error)
        for point in self._tail.poll():
            if point.attempt > self._attempt:
                self._points, self._attempt = [], point.attempt
            self._step = point.step
            if point.lr is not None and point.loss is not None:
                self._points.append((point.lr, point.loss))
        trial = self.reader.state.trials.get(TRIAL)
        if trial is None:
            return RangeView(folder, test, problem=problem or "the test has not begun yet")
        return RangeView(
            folder=folder,
            test=test,
            points=tuple(self._points),
            step=self._step,
            status=trial.status,
            reason=why(trial, self.reader.state),
            ended=trial.ended or bool(problem),
            problem=problem,
            reading=read(self._points) if self._points else None,
        )


def is_range_test(state: StudyState) -> bool:
    """Whether a study is a learning-rate range test."""
    trial = state.trials.get(TRIAL)
    return trial is not None and trial.kind == "range"


def why(trial: Trial, state: StudyState) -> str:
    """Why the test is in its state, in words."""
    return trial.reason or (state.reason if state.status != "running" else "")


def parse_bounds(text: str) -> RangeTest:
    """The test that a text asks for, as `1e-7 .. 1, 100 updates`.

    Raises:
        ValueError: the text does not say one; the message says what would.
    """
    match = _BOUNDS.fullmatch(text.strip())
    if match is None:
        raise ValueError(HOW_TO)
    try:
        low, high = float(match.group(1)), float(match.group(2))
    except ValueError:
        raise ValueError(HOW_TO) from None
    test = RangeTest(low=low, high=high, steps=int(match.group(3)))
    if test.problem:
        raise ValueError(test.problem)
    return test


def bounds_text(test: RangeTest) -> str:
    """A test as `parse_bounds` reads it."""
    return f"{rate_text(test.low)} .. {rate_text(test.high)}, {test.steps} updates"


def range_entry(reading: RangeReading) -> dict[str, object]:
    """The suggested range as an entry of the search space.

    Raises:
        ValueError: nothing is suggested.
    """
    if reading.low is None or reading.high is None:
        raise ValueError("the test suggests no range")
    return {"low": reading.low, "high": reading.high, "scale": "log"}


def view_picture(view: RangeView, size: tuple[int, int], *, ascii: bool) -> list[list[Cell]]:
    """The curve of a test with its marks in `size` (columns, rows) cells."""
    reading = view.reading
    smooth: tuple[tuple[float, float], ...] = ()
    marks = Marks()
    if reading is not None:
        smooth = tuple(zip(reading.rates, reading.losses, strict=False))
        marks = Marks(reading.steepest, reading.diverged_at, reading.low, reading.high)
    test = view.test
    return picture(view.points, smooth, marks, (test.low, test.high), size, ascii=ascii)


def progress_text(view: RangeView) -> str:
    """Where a test stands, in a line."""
    if view.problem:
        return view.problem
    if view.ended or not view.points:
        word = words.LOOKS[view.status].word
        return f"{word}: {view.reason}" if view.reason else word
    rate, loss = view.points[-1]
    value = words.loss(loss) if math.isfinite(loss) else str(loss)
    return f"update {view.step} of {view.test.steps}, rate {rate_text(rate)}, loss {value}"
