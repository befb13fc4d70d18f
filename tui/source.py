"""Where the dashboard's data comes from: study folders, their daemons, and the machine's devices.

Every method may block on a disk, a socket or a driver: the app calls them in a thread. What they
return is frozen. Modules that take long to import are imported where they are used, which is
after the first frame.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.study import store
from core.study.recipes import recipe_of, unbegun_recipes
from core.study.store import StudyError, StudyReader
from tui.feed import DiskFeed, Wanted
from tui.paths import shell_path, short_path
from tui.reading import DeviceReading, SourceError
from tui.recipe_view import begin, carry_on, unbegun
from tui.snapshot import StudyReading, StudySummary, summarise

if TYPE_CHECKING:
    from core.devices.gpu import NvmlReader
    from core.devices.host import HostReader
    from core.engine.messages import Reply, Request
    from core.profile import Profile
    from core.study.files import RangeTest
    from core.study.preview import PreviewRequest, Told
    from tui.memory_desk import MemoryDesk
    from tui.plan import PastTime
    from tui.range_test import RangeView

__all__ = [
    "DataPreview",
    "DeviceReading",
    "DiskSource",
    "RangeWatch",
    "Source",
    "SourceError",
    "StudyFeed",
    "Wanted",
    "ancestors",
    "shell_path",
    "short_path",
]

MOST_ANCESTORS = 32


class StudyFeed(Protocol):
    """One open study."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...

    def read(self, wanted: Wanted) -> StudyReading:
        """The study now. Never raises: what is wrong is the reading's `problem`."""
        ...


class RangeWatch(Protocol):
    """One learning-rate range test."""

    def look(self) -> "RangeView":
        """The test now. Never raises: what is wrong is the view's `problem`."""
        ...


class DataPreview(Protocol):
    """One look at a profile's data. Iterating may raise `SourceError`; `close` may be called from another thread."""

    def __iter__(self) -> "Iterator[Told]":
        """What is told, as it comes."""
        ...

    def close(self) -> None:
        """End it, also in the middle."""
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

    def create_range_test(self, profile: "Profile", test: "RangeTest") -> Path:
        """Make the study of a learning-rate range test and start its engine; the folder."""
        ...

    def range_test(self, folder: Path) -> "RangeWatch":
        """Follow a range test."""
        ...

    def past_time(self, profile: "Profile") -> "PastTime | None":
        """How long a training like that of `profile` took in a study that is there already."""
        ...

    def preview(self, asked: "PreviewRequest") -> "AbstractContextManager[DataPreview]":
        """Start to look at a profile's data."""
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
        # First what waits for somebody.
        return [*unbegun_recipes(), *store.all_studies()]

    def summary(self, folder: Path) -> StudySummary:
        if (waits := unbegun(folder)) is not None:
            status = "not begun" if waits.readable else "cannot be read"
            return StudySummary(
                folder, waits.name, status, updated=waits.updated, problem=waits.why
            )
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
        with told_plainly():
            if unbegun(folder) is not None:
                folder = begin(folder)
            feed = DiskFeed(folder)
        recipe = recipe_of(folder)
        store.remember(recipe or folder)
        if recipe is not None:
            with told_plainly():
                carry_on(folder)
        return feed

    def create(self, profile: "Profile") -> Path:
        from core.engine import client

        with told_plainly():
            folder = store.new_folder(profile.profile.name or "study")
            folder = client.create_study(profile, folder)
            store.remember(folder)
            client.start_daemon(folder)
            return folder

    def create_range_test(self, profile: "Profile", test: "RangeTest") -> Path:
        from core.engine import client

        with told_plainly():
            folder = store.new_folder(f"{profile.profile.name or 'study'}-lr-range")
            folder = client.create_study(profile, folder, range_test=test)
            client.start_daemon(folder)
            return folder

    def range_test(self, folder: Path) -> "RangeWatch":
        from tui.range_test import RangeFollower

        with told_plainly():
            return RangeFollower(folder)

    def past_time(self, profile: "Profile") -> "PastTime | None":
        from tui.past_times import past_time

        with told_plainly():
            return past_time(profile, store.all_studies())

    @contextmanager
    def preview(self, asked: "PreviewRequest") -> "Iterator[DataPreview]":
        from core.engine.preview import Preview, PreviewError

        try:
            with Preview(asked) as preview:
                yield preview
        except PreviewError as error:
            raise SourceError(str(error)) from error

    def demo_profile(self) -> "Profile":
        from core import profile

        with told_plainly():
            return profile.load(profile.DEMO_DATA.with_name("demo.toml"))

    def delete(self, folder: Path) -> None:
        from core.engine import client
        from core.engine.recipes import wishes

        with told_plainly():
            if unbegun(folder) is not None:
                wishes.discard(folder)
            else:
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
