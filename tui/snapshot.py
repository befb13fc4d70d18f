"""Frozen views of a study: what the screens draw, computed by pure functions from what was read.

A view never changes. A row that is the same as before is the same object, so that a screen need
only look at those that are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from core.engine import costs, standing
from core.search.cost import expected_share
from core.search.halving import HalvingSettings, after_warmup
from core.search.ranking import Ranked
from core.study.events import RungDecided, StudyStatus
from core.study.state import ENDED, Notice, Trial, TrialStatus
from core.values import Scalar
from tui.curve import Curve
from tui.outcome import Outcome, outcome
from tui.recipe_view import RecipePlace

NO_CURVES: Mapping[int, Curve] = MappingProxyType({})
EngineState = Literal["running", "missing", "idle"]
"""`missing`: there is work to do and no daemon to do it. `idle`: no daemon, and none is needed."""


@dataclass(frozen=True, slots=True)
class StudyReading:
    """A study as it was read at one moment, before anything was worked out from it."""

    folder: Path
    name: str
    status: StudyStatus
    reason: str
    rank_by: str
    planned: int
    created: float
    updated: float
    trials: tuple[Trial, ...]
    engine: EngineState
    notices: tuple[Notice, ...] = ()
    curves: Mapping[int, Curve] = field(default_factory=lambda: NO_CURVES)
    """Of the live trials, and of those whose curve was asked for."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """The profile's values by parameter name, as the file has them."""
    log: LogTail | None = None
    problem: str = ""
    """Why the study cannot be read any more; everything else is as it was before."""
    direction: Literal["min", "max"] = "min"
    """Whether a small or a large value of `rank_by` is good."""
    strategy: str = "random"
    stopping: Literal["none", "halving", "asha"] = "none"
    to_come: int = 0
    """How many trials the search will still propose by itself."""
    search_on: bool = True
    choice: str = ""
    """Why the search is run so, in a line."""
    decisions: tuple[RungDecided, ...] = ()
    """What was decided at the rungs, oldest first."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """The profile's [search] as the file has it."""
    space: Mapping[str, Any] = field(default_factory=dict)
    """The search space as the profile's file has it: parameter name → a list, or a table of a range."""
    recipe: RecipePlace | None = None
    """Of which recipe it is a step, where it is one."""
    results: bool = False
    """Whether somebody looks at what the study found, which takes longer to work out than the rest."""


@dataclass(frozen=True, slots=True)
class LogTail:
    """The last lines of a trial's log."""

    trial: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as a row of the table; losses in nats per token, memory in bytes, times in seconds."""

    trial: Trial
    curve: Curve | None
    step: int
    total_steps: int
    loss: float | None
    eval_loss: float | None
    peak_memory: int | None
    eta: float | None
    """Time still to train; None where it is not known or the trial is not live."""
    place: int | None
    """From 1, the best; None where it has no place."""
    value: float | None = None
    """What the study ranks by, as far as the trial has come; None where it is not known yet."""

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def status(self) -> TrialStatus:
        return self.trial.status

    @property
    def progress(self) -> float | None:
        """The share of its steps that is done, 0 … 1."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None


@dataclass(frozen=True, slots=True)
class Tally:
    """What follows from the journal alone, counted once for each change of it."""

    index: Mapping[int, int]
    """Where each trial stands among the reading's."""
    live: tuple[int, ...]
    done: int
    waiting: int
    """Trials that wait, those that are not planned yet included."""
    probe_seconds: float | None
    """How long a whole probe takes."""
    seconds_to_start: float | None
    """How long what is yet to start takes, one after another; None where nothing tells."""
    searched: tuple[str, ...]
    ranked: tuple[Ranked, ...]
    places: Mapping[int, int | None]


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study as the screens show it."""

    reading: StudyReading
    rows: tuple[TrialRow, ...]
    """In the order in which they were planned."""
    by_number: Mapping[int, TrialRow]
    tally: Tally
    searched: tuple[str, ...]
    """The parameters in which trials differ."""
    done: int
    """Trials that have ended."""
    planned: int
    live: int
    best: TrialRow | None
    eta: float | None
    """Seconds until the last planned trial ends, at the pace so far."""
    ranked: tuple[Ranked, ...]
    outcome: Outcome | None = None
    """What the study found; None while nobody looks at it."""

    @property
    def folder(self) -> Path:
        return self.reading.folder

    @property
    def status(self) -> str:
        """The study's state in a word or three; says so when the engine or the study is gone."""
        if self.reading.problem:
            return "cannot be read"
        return "engine not running" if self.reading.engine == "missing" else self.reading.status


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study as a row of the list of studies."""

    folder: Path
    name: str
    status: str
    done: int = 0
    planned: int = 0
    live: int = 0
    best: float | None = None
    best_trial: int | None = None
    updated: float = 0.0
    problem: str = ""

    @property
    def key(self) -> str:
        return str(self.folder)


def study_view(reading: StudyReading, now: float, before: StudyView | None = None) -> StudyView:
    """Work out everything that is shown of a study; rows that did not change are those of `before`.

    Only the trials that the journal told something of and those with a curve are looked at: of
    two thousand trials that is a few.
    """
    if before is not None and not _goes_on(reading.trials, before.reading.trials):
        before = None
    tally = _tally(reading, before)
    looked_at: Iterable[int] = tally.index
    by_number: dict[int, TrialRow] = {}
    if before is not None:
        by_number = dict(before.by_number)
        looked_at = (*reading.curves, *tally.live, *_told_of(reading, tally, before))
    old = before.by_number if before is not None else {}
    changed = before is None or tally is not before.tally
    for number in looked_at:
        place = tally.index.get(number)
        if place is None:
            continue
        row = _row(
            reading.trials[place],
            reading.curves.get(number),
            tally.places.get(number),
            now,
            old.get(number),
            reading.rank_by,
        )
        changed = changed or row is not old.get(number)
        by_number[number] = row
    same = before is not None and not changed
    rows = before.rows if before is not None and same else tuple(by_number.values())
    return StudyView(
        reading=reading,
        rows=rows,
        by_number=by_number,
        tally=tally,
        searched=tally.searched,
        done=tally.done,
        planned=max(reading.planned, len(rows)),
        live=len(tally.live),
        best=next((by_number[r.trial] for r in tally.ranked[:1] if r.place == 1), None),
        eta=study_eta([by_number[n] for n in tally.live], tally, reading),
        ranked=tally.ranked,
        outcome=_outcome(reading, tally, before) if reading.results else None,
    )


def _outcome(reading: StudyReading, tally: Tally, before: StudyView | None) -> Outcome:
    """What the study found: that of `before` as long as no trial has come further."""
    known = before.outcome if before is not None else None
    if known is not None and before is not None and before.tally is tally:
        return known
    fresh = outcome(
        reading.trials,
        tally.ranked,
        metric=reading.rank_by,
        direction=reading.direction,
        planned=reading.planned,
        space=reading.space,
        profile=reading.profile,
    )
    return fresh if known != fresh or known is None else known


def _goes_on(trials: Sequence[Trial], before: Sequence[Trial]) -> bool:
    """Whether these are the trials of `before`, as they are now, and perhaps more."""
    return len(trials) >= len(before) and all(
        trial is old or trial.number == old.number
        for trial, old in zip(trials, before, strict=False)
    )


def _told_of(reading: StudyReading, tally: Tally, before: StudyView) -> list[int]:
    """The trials that are not what they were, or have another place."""
    known, trials = before.reading.trials, reading.trials
    if trials is known:
        return []
    told = [t.number for t, old in zip(trials, known, strict=False) if t is not old]
    told += [t.number for t in trials[len(known) :]]
    if tally.places is not before.tally.places:
        places = before.tally.places
        told += [number for number, place in tally.places.items() if place != places.get(number)]
        told += [number for number in places if number not in tally.places]
    return told


def _same_ranking(reading: StudyReading, before: StudyView) -> bool:
    """Whether no trial that ended, before or now, is another than it was."""
    now, then = reading, before.reading
    if (now.rank_by, now.direction) != (then.rank_by, then.direction):
        return False
    known, trials = before.reading.trials, reading.trials
    pairs = zip(trials, known, strict=False)
    if any(t is not old and (t.ended or old.ended) for t, old in pairs):
        return False
    return not any(t.ended for t in trials[len(known) :])


def _tally(reading: StudyReading, before: StudyView | None) -> Tally:
    trials = reading.trials
    if before is not None and before.reading.trials is trials:
        return before.tally
    old = before.tally if before is not None else None
    if old is not None and before is not None and _same_ranking(reading, before):
        ranked, places = old.ranked, old.places
    else:
        ranked = tuple(rank_trials(trials, reading.rank_by, reading.direction))
        places = {r.trial: r.place for r in ranked}
    # What a trial was to try is written once, when it is planned.
    fresh = old is None or len(old.index) != len(trials)
    searched = searched_keys(trials) if old is None or fresh else old.searched
    each = costs.probe_seconds(trials)
    return Tally(
        index={t.number: place for place, t in enumerate(trials)},
        live=tuple(t.number for t in trials if t.live),
        done=sum(1 for t in trials if t.status in ENDED),
        waiting=sum(1 for t in trials if t.status == "queued") + reading.to_come,
        probe_seconds=each,
        seconds_to_start=_seconds_to_start(reading, each),
        searched=searched,
        ranked=ranked,
        places=places,
    )


def _row(
    trial: Trial,
    curve: Curve | None,
    place: int | None,
    now: float,
    old: TrialRow | None,
    rank_by: str,
) -> TrialRow:
    if curve is None and old is not None and not trial.live:
        curve = old.curve
    same = old is not None and old.trial is trial and old.curve is curve and old.place == place
    if old is not None and same and not trial.live:
        return old
    total = trial.total_steps
    step, loss, eval_loss, peak = trial.step, trial.loss, trial.eval_loss, trial.peak_memory
    if curve is not None and curve.step:
        total = total if trial.ended and total else (curve.total_steps or total)
        step = curve.step if trial.live or not step else step
        loss = curve.loss if trial.live or loss is None else loss
        eval_loss = curve.eval_loss if trial.live or eval_loss is None else eval_loss
        peak = max(peak or 0, curve.peak_memory or 0) or None
    eta = _trial_eta(curve, step, _aim(curve, total), now) if trial.live else None
    if trial.live:
        known = {
            **(curve.logged if curve is not None else {}),
            "eval_loss": eval_loss,
            "loss": loss,
        }
        value = known.get(rank_by)
    else:
        value = standing.value_of_trial(trial, rank_by)
    row = TrialRow(trial, curve, step, total, loss, eval_loss, peak, eta, place, value)
    return old if old == row else row


def _aim(curve: Curve | None, total: int) -> int:
    """The update at which the attempt that runs ends: its rung, or the end of the trial."""
    run = curve.run if curve is not None else None
    return run.rung_step if run is not None and run.rung_step is not None else total


def _trial_eta(curve: Curve | None, step: int, total: int, now: float) -> float | None:
    if curve is None or not curve.steps_per_s or not total or curve.last_t is None:
        return None
    return max(0.0, (total - step) / curve.steps_per_s - max(0.0, now - curve.last_t))


def study_eta(live: Sequence[TrialRow], tally: Tally, reading: StudyReading) -> float | None:
    """Seconds until the work that is planned is done, None where nothing tells.

    What the slowest live trial still needs up to where it was sent, and what is yet to start,
    shared among as many as run at once now.
    """
    if reading.status != "running" or reading.engine == "missing":
        return None
    ahead, each = tally.seconds_to_start, tally.probe_seconds
    known = [row.eta for row in live if row.eta is not None]
    if not known and each is not None:
        known = [costs.to_run(row.trial) * each for row in live if row.trial.kind == "probe"]
    if ahead is None or (live and not known) or not (live or ahead):
        return None
    return max(known, default=0.0) + ahead / max(1, len(live))


def _seconds_to_start(reading: StudyReading, each: float | None) -> float | None:
    """How long what is yet to start takes, one after another; `each`: how long a whole probe takes.

    Trials that wait at a rung or were not compared yet count with the share of a probe that the
    early stopping is expected to leave them.
    """
    trials = reading.trials
    searched = reading.to_come + sum(t.kind == "probe" and t.source != "confirm" for t in trials)
    confirm = reading.search.get("confirm", 0) if searched and reading.search_on else 0
    probes = costs.still_to_start(
        trials,
        to_come=reading.to_come,
        confirm=confirm if isinstance(confirm, int) else 0,
        expected_share=expected_share(_halving(reading), reading.stopping, max(1, searched)),
    )
    trainings = sum(t.kind == "full" and t.status == "queued" for t in trials)
    took = [t.seconds for t in trials if t.kind == "full" and t.status == "completed"]
    if (probes and each is None) or (trainings and not took):
        return None
    return probes * (each or 0.0) + trainings * (sum(took) / len(took) if took else 0.0)


def _halving(reading: StudyReading) -> HalvingSettings:
    """The rule's settings; what somebody has made nonsense of in the file is left out."""
    search = reading.search
    numbers = {
        name: search[name]
        for name, least, most in (
            ("first_rung", 0, 1), ("reduction", 1, math.inf), ("finalists", 0, math.inf)
        )
        if isinstance(search.get(name), int | float) and least < search[name] < most
    }  # fmt: skip
    warmup = reading.profile.get("warmup_ratio")
    given = HalvingSettings(**numbers)
    if not isinstance(warmup, int | float) or not 0 < warmup < 1:
        return given
    return replace(given, first_rung=after_warmup(given.first_rung, warmup))


def searched_keys(trials: Sequence[Trial]) -> tuple[str, ...]:
    """The parameters in which the trials differ, in the order in which they first come up.

    The seeds of second runs are not what is searched.
    """
    trials = [t for t in trials if t.source != "confirm"]
    keys: dict[str, set[Scalar | None]] = {}
    for trial in trials:
        for key in trial.settings:
            keys.setdefault(key, set())
    if len(trials) > 1:
        for trial in trials:
            for key, seen in keys.items():
                seen.add(trial.settings.get(key))
        return tuple(key for key, seen in keys.items() if len(seen) > 1) or tuple(keys)
    return tuple(keys)


def rank_trials(
    trials: Sequence[Trial], rank_by: str, direction: Literal["min", "max"] = "min"
) -> list[Ranked]:
    """The probes in order, best first; those that did not complete have no place."""
    return standing.rank_trials((t for t in trials if t.ended), rank_by, direction)


def summarise(reading: StudyReading) -> StudySummary:
    """The row of a study in the list of studies."""
    ranked = rank_trials(reading.trials, reading.rank_by, reading.direction)
    best = next((r for r in ranked if r.place == 1), None)
    return StudySummary(
        folder=reading.folder,
        name=reading.name or reading.folder.name,
        status="engine not running" if reading.engine == "missing" else reading.status,
        done=sum(1 for t in reading.trials if t.ended),
        planned=max(reading.planned, len(reading.trials)),
        live=sum(1 for t in reading.trials if t.live),
        best=best.value if best else None,
        best_trial=best.trial if best else None,
        updated=reading.updated,
    )
