"""Notices an attempt that logs nothing any more: a hanging collective, a dead disk, a stuck download.

A long evaluation, a long save and slow loading are silent too and nothing is wrong with them. An evaluation is given
the time that training on as many rows would take; a save is known by the files that it writes, loading by the lines in
the worker's log. Silence is measured by the monotonic clock, so that setting the machine's clock changes nothing, and
only while somebody looks: a daemon that was stopped itself does not blame the trial for it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from core.study.files import RunInfo
from core.study.metrics import Point
from core.study.store import TrialFolder

PATIENCE = 300.0
"""Seconds without a log before an attempt may count as stalled."""

MEDIAN_LOGS = 10.0
"""And so many times as long as it takes from one log to the next, as a median."""

FIRST_PATIENCE = 3.0
"""Before the first log so many times longer: models are large, disks slow, and how long a log takes is not known."""

BLIND = 30.0
"""Seconds between two looks after which the time between them is not counted as silence."""

_REMEMBERED = 21
_LISTENING = 0.2
"""From this share of the patience on the files are looked at for signs of life."""


class Silence:
    """Listens to one attempt. `evaluation`: how many updates an evaluation is worth."""

    def __init__(
        self, folder: TrialFolder, *, stalled: bool = False, patience: float = PATIENCE
    ) -> None:
        """`stalled`: it had stalled when it was looked at last, so its next log is news."""
        self.evaluation = 0.0
        self._folder = folder
        self._patience = patience
        self._stalled = stalled
        self._last: Point | None = None
        self._news = False
        self._since: float | None = None
        self._looked: float | None = None
        self._life: tuple[object, ...] | None = None
        self._between: deque[float] = deque(maxlen=_REMEMBERED)
        self._updates: deque[float] = deque(maxlen=_REMEMBERED)

    def heard(self, point: Point) -> None:
        """It has logged `point`."""
        self._news = True
        if point.loss is None and point.grad_norm is None:
            return
        last, self._last = self._last, point
        # A clock that was set back makes one interval negative.
        if last is not None and point.step > last.step and point.t > last.t:
            self._between.append(point.t - last.t)
            self._updates.append((point.t - last.t) / (point.step - last.step))

    def look(self, now: float) -> str | None:
        """Why it counts as stalled, once; "" once it logs again; None while nothing has changed. `now`: monotonic."""
        blind = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        if self._news or self._since is None:
            ended = self._stalled and self._news
            self._news, self._since, self._life = False, now, None
            self._stalled = self._stalled and not ended
            return "" if ended else None
        if blind > BLIND:
            self._since += blind
        if self._stalled or now - self._since < _LISTENING * self._patience:
            return None
        if self._shows_life():
            self._since = now
        quiet = now - self._since
        if quiet <= self._limit():
            return None
        self._stalled = True
        return self._words(quiet)

    def _limit(self) -> float:
        """Seconds of silence that are still nothing to tell."""
        if self._last is None:
            return FIRST_PATIENCE * self._patience
        usual = MEDIAN_LOGS * _median(self._between)
        return max(self._patience, usual) + self.evaluation * _median(self._updates)

    def _shows_life(self) -> bool:
        """Whether files have changed since the last look that change while it saves or loads."""
        before, self._life = self._life, tuple(self._files())
        return before is not None and before != self._life

    def _files(self) -> Iterator[tuple[str, int, int]]:
        for folder in (self._folder.checkpoints, self._folder.output):
            yield from _sizes(folder, depth=2)
        if self._last is None:
            yield from _sizes(self._folder.log, depth=0)

    def _words(self, quiet: float) -> str:
        minutes = f"{quiet / 60:.0f} min" if quiet >= 90 else f"{quiet:.0f} s"
        if self._last is None:
            return f"it has logged nothing since it started, and for {minutes} shown no other sign of life"
        usual = _median(self._between)
        every = f"; it logged every {usual:.2g} s before" if usual else ""
        return f"nothing logged for {minutes}, since step {self._last.step}{every}"


def evaluation_updates(run: RunInfo | None) -> float:
    """How many updates have as many rows as an evaluation; 0 where that is not known."""
    if run is None or run.train_rows <= 0 or run.steps_per_epoch <= 0:
        return 0.0
    return run.eval_rows * run.steps_per_epoch / run.train_rows


def _sizes(path: Path, depth: int) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of what lies in a folder; nothing where there is none."""
    try:
        if depth and path.is_dir():
            for entry in sorted(os.listdir(path)):
                yield from _sizes(path / entry, depth - 1)
            return
        found = path.stat()
    except OSError:
        return
    yield path.name, found.st_size, found.st_mtime_ns


def _median(values: deque[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
