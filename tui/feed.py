"""One study, followed on the disk: its journal always, metrics only of the trials that need them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.study import store
from core.study.files import RunInfo, TrialForecast, read_record
from core.study.metrics import MetricsTail
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader
from tui.curve import LOSS, Curve, CurveBuilder
from tui.log_lines import log_lines
from tui.paths import short_path
from tui.recipe_view import RecipePlace, after_step, place_in_recipe
from tui.snapshot import EngineState, LogTail, StudyReading
from tui.study_facts import profile_document, profile_values, search_space, search_table

LOG_BYTES = 32_768
MOST_CURVES = 600
"""Curves of ended trials that are kept; each without its points takes less than a kilobyte."""
SPARKS_A_READ = 8
"""Ended trials whose metrics are read for a sparkline in one go: the rest waits for the next."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the screens need besides the journal."""

    whole: frozenset[int] = frozenset()
    """Trials whose every point is drawn."""
    measure: str = LOSS
    """What is drawn of them."""
    sparks: tuple[int, ...] = ()
    """Trials on the screen whose sparkline is drawn."""
    log: int | None = None
    """The trial whose log is shown."""
    memory: int | None = None
    """The trial whose memory is drawn."""
    results: bool = False
    """Whether what the study found is shown."""


@dataclass
class _Open:
    """A live trial's metrics file and what came of it."""

    tail: MetricsTail
    builder: CurveBuilder = field(default_factory=CurveBuilder)
    run: RunInfo | None = None
    forecast: TrialForecast | None = None
    curve: Curve | None = None


class DiskFeed:
    """Follows one study: its journal always, metrics only of the trials that need them."""

    def __init__(self, folder: Path) -> None:
        """Open the study.

        Raises:
            StudyError: there is no study, it is damaged, or a newer version made it.
        """
        self._reader = StudyReader(folder)
        self._folder = folder
        self._open: dict[int, _Open] = {}
        self._ended: dict[int, tuple[Trial, Curve]] = {}
        self._trials: tuple[Trial, ...] = tuple(self._reader.state.trials.values())
        self._live: tuple[Trial, ...] = tuple(t for t in self._trials if t.live)
        self._decisions = tuple(self._reader.state.decisions)
        self._version = self._reader.state.version
        self._curves: Mapping[int, Curve] = MappingProxyType({})
        document = profile_document(folder / store.PROFILE_FILE)
        self._profile: Mapping[str, Any] = MappingProxyType(profile_values(document))
        self._search: Mapping[str, Any] = MappingProxyType(search_table(document))
        self._space: Mapping[str, Any] = MappingProxyType(search_space(document))
        self._log: tuple[tuple[int, int], LogTail] | None = None
        self._problem = ""
        self._recipe = place_in_recipe(folder)

    @property
    def folder(self) -> Path:
        return self._folder

    def read(self, wanted: Wanted) -> StudyReading:
        self._problem = self._follow()
        state = self._reader.state
        if state.version != self._version:
            self._version, self._trials = state.version, tuple(state.trials.values())
            self._decisions = tuple(state.decisions)
            self._live = tuple(t for t in self._trials if t.live)
        return StudyReading(
            folder=self._folder,
            name=self._recipe.title if self._recipe else state.name or self._folder.name,
            status=state.status,
            reason=state.reason,
            rank_by=state.rank_by,
            planned=state.planned,
            created=state.created,
            updated=state.updated,
            trials=self._trials,
            engine="idle" if self._problem else _engine_state(state, self._folder),
            notices=tuple(state.warnings),
            curves=self._read_curves(wanted),
            profile=self._profile,
            log=self._read_log(wanted.log),
            problem=self._problem,
            direction=state.direction,
            strategy=state.strategy,
            stopping=state.stopping,
            to_come=state.to_come(),
            search_on=state.search_on,
            choice=state.choice,
            decisions=self._decisions,
            search=self._search,
            space=self._space,
            results=wanted.results,
            recipe=self._in_recipe(),
        )

    def _in_recipe(self) -> RecipePlace | None:
        if self._recipe is None or self._reader.state.status != "finished":
            return self._recipe
        return after_step(self._recipe, self._folder)

    def _follow(self) -> str:
        """Read on in the journal; what is wrong with it, if something is."""
        if not (self._folder / store.JOURNAL_FILE).exists():
            return f"{short_path(self._folder)} is gone: moved or deleted. 1 lists the studies"
        try:
            self._reader.poll()
        except StudyError as error:
            return str(error)
        return ""

    def _read_curves(self, wanted: Wanted) -> Mapping[int, Curve]:
        curves: dict[int, Curve] = {}
        for trial in self._live:
            curves[trial.number] = self._read_live(trial, wanted)
        for number in self._open.keys() - curves.keys():
            del self._open[number]
        self._read_ended(wanted)
        curves |= {number: curve for number, (_, curve) in self._ended.items()}
        before = self._curves
        if curves.keys() != before.keys() or any(before[n] is not c for n, c in curves.items()):
            self._curves = MappingProxyType(curves)
        return self._curves

    def _read_live(self, trial: Trial, wanted: Wanted) -> Curve:
        whole, memory = trial.number in wanted.whole, trial.number == wanted.memory
        self._ended.pop(trial.number, None)
        folder = self._reader.folder.trial(trial.number)
        entry = self._open.get(trial.number)
        if entry is None:
            entry = self._open[trial.number] = _Open(MetricsTail(folder.metrics))
        added = entry.tail.poll()
        attempt = trial.attempt.number if trial.attempt else 1
        if entry.run is None or entry.run.attempt != attempt:
            entry.run = read_record(folder.run, RunInfo) or entry.run
            # It is written before the attempt starts, so that it is there by the time that its run is.
            entry.forecast = read_record(folder.forecast, TrialForecast) or entry.forecast
        entry.builder.add(added)
        old = entry.curve
        shown = (entry.run, entry.forecast, wanted.measure if whole else None, memory)
        if old is None or added or shown != _shown(old):
            curve = entry.builder.digest(
                entry.run,
                whole=whole,
                forecast=entry.forecast,
                memory=memory,
                measure=wanted.measure,
            )
            entry.curve = old = self._examined(curve, entry.builder, trial)
        return old

    def _examined(self, curve: Curve, builder: CurveBuilder, trial: Trial) -> Curve:
        """The curve with what the doctor says of it; only of those whose every point is drawn."""
        if curve.train is None or builder.empty or trial.kind == "range":
            return curve
        from core.doctor import diagnose
        from core.engine.judgement import run_facts

        facts = run_facts(trial, {**self._profile, **trial.changes}, curve.run)
        return replace(curve, finding=diagnose(builder.points, facts))

    def _read_ended(self, wanted: Wanted) -> None:
        by_number = self._reader.state.trials
        allowance = SPARKS_A_READ
        drawn = () if wanted.memory is None else (wanted.memory,)
        for number in (*wanted.whole, *drawn, *wanted.sparks):
            trial, whole = by_number.get(number), number in wanted.whole
            memory = number == wanted.memory
            if trial is None or trial.live or not trial.attempts:
                continue
            known = self._ended.get(number)
            fresh = known is not None and known[0] is trial
            if (
                fresh
                and known is not None
                and _holds(known[1], wanted.measure if whole else None, memory=memory)
            ):
                continue
            if not (whole or memory):
                allowance -= 1
                if allowance < 0:
                    continue
            folder = self._reader.folder.trial(number)
            builder = CurveBuilder()
            builder.add(MetricsTail(folder.metrics).poll())
            curve = builder.digest(
                read_record(folder.run, RunInfo),
                whole=whole,
                forecast=read_record(folder.forecast, TrialForecast),
                memory=memory,
                measure=wanted.measure,
            )
            self._ended.pop(number, None)
            self._ended[number] = (trial, self._examined(curve, builder, trial))
        self._forget(wanted)

    def _forget(self, wanted: Wanted) -> None:
        """Drop the points that are not drawn any more, and the oldest of too many curves."""
        for number, (trial, curve) in list(self._ended.items()):
            if curve.train is not None and number not in wanted.whole:
                curve = replace(curve, train=None, evals=None)
                self._ended[number] = (trial, curve)
            if curve.peaks is not None and number != wanted.memory:
                self._ended[number] = (trial, replace(curve, peaks=None, reserved=None))
        for number in list(self._ended)[: max(0, len(self._ended) - MOST_CURVES)]:
            del self._ended[number]

    def _read_log(self, number: int | None) -> LogTail | None:
        if number is None:
            return None
        path = self._reader.folder.trial(number).log
        try:
            size = path.stat().st_size
            known = self._log
            if known is not None and known[0] == (number, size):
                return known[1]
            with path.open("rb") as file:
                file.seek(max(0, size - LOG_BYTES))
                data = file.read(LOG_BYTES)
        except OSError:
            return LogTail(number, ())
        tail = LogTail(number, log_lines(data, cut=size > LOG_BYTES))
        self._log = ((number, size), tail)
        return tail


def _shown(curve: Curve) -> tuple[RunInfo | None, TrialForecast | None, str | None, bool]:
    """What a curve depends on besides its points."""
    measure = None if curve.train is None else curve.measure
    return curve.run, curve.forecast, measure, curve.peaks is not None


def _holds(curve: Curve, measure: str | None, *, memory: bool) -> bool:
    """Whether a curve has all the points that are wanted of it: of `measure`, and of its memory."""
    drawn = measure is None or (curve.train is not None and curve.measure == measure)
    return drawn and (curve.peaks is not None or not memory)


def _engine_state(state: StudyState, folder: Path) -> EngineState:
    from core.engine import client

    alive = client.daemon_alive(folder)
    if client.needs_daemon(state, alive):
        return "missing"
    return "running" if alive else "idle"
