"""What a person's wish does to a recipe: to the step that it is at, and to those that come."""

import shutil
import time
from pathlib import Path

from core.devices.lock import LockError, try_lock
from core.engine.client import EngineError, send
from core.engine.messages import Command, Reply, Request
from core.engine.recipes.handover import carrier_alive, hold, release, stands, take_up
from core.engine.recipes.plan import Rest, place, trouble_of
from core.study.recipes import RecipeFolder, RecipeReader
from core.study.store import StudyReader, is_study, recipe_steps

PATIENCE = 20.0
"""Seconds that a wish waits for a handover that is under way: a daemon starts in one or two."""


def steer(folder: Path, command: Command) -> Reply:
    """Stop, pause or resume a recipe.

    Raises:
        StudyError: the recipe cannot be read or written.
        EngineError: the daemon of its step, or what carries it on, cannot be reached or started.
    """
    reader = RecipeReader(folder)
    if reader.state.done:
        return Reply(command == "stop", "all steps of the recipe are done already")
    return _resume(reader) if command == "resume" else _rest(reader, command)


def discard(folder: Path) -> None:
    """Delete a recipe of which no step has begun.

    Raises:
        EngineError: a step has, somebody begins one just now, or it cannot be deleted.
    """
    made = RecipeFolder(folder.resolve())
    try:
        lock = try_lock(made.lock)
    except LockError as error:
        raise EngineError(str(error)) from None
    if lock is None:
        raise EngineError(f"a step of the recipe {folder} begins just now: stop it first")
    with open(lock, "rb"):
        # Asked while the lock is held, when nobody can begin one.
        if recipe_steps(made.path):
            raise EngineError(
                f"steps of the recipe {folder} have begun, and what they made would be lost with it: delete its whole "
                "folder if that is meant"
            )
        try:
            shutil.rmtree(made.path)
        except OSError as error:
            raise EngineError(
                f"{folder} cannot be deleted: {error.filename}: {error.strerror}"
            ) from None


def _rest(reader: RecipeReader, command: Command) -> Reply:
    """Let the step that runs stop or pause; between two steps, let no further one start."""
    folder, state = reader.folder.path, reader.state
    word = "stopped" if command == "stop" else "paused"
    # First of all: what is handed over just now may be a step that begins.
    hold(folder, word)
    _let_end(folder)
    reader.poll()
    planned = state.steps[state.current - 1].planned
    study = reader.folder.study(planned).path
    where = place(state.current, len(state.steps), planned.name)
    status = StudyReader(study).state.status if is_study(study) else None
    if status in (word, "stopped"):
        release(folder)
        return Reply(True, f"{where} is {status} already")
    if status == "running" or (status == "paused" and command == "stop"):
        reply = send(study, Request(command))
        if reply.ok:
            # The step itself rests now, and with it the recipe: whoever lets it go on means both.
            release(folder)
            return Reply(True, f"{where}: {reply.text}")
    return Reply(True, f"the recipe is {word}: no further step starts until it is resumed")


def _let_end(folder: Path) -> None:
    """Wait a while for what is handed over just now: a step that begins, an export that hears that it is to end."""
    until = time.monotonic() + PATIENCE
    while carrier_alive(folder) and time.monotonic() < until:
        time.sleep(0.1)


def _resume(reader: RecipeReader) -> Reply:
    folder, state = reader.folder.path, reader.state
    release(folder)
    action = stands(reader)
    if isinstance(action, Rest) and action.kind == "failed":
        return Reply(False, action.text)
    if isinstance(action, Rest) and action.kind == "running":
        return Reply(True, f"{action.text} already")
    text = ""
    if isinstance(action, Rest):
        study = reader.folder.study(state.steps[action.step - 1].planned)
        reply = send(study.path, Request("resume"))
        if not reply.ok:
            return reply
        text = reply.text
    take_up(folder)
    reader.poll()
    trouble = trouble_of(state, stands(reader))
    where = place(state.current, len(state.steps), state.steps[state.current - 1].planned.name)
    if trouble:
        return Reply(False, f"{where}: {trouble}")
    return Reply(True, f"{where}: {text}" if text else f"the recipe goes on, {where}")
