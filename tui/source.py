"""Where the dashboard's data comes from: study folders, their daemons, and the machine's devices.

Every method may block on a disk, a socket or a driver: the app calls them in a thread. What they
return is frozen. Modules that take long to import are imported where they are used, which is
after the first frame.
"""

import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from core.study import store
from core.study.files import RunInfo, TrialForecast, read_record
from core.study.metrics import MetricsTail
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader
from tui.curve import Curve, CurveBuilder
from tui.log_lines import log_lines
from tui.snapshot import EngineState, LogTail, StudyReading, StudySummary, summarise

if TYPE_CHECKING:
    from core.devices.gpu import GpuReading, NvmlReader
    from core.devices.host import HostReader, HostSnapshot
    from core.engine.messages import Reply, Request
    from core.profile import Profile
    from tui.memory_desk import MemoryDesk

LOG_BYTES = 32_768
MOST_CURVES = 600
"""Curves of ended trials that are kept; each without its points takes less than a kilobyte."""
MOST_ANCESTORS = 32
SPARKS_A_READ = 8
"""Ended trials whose metrics are read for a sparkline in one go: the rest waits for the next."""


class SourceError(Exception):
    """Something that was asked for cannot be done; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the screens need besides the journal."""

    whole: frozenset[int] = frozenset()
    """Trials whose every point is drawn."""
    sparks: tuple[int, ...] = ()
    """Trials on the screen whose sparkline is drawn."""
    log: int | None = None
    """The trial whose log is shown."""
    memory: int | None = None
    """The trial whose memory is drawn."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """The machine at one moment."""

    gpus: "GpuReading"
    host: "HostSnapshot"
    ancestors: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """The pids above each process on a GPU, nearest first, where this machine knows the process."""


class StudyFeed(Protocol):
    """One open study."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...

    def read(self, wanted: Wanted) -> StudyReading:
        """The study now. Never raises: what is wrong is the reading's `problem`."""
        ...


class Source(Protocol):
    """All that the dashboard reads and asks for. Every method may raise `SourceError`."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def studies(self) -> list[Path]:
        """The studies that are known, newest first."""
        ...

    def summary(self, folder: Path) -> StudySummary:
        """A study in a line; one that cannot be read has a `problem`."""
        ...

    def open(self, folder: Path) -> StudyFeed:
        """Open a study."""
        ...

    def create(self, profile: "Profile") -> Path:
        """Make a study and start its engine; the folder."""
        ...

    def demo_profile(self) -> "Profile":
        """The profile of the demo."""
        ...

    def delete(self, folder: Path) -> None:
        """Delete a study that nothing runs in."""
        ...

    def start_engine(self, folder: Path) -> None:
        """Start the study's daemon unless it lives."""
        ...

    def send(self, folder: Path, request: "Request") -> "Reply":
        """Ask the study's daemon for something; it is started if need be."""
        ...

    def profile_text(self, folder: Path, trial: int) -> str:
        """The profile that trains with a trial's settings, as TOML."""
        ...

    def save_profile(self, folder: Path, trial: int, path: Path) -> None:
        """Write that profile to a file, which is replaced if it is there."""
        ...

    def devices(self) -> DeviceReading:
        """GPUs and host now."""
        ...

    def memory(self) -> "MemoryDesk":
        """Who answers questions about memory. Quick."""
        ...


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn the errors that have a sentence for the user into `SourceError`."""
    from core.engine.client import EngineError
    from core.profile import ProfileError

    try:
        yield
    except (StudyError, EngineError, ProfileError) as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise SourceError(f"{where}{error.strerror or error}") from error


class DiskSource:
    """The real source: files, sockets and drivers of this machine."""

    def __init__(self) -> None:
        self._summaries: dict[Path, tuple[tuple[int, int], StudySummary]] = {}
        self._running: dict[Path, DiskFeed] = {}
        self._gpus: NvmlReader | None = None
        self._host: HostReader | None = None

    def now(self) -> float:
        return store.now()

    def studies(self) -> list[Path]:
        return store.all_studies()

    def summary(self, folder: Path) -> StudySummary:
        try:
            stat = (folder / store.JOURNAL_FILE).stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            known = self._summaries.get(folder)
            if known is not None and known[0] == stamp and folder not in self._running:
                return known[1]
            feed = self._running.pop(folder, None) or DiskFeed(folder)
            summary = summarise(feed.read(Wanted()))
            if summary.live or summary.status in ("running", "engine not running"):
                # An engine may die without a word in the journal: such a study is looked at again.
                self._running[folder] = feed
        except (StudyError, OSError) as error:
            return StudySummary(folder, folder.name, "cannot be read", problem=str(error))
        self._summaries[folder] = (stamp, summary)
        return summary

    def open(self, folder: Path) -> StudyFeed:
        try:
            feed = DiskFeed(folder)
        except StudyError as error:
            raise SourceError(str(error)) from error
        store.remember(folder)
        return feed

    def create(self, profile: "Profile") -> Path:
        from core.engine import client

        with told_plainly():
            folder = store.new_folder(profile.profile.name or "study")
            folder = client.create_study(profile, folder)
            store.remember(folder)
            client.start_daemon(folder)
            return folder

    def demo_profile(self) -> "Profile":
        from core import profile

        with told_plainly():
            return profile.load(profile.DEMO_DATA.with_name("demo.toml"))

    def delete(self, folder: Path) -> None:
        from core.engine import client

        with told_plainly():
            client.delete_study(folder)

    def start_engine(self, folder: Path) -> None:
        from core.engine import client

        with told_plainly():
            client.start_daemon(folder)

    def send(self, folder: Path, request: "Request") -> "Reply":
        from core.engine import client

        with told_plainly():
            return client.send(folder, request)

    def profile_text(self, folder: Path, trial: int) -> str:
        from core import profile

        return profile.dumps(self._profile_of(folder, trial))

    def save_profile(self, folder: Path, trial: int, path: Path) -> None:
        from core import profile

        with told_plainly():
            path.parent.mkdir(parents=True, exist_ok=True)
            profile.save(self._profile_of(folder, trial), path)

    def devices(self) -> DeviceReading:
        if self._gpus is None or self._host is None:
            from core.devices.gpu import NvmlReader
            from core.devices.host import HostReader

            self._gpus, self._host = NvmlReader(), HostReader()
        gpus = self._gpus.read()
        pids = {process.pid for gpu in gpus.gpus for process in gpu.processes}
        return DeviceReading(gpus, self._host.read(), {pid: ancestors(pid) for pid in pids})

    def memory(self) -> "MemoryDesk":
        from tui.memory_desk import DiskDesk

        return DiskDesk(self.devices)

    def _profile_of(self, folder: Path, trial: int) -> "Profile":
        from core.engine import results

        with told_plainly():
            return results.trial_profile(StudyReader(folder), trial)


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
        self._version = self._reader.state.version
        self._curves: Mapping[int, Curve] = MappingProxyType({})
        self._profile = _profile_values(folder / store.PROFILE_FILE)
        self._log: tuple[tuple[int, int], LogTail] | None = None
        self._problem = ""

    @property
    def folder(self) -> Path:
        return self._folder

    def read(self, wanted: Wanted) -> StudyReading:
        self._problem = self._follow()
        state = self._reader.state
        if state.version != self._version:
            self._version, self._trials = state.version, tuple(state.trials.values())
            self._live = tuple(t for t in self._trials if t.live)
        return StudyReading(
            folder=self._folder,
            name=state.name or self._folder.name,
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
        )

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
        shown = (entry.run, entry.forecast, whole, memory)
        if old is None or added or shown != _shown(old):
            entry.curve = old = entry.builder.digest(
                entry.run, whole=whole, forecast=entry.forecast, memory=memory
            )
        return old

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
            if fresh and known is not None and _holds(known[1], whole=whole, memory=memory):
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
            )
            self._ended.pop(number, None)
            self._ended[number] = (trial, curve)
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


def _shown(curve: Curve) -> tuple[RunInfo | None, TrialForecast | None, bool, bool]:
    """What a curve depends on besides its points."""
    return curve.run, curve.forecast, curve.train is not None, curve.peaks is not None


def _holds(curve: Curve, *, whole: bool, memory: bool) -> bool:
    """Whether a curve has all the points that are wanted of it."""
    return (curve.train is not None or not whole) and (curve.peaks is not None or not memory)


def _engine_state(state: StudyState, folder: Path) -> EngineState:
    from core.engine import client

    alive = client.daemon_alive(folder)
    if client.needs_daemon(state, alive):
        return "missing"
    return "running" if alive else "idle"


def _profile_values(path: Path) -> Mapping[str, Any]:
    """The values of a profile by parameter name, unchecked; empty where the file cannot be read."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return MappingProxyType({})
    values: dict[str, Any] = {}
    for table in ("resources", "memory", "data", "model", "method", "train"):
        content = document.get(table)
        if isinstance(content, dict):
            values.update(content)
    return MappingProxyType(values)


def ancestors(pid: int, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """The pids above a process, nearest first; empty where there is no such process."""
    found: list[int] = []
    while len(found) < MOST_ANCESTORS:
        try:
            # The name, in parentheses, may hold anything: what counts stands behind the last one.
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            pid = int(fields[1])
        except (OSError, IndexError, ValueError):
            break
        if pid <= 1:
            break
        found.append(pid)
    return tuple(found)


def short_path(path: Path) -> str:
    """A path as a person would type it: from their home, or from the current folder, if shorter."""
    full = str(path)
    home = str(Path.home())
    candidates = [full]
    if full.startswith(home + os.sep):
        candidates.append("~" + full[len(home) :])
    try:
        relative = os.path.relpath(full)
    except (ValueError, OSError):
        relative = full
    if not relative.startswith(".."):
        candidates.append(relative)
    return min(candidates, key=len)


def shell_path(path: Path) -> str:
    """A short path as a shell takes it: a tilde within quotes would be no home."""
    short = short_path(path)
    home = "~/" if short.startswith("~/") else ""
    return home + shlex.quote(short.removeprefix(home))
