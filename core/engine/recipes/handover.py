"""Who hands over from one step of a recipe to the next, and how clients make and steer a recipe.

The daemon of a step, when its study is over, starts a *carrier*: a process of its own that exports the step's result,
makes the study of the next step, starts its daemon and ends. It may be killed at any moment: what it was about to do is
in the recipe's journal, doing it again does no harm, and whoever opens the recipe (`take_up`) starts another carrier.
One at a time works: it holds the recipe's lock.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.devices.lock import LockError, is_locked, try_lock
from core.engine.client import PATIENCE, EngineError, daemon_alive, start_daemon
from core.engine.detach import READY, DaemonLog, run_detached
from core.engine.recipes.exporting import HandoverError, export_step
from core.engine.recipes.plan import (
    Action,
    Begin,
    Export,
    Finish,
    Note,
    Rest,
    Serve,
    StepView,
    due_step,
    next_action,
    place,
)
from core.engine.recipes.step import carrier_command
from core.profile import ProfileError, save
from core.recipe import Recipe, Step, dumps, load
from core.study.journal import JournalDamagedError, JournalWriter
from core.study.recipes import (
    VERSION as RECIPE_VERSION,
)
from core.study.recipes import (
    AnyRecipeEvent,
    HandoverFailed,
    ModelsRemoved,
    PlannedStep,
    RecipeCreated,
    RecipeDone,
    RecipeFolder,
    RecipeReader,
    StepExported,
    StepExporting,
    StepStarting,
    encode,
)
from core.study.store import StudyError, StudyReader, TrialFolder, is_study, now, remember
from core.version import VERSION

COMMENT = """The recipe as it was started, with all that each step runs with. Run it again:
  tunedeck run THIS_FILE"""


@dataclass(frozen=True)
class Hands:
    """What a carrier does its work with; tests give others."""

    export: Callable[[TrialFolder, Path | None, Path, Callable[[], bool]], int] = export_step
    """Makes a trial's weights, on their base, a model in a folder as long as the function says so; its bytes."""
    serve: Callable[[Path], None] = start_daemon


def create_recipe(recipe: Recipe, folder: Path) -> Path:
    """Make a recipe's folder; its first step starts with `take_up`. Returns the folder.

    Raises:
        StudyError: the folder exists and is not empty, or cannot be made.
    """
    made = RecipeFolder(folder.resolve())
    created = RecipeCreated(
        t=now(),
        version=RECIPE_VERSION,
        name=recipe.name,
        tunedeck=VERSION,
        steps=tuple(_planned(step) for step in recipe.steps),
        keep_models=recipe.keep_models,
    )
    try:
        made.path.mkdir(parents=True, exist_ok=True)
        if any(made.path.iterdir()):
            raise StudyError(
                f"{folder} exists and is not empty: choose another folder, or `tunedeck attach` it if it is a recipe"
            )
        made.recipe.write_text(dumps(recipe, comment=COMMENT), encoding="utf-8")
        writer = JournalWriter(made.journal)
        writer.append(encode(created))
        writer.close()
    except OSError as error:
        raise StudyError(f"the recipe {folder} cannot be made: {error.strerror}") from None
    remember(made.path)
    return made.path


def take_up(folder: Path, timeout: float = 1.5 * PATIENCE) -> None:
    """Do what is to be done next in a recipe, detached: start a step, export a result, or nothing.

    Returns once that is going on. `timeout` is in seconds: more than the daemon of a step may take to start.

    Raises:
        EngineError: the carrier cannot be started; the message is its own.
    """
    try:
        done = subprocess.run(
            carrier_command(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            # Ctrl-C is the client's alone to hear: what begins is not to be lost half-way.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        log = RecipeFolder(folder).log
        raise EngineError(
            f"the recipe was not taken up within {timeout:g} s; {log} may say why"
        ) from None
    except OSError as error:
        raise EngineError(f"the recipe cannot be taken up: {error.strerror}") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise EngineError(reason or "the recipe could not be taken up")


def views(reader: RecipeReader) -> list[StepView]:
    """How the steps of a recipe stand now.

    Raises:
        StudyError: the study of one cannot be read.
    """
    seen = []
    for number, record in enumerate(reader.state.steps, 1):
        study = reader.folder.study(record.planned)
        begun = is_study(study.path)
        seen.append(
            StepView(
                number=number,
                record=record,
                folder=_shown(study.path),
                state=StudyReader(study.path).state if begun else None,
                engine=begun and daemon_alive(study.path),
                model=reader.folder.model(record.planned).is_dir(),
            )
        )
    return seen


def stands(reader: RecipeReader) -> Action:
    """What happens next in a recipe; `Rest` where nothing is to be done.

    Raises:
        StudyError: a step's study cannot be read.
    """
    return next_action(reader.state, views(reader), reader.folder.held())


def carrier_alive(folder: Path) -> bool:
    """Whether somebody hands over in the recipe just now."""
    try:
        return is_locked(RecipeFolder(folder).lock)
    except LockError:
        return False


def hold(folder: Path, why: str) -> None:
    """Let no further step start. `why`: "paused" or "stopped".

    Raises:
        StudyError: the folder cannot be written.
    """
    try:
        RecipeFolder(folder).hold.write_text(why, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{folder} cannot be written: {error.strerror}") from None


def release(folder: Path) -> None:
    """Let further steps start again."""
    RecipeFolder(folder).hold.unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    """Carry the recipe in the folder `argv[0]` on, detached; with `--foreground` behind it, in this process."""
    folder = Path(argv[0]).resolve()
    if "--foreground" in argv[1:]:
        return carry(folder, Hands(), lambda word: None if word == READY else print(word))
    return run_detached(lambda tell: carry(folder, Hands(), tell), RecipeFolder(folder).log)


def carry(path: Path, hands: Hands, tell: Callable[[str], None]) -> int:
    """Do what is to be done next in a recipe until there is nothing, or a step runs, which carries on at its end.

    `tell` gets READY once that is going on, perhaps more than once, or the reason why it cannot be (the exit code is
    then 1). Where another process is at it, that one does it.
    """
    folder = RecipeFolder(path)

    def ready() -> None:
        tell(READY)

    while True:
        try:
            RecipeReader(path)
            lock = try_lock(folder.lock)
            if lock is None:
                ready()
                return 0
            with open(lock, "rb"):
                going = Carrier(folder, hands, ready).work()
            # A step may have ended after the last look, whose daemon found the lock taken.
            # One whose daemon died at once is not started again and again.
            if not going or isinstance(stands(RecipeReader(path)), Rest | Serve):
                return 0
        except (StudyError, LockError, JournalDamagedError, ProfileError) as error:
            return _trouble(folder, tell, str(error))
        except OSError as error:
            return _trouble(
                folder, tell, f"the recipe {path} cannot go on: {error.strerror or error}"
            )


def _trouble(folder: RecipeFolder, tell: Callable[[str], None], reason: str) -> int:
    DaemonLog(folder.log).say(reason)
    tell(reason)
    return 1


class Carrier:
    """Carries a recipe on; the caller holds its lock."""

    def __init__(self, folder: RecipeFolder, hands: Hands, ready: Callable[[], None]) -> None:
        """`ready` is called before what may take long and was recorded, and once nothing is left to do."""
        self._folder, self._hands, self._ready = folder, hands, ready
        self._log = DaemonLog(folder.log)
        self._journal = JournalWriter(folder.journal)
        self._reader = RecipeReader(folder.path)
        self._recipe: Recipe | None = None

    def work(self) -> bool:
        """Act until nothing is to be done or a step runs; False where something failed.

        Raises:
            StudyError: the recipe or a study of it cannot be read.
            OSError: what is to be done cannot be recorded.
        """
        try:
            going = self._go_on()
        finally:
            self._journal.close()
        self._ready()
        return going

    def _go_on(self) -> bool:
        while True:
            action = stands(self._reader)
            if isinstance(action, Rest):
                self._log.say(action.text)
                return True
            if not self._act(action):
                return False
            if isinstance(action, Begin | Serve):
                return True

    def _act(self, action: Action) -> bool:
        """Do one thing; False where it failed, which is then in the journal."""
        try:
            match action:
                case Begin():
                    self._begin(action.step)
                case Serve():
                    self._log.say(
                        f"{self._place(action.step)}: its engine is gone; starting it again"
                    )
                    self._hands.serve(self._folder.study(self._planned(action.step)).path)
                case Export():
                    self._export(action)
                case Note():
                    self._record(StepExported(t=now(), step=action.step, trial=action.trial))
                case Finish():
                    self._finish(action.remove)
        except HandoverError as error:
            if error.wanted:
                self._log.say(str(error))
            else:
                self._fail(action, str(error))
            return False
        except (StudyError, EngineError, ProfileError) as error:
            self._fail(action, str(error))
            return False
        return True

    def _begin(self, number: int) -> None:
        """Make the study of a step, or what is missing of it, and start its daemon."""
        planned = self._planned(number)
        study = self._folder.study(planned)
        step = self._step(planned)
        results = [self._result(name) for name in (planned.source, planned.reward)]
        # From the profile's own folder, so that the recipe's may be moved.
        model, reward = (p and os.path.relpath(p, study.path) for p in results)
        profile = step.starting_from(model, reward)
        self._record(StepStarting(t=now(), step=number))
        study.path.mkdir(exist_ok=True)
        save(profile, study.profile)
        self._log.say(f"{self._place(number)} starts")
        self._hands.serve(study.path)

    def _export(self, action: Export) -> None:
        planned = self._planned(action.step)
        target = self._folder.model(planned)
        trial = self._folder.study(planned).trial(action.trial)
        if target.exists():
            # Of another trial, or of one that was taken back: what is recorded as the result would not be it.
            shutil.rmtree(target)
        self._record(StepExporting(t=now(), step=action.step, trial=action.trial))
        self._log.say(f"{self._place(action.step)}: exports the weights of trial {action.trial}")
        self._ready()
        # Where it lies now: the trial's own profile has the place where it lay when the training started.
        base = self._result(planned.source)
        size = self._hands.export(trial, base, target, lambda: not self._folder.held())
        self._record(StepExported(t=now(), step=action.step, trial=action.trial, bytes=size))
        self._log.say(f"{self._place(action.step)} is done")

    def _finish(self, remove: tuple[int, ...]) -> None:
        if remove:
            self._record(ModelsRemoved(t=now(), steps=remove))
            for number in remove:
                shutil.rmtree(self._folder.model(self._planned(number)), ignore_errors=True)
        self._record(RecipeDone(t=now()))

    def _fail(self, action: Action, reason: str) -> None:
        number = due_step(self._reader.state, action)
        self._log.say(f"{self._place(number)}: {reason}")
        self._record(HandoverFailed(t=now(), step=number, reason=reason))

    def _record(self, event: AnyRecipeEvent) -> None:
        self._journal.append(encode(event))
        self._reader.poll()

    def _planned(self, number: int) -> PlannedStep:
        return self._reader.state.steps[number - 1].planned

    def _place(self, number: int) -> str:
        return place(number, len(self._reader.state.steps), self._planned(number).name)

    def _step(self, planned: PlannedStep) -> Step:
        if self._recipe is None:
            self._recipe = load(self._folder.recipe)
        if planned.name not in [step.name for step in self._recipe.steps]:
            raise StudyError(f"{self._folder.recipe} has no step {planned.name} any more")
        return self._recipe.step(planned.name)

    def _result(self, name: str | None) -> Path | None:
        """The folder of what the step of this name has made."""
        if name is None:
            return None
        record = next(s for s in self._reader.state.steps if s.planned.name == name)
        if not record.planned.makes_reward_model:
            return self._folder.model(record.planned)
        return self._folder.study(record.planned).trial(record.exported or 1).output


def _planned(step: Step) -> PlannedStep:
    stage = step.profile.method.stage
    return PlannedStep(step.name, step.folder, stage, step.searches, step.source, step.reward)


def _shown(path: Path) -> str:
    """A path as a person may write it in a command: from the current folder where that is above it."""
    try:
        return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
    except OSError:
        return shlex.quote(str(path))
