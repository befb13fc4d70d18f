"""Recipes on disk: the folder, the journal of what was handed from step to step, and its fold.

    recipe/  recipe.toml  recipe.jsonl  recipe.lock  recipe.log  hold
             01-general/  (an ordinary study)  model/  (its result, merged: what the next step starts from)
             02-domain/   …

`recipe.jsonl` has one writer, who holds `recipe.lock`. It says what was handed over; how a step itself stands is in its
study. A record is written before the act that it announces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.study.journal import JournalDamagedError, JournalReader
from core.study.store import (
    RECIPE_JOURNAL,
    StudyError,
    StudyFolder,
    is_study,
    recent,
    recipe_steps,
    studies_root,
)

RECIPE_FILE = "recipe.toml"
VERSION = 1
"""The version of the records that this program writes and the newest that it reads."""


class PlannedStep(msgspec.Struct, frozen=True):
    """A step as its recipe plans it."""

    name: str
    folder: str
    """Of its study, inside the recipe's."""
    stage: str
    searched: bool
    source: str | None = None
    """The step whose result it starts from; None: the recipe's own model."""
    reward: str | None = None
    """The step whose reward model scores for it."""

    @property
    def makes_reward_model(self) -> bool:
        return self.stage == "rm"


class RecipeEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """One record; `t` is in seconds since the epoch."""

    t: float


class RecipeCreated(RecipeEvent, frozen=True, kw_only=True, tag="recipe-created"):
    version: int
    name: str
    tunedeck: str
    """The program's version."""
    steps: tuple[PlannedStep, ...]
    keep_models: bool


class StepStarting(RecipeEvent, frozen=True, kw_only=True, tag="step-starting"):
    """The study of a step is about to be made and started."""

    step: int


class StepExporting(RecipeEvent, frozen=True, kw_only=True, tag="step-exporting"):
    """A full training's weights are about to be made a model of their own."""

    step: int
    trial: int


class StepExported(RecipeEvent, frozen=True, kw_only=True, tag="step-exported"):
    """A step's result is there."""

    step: int
    trial: int
    bytes: int = 0
    """What it takes on the disk besides the trial's own files."""


class HandoverFailed(RecipeEvent, frozen=True, kw_only=True, tag="handover-failed"):
    """What was announced last could not be done; it is tried again when somebody takes the recipe up."""

    step: int
    reason: str


class ModelsRemoved(RecipeEvent, frozen=True, kw_only=True, tag="models-removed"):
    """The models of these steps are about to be removed: nothing needs them any more."""

    steps: tuple[int, ...]


class RecipeDone(RecipeEvent, frozen=True, kw_only=True, tag="recipe-done"):
    """The last step's result is there."""


AnyRecipeEvent = (
    RecipeCreated
    | StepStarting
    | StepExporting
    | StepExported
    | HandoverFailed
    | ModelsRemoved
    | RecipeDone
)
_DECODER: msgspec.json.Decoder[AnyRecipeEvent] = msgspec.json.Decoder(AnyRecipeEvent)
_ENCODER = msgspec.json.Encoder()


class StepRecord(msgspec.Struct, frozen=True):
    """What was handed over to a step and from it."""

    planned: PlannedStep
    started: float | None = None
    """When its study was made, seconds since the epoch."""
    exporting: int | None = None
    """The trial whose weights are, or were, made a model."""
    exported: int | None = None
    """The trial whose weights the result holds; None while there is none."""
    bytes: int = 0
    removed: bool = False
    trouble: str = ""
    """Why its start or its export failed; empty where it did not, or is tried again."""


@dataclass
class RecipeState:
    """A recipe as its journal tells it. Only `apply` changes it."""

    name: str = ""
    created: float = 0.0
    keep_models: bool = True
    steps: list[StepRecord] = field(default_factory=list)
    done: bool = False
    updated: float = 0.0

    @property
    def current(self) -> int:
        """The number of the step that it is at: the last one that was begun, or the first."""
        begun = [n for n, step in enumerate(self.steps, 1) if step.started is not None]
        return max(begun, default=1)


def apply(state: RecipeState, event: AnyRecipeEvent) -> None:
    """Apply one record to `state`."""
    state.updated = event.t
    match event:
        case RecipeCreated():
            state.name, state.created = event.name, event.t
            state.keep_models = event.keep_models
            state.steps = [StepRecord(planned) for planned in event.steps]
        case StepStarting():
            _change(state, event.step, started=event.t, trouble="")
        case StepExporting():
            _change(state, event.step, exporting=event.trial, trouble="")
        case StepExported():
            _change(state, event.step, exported=event.trial, bytes=event.bytes, trouble="")
        case HandoverFailed():
            _change(state, event.step, trouble=event.reason)
        case ModelsRemoved():
            for number in event.steps:
                _change(state, number, removed=True, bytes=0)
        case RecipeDone():
            state.done = True


def _change(state: RecipeState, number: int, **changes: object) -> None:
    if 1 <= number <= len(state.steps):
        state.steps[number - 1] = msgspec.structs.replace(state.steps[number - 1], **changes)


def encode(event: AnyRecipeEvent) -> bytes:
    """The body of a record."""
    return _ENCODER.encode(event)


def decode(body: bytes) -> AnyRecipeEvent:
    """Raises msgspec.DecodeError for what this version does not know."""
    return _DECODER.decode(body)


@dataclass(frozen=True, slots=True)
class RecipeFolder:
    """The files of one recipe."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / RECIPE_FILE

    @property
    def journal(self) -> Path:
        return self.path / RECIPE_JOURNAL

    @property
    def lock(self) -> Path:
        """Held by whoever hands over from one step to the next."""
        return self.path / "recipe.lock"

    @property
    def log(self) -> Path:
        return self.path / "recipe.log"

    @property
    def hold(self) -> Path:
        """There while a person wants that no further step starts; holds why, in a word."""
        return self.path / "hold"

    def study(self, step: PlannedStep) -> StudyFolder:
        return StudyFolder(self.path / step.folder)

    def model(self, step: PlannedStep) -> Path:
        """The step's result as a model of its own."""
        return self.path / step.folder / "model"

    def held(self) -> str:
        """Why no further step starts (`paused` or `stopped`); empty where one may."""
        try:
            return self.hold.read_text(encoding="utf-8").strip() or "paused"
        except OSError:
            return ""


class RecipeReader:
    """Follows a recipe that somebody may be handing over."""

    def __init__(self, path: Path) -> None:
        """Open the recipe in the folder `path`.

        Raises:
            StudyError: there is none, it is damaged, or a newer version made it.
        """
        self.folder = RecipeFolder(path)
        if not self.folder.journal.is_file():
            raise StudyError(f"{path} holds no recipe (no {RECIPE_JOURNAL} in it)")
        self.state = RecipeState()
        self._journal = JournalReader(self.folder.journal)
        self.poll()
        if not self.state.created:
            raise StudyError(
                f"the recipe {path} was not made to its end: remove it, and run it again"
            )

    def poll(self) -> list[AnyRecipeEvent]:
        """Read what was added to the journal.

        Raises:
            StudyError: it is damaged, or a newer version went on with it.
        """
        news = []
        try:
            for body in self._journal.poll():
                news.append(event := decode(body))
                apply(self.state, event)
        except JournalDamagedError as error:
            raise StudyError(f"{self.folder.path}: {error}") from None
        except msgspec.DecodeError:
            raise StudyError(
                f"{self.folder.path}: a newer version of tunedeck made this recipe: use that one"
            ) from None
        except OSError as error:
            raise StudyError(f"{self.folder.journal} cannot be read: {error.strerror}") from None
        return news


def unbegun_step(reader: RecipeReader) -> int | None:
    """The number of the step that should have begun and has no study: the first where none has one, else one whose
    start was announced or failed; None where each has what it should have."""
    steps = reader.state.steps
    missing = [
        n for n, s in enumerate(steps, 1) if not is_study(reader.folder.study(s.planned).path)
    ]
    if reader.state.done:
        return None
    if len(missing) == len(steps):
        return 1
    return next((n for n in missing if steps[n - 1].started or steps[n - 1].trouble), None)


def unbegun_recipes() -> list[Path]:
    """The known recipes in which a step should have begun and has no study that would stand for it, newest first;
    those that cannot be read and have no other step count as well."""
    root = studies_root()
    here = sorted(root.iterdir()) if root.is_dir() else []
    found: dict[Path, float] = {}
    for path in (*here, *recent()):
        try:
            changed = (path / RECIPE_JOURNAL).stat().st_mtime
        except OSError:
            continue
        if _waits(path):
            found.setdefault(path.resolve(), changed)
    return sorted(found, key=lambda p: -found[p])


def _waits(path: Path) -> bool:
    try:
        return unbegun_step(RecipeReader(path)) is not None
    except StudyError:
        return not recipe_steps(path)


def is_recipe(path: Path) -> bool:
    """Whether a folder holds a recipe that was started."""
    return (path / RECIPE_JOURNAL).is_file()


def recipe_of(study: Path) -> Path | None:
    """The recipe's folder of which the study in the folder `study` is a step; None of an ordinary study."""
    parent = study.resolve().parent
    if not is_recipe(parent):
        return None
    try:
        steps = RecipeReader(parent).state.steps
    except StudyError:
        return None
    return parent if study.name in [s.planned.folder for s in steps] else None


def find_recipe(name: str) -> Path | None:
    """The folder of the recipe that a person means: a path, or a name as `find_study` takes it; None where there is
    none."""
    given = Path(name).expanduser()
    candidates: Sequence[Path] = (given, studies_root() / name)
    found = next((p for p in candidates if is_recipe(p)), None)
    if found is None:
        found = next((p for p in recent() if p.name == name and is_recipe(p)), None)
    return None if found is None else found.resolve()
