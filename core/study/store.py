"""Studies on disk: their folders, making and reading them, and the list of recent ones."""

import json
import os
import re
import shlex
import time
from dataclasses import dataclass, fields
from pathlib import Path

from core.study import files
from core.study.events import AnyEvent, StudyTooNewError, decode
from core.study.journal import JournalDamagedError, JournalReader
from core.study.state import StudyState, apply
from core.values import Scalar, toml_value

PROFILE_FILE = "profile.toml"
JOURNAL_FILE = "journal.jsonl"
RECIPE_JOURNAL = "recipe.jsonl"
"""In the folder of a recipe, whose steps are studies in folders of their own (`core.study.recipes`)."""
MOST_RECENT = 100


class StudyError(Exception):
    """A study cannot be made or opened; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """The files of one trial."""

    path: Path

    @property
    def profile(self) -> Path:
        return self.path / files.TRIAL_FILE

    @property
    def task(self) -> Path:
        return self.path / files.TASK_FILE

    @property
    def run(self) -> Path:
        return self.path / files.RUN_FILE

    @property
    def report(self) -> Path:
        return self.path / files.REPORT_FILE

    @property
    def exit(self) -> Path:
        return self.path / files.EXIT_FILE

    @property
    def forecast(self) -> Path:
        return self.path / files.FORECAST_FILE

    @property
    def metrics(self) -> Path:
        return self.path / files.METRICS_FILE

    @property
    def log(self) -> Path:
        return self.path / files.LOG_FILE

    @property
    def lock(self) -> Path:
        return self.path / files.LOCK_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / files.CHECKPOINTS

    @property
    def output(self) -> Path:
        return self.path / files.OUTPUT


def trial_path(number: int) -> str:
    """A trial's folder, relative to its study's."""
    return f"trials/{number:04d}"


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The files of one study."""

    path: Path

    @property
    def profile(self) -> Path:
        return self.path / PROFILE_FILE

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL_FILE

    @property
    def lock(self) -> Path:
        """Held by the study's daemon while it lives."""
        return self.path / "daemon.lock"

    @property
    def daemon(self) -> Path:
        """How to reach the daemon."""
        return self.path / "daemon.json"

    @property
    def tuned(self) -> Path:
        """The winner as a profile, written when the study is finished."""
        return self.path / "tuned.toml"

    @property
    def range_test(self) -> Path:
        """What a learning-rate range test runs; only a study that is one has it."""
        return self.path / files.RANGE_FILE

    @property
    def lengths(self) -> Path:
        """How long the rows of the data are in tokens, measured once for all trials."""
        return self.path / "lengths.json"

    @property
    def daemon_log(self) -> Path:
        return self.path / "daemon.log"

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.path / trial_path(number))


class StudyReader:
    """Follows a study that a daemon may be writing."""

    def __init__(self, path: Path) -> None:
        """Open the study in the folder `path`.

        Raises:
            StudyError: there is no study, it is damaged, or a newer version made it.
        """
        self.folder = StudyFolder(path)
        if not self.folder.journal.is_file():
            raise StudyError(f"{path} holds no study (no {JOURNAL_FILE} in it)")
        self.state = StudyState()
        self.news: list[AnyEvent] = []
        """The records that the last `poll` read, without those that it read again."""
        self._journal = JournalReader(self.folder.journal)
        self.poll()

    def poll(self) -> bool:
        """Read what was added to the journal; True when anything was.

        Raises:
            StudyError: the study is damaged, or a newer version went on with it.
        """
        self.news = []
        again = self._journal.shrunk()
        if again:
            # A record that was read is taken back: the state is made anew, in place, as others hold it too.
            self._journal = JournalReader(self.folder.journal)
            fresh = StudyState()
            for field in fields(StudyState):
                setattr(self.state, field.name, getattr(fresh, field.name))
        try:
            for body in self._journal.poll():
                event = decode(body)
                apply(self.state, event)
                self.news.append(event)
        except (JournalDamagedError, StudyTooNewError) as error:
            raise StudyError(f"{self.folder.path}: {error}") from None
        except OSError as error:
            raise StudyError(f"{self.folder.journal} cannot be read: {error.strerror}") from None
        if again:
            self.news = []
        return again or bool(self.news)


def studies_root() -> Path:
    """Where new studies go: $TUNEDECK_STUDIES, else `studies/` in the current folder."""
    return Path(os.environ.get("TUNEDECK_STUDIES") or "studies")


def new_folder(name: str, root: Path | None = None) -> Path:
    """A folder for a new study that does not exist yet: `root`/name, with a number behind it where that is taken."""
    parent = root or studies_root()
    slug = re.sub(r"[^\w.+-]+", "-", name.strip()).strip("-.") or "study"
    candidate, number = parent / slug, 2
    while candidate.exists():
        candidate, number = parent / f"{slug}-{number}", number + 1
    return candidate


def is_study(path: Path) -> bool:
    return (path / JOURNAL_FILE).is_file()


def recipe_steps(path: Path) -> list[Path]:
    """The studies of the steps of a recipe that were begun, in their order; none where the folder holds no recipe."""
    if not (path / RECIPE_JOURNAL).is_file():
        return []
    steps = [p for p in path.glob("[0-9]*-*") if is_study(p)]
    return sorted(steps, key=lambda p: (len(p.name.partition("-")[0]), p.name))


def find_study(name: str) -> Path:
    """The folder of the study that a person means: a path, or a name under the studies' root or among the recent ones.
    Of a recipe it is the study of the step that was begun last.

    Raises:
        StudyError: there is none; the message lists what there is.
    """
    given = Path(name).expanduser()
    for candidate in (given, studies_root() / name):
        found = [candidate] if is_study(candidate) else recipe_steps(candidate)
        if found:
            return found[-1].resolve()
    named = [p for p in recent() if p.name == name and (is_study(p) or recipe_steps(p))]
    if named:
        return named[0] if is_study(named[0]) else recipe_steps(named[0])[-1]
    if any((p / RECIPE_JOURNAL).is_file() for p in (given, studies_root() / name)):
        raise StudyError(
            f"no step of the recipe {name} has begun: `tunedeck resume {shlex.quote(name)}` begins it"
        )
    known = [p.name for p in all_studies()]
    hint = f"; studies here: {', '.join(known[:8])}" if known else "; there are no studies here yet"
    raise StudyError(f"{name} is no study{hint}")


def all_studies() -> list[Path]:
    """The studies that are known: under the studies' root and among the recent ones, newest first."""
    root = studies_root()
    found: dict[Path, float] = {}
    here = sorted(root.iterdir()) if root.is_dir() else []
    listed = [p for path in (*here, *recent()) for p in recipe_steps(path) or (path,)]
    for path in listed:
        try:
            found.setdefault(path.resolve(), (path / JOURNAL_FILE).stat().st_mtime)
        except OSError:
            continue
    return sorted(found, key=lambda p: -found[p])


def recent_file() -> Path:
    """Where the list of recent studies is kept."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "tunedeck" / "recent.json"


def recent() -> list[Path]:
    """Recent studies, newest first; empty where the list cannot be read."""
    try:
        listed = json.loads(recent_file().read_text())
    except (OSError, ValueError):
        return []
    return [Path(p) for p in listed if isinstance(p, str)] if isinstance(listed, list) else []


def remember(path: Path) -> None:
    """Put a study on top of the recent ones. A home that is full or read-only is no reason to fail."""
    resolved = path.resolve()
    listed = [resolved, *(p for p in recent() if p != resolved)][:MOST_RECENT]
    file = recent_file()
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps([str(p) for p in listed], indent=1))
        temporary.replace(file)
    except OSError:
        return


def describe(settings: dict[str, Scalar]) -> str:
    """A trial's settings in one line, as `learning_rate 3e-4, lora_rank 16`."""
    return ", ".join(f"{k} {toml_value(v).strip(chr(34))}" for k, v in settings.items())


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
