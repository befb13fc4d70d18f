"""Follow a recipe without a dashboard: each step as any study is followed, and what is handed over in between."""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

from core.engine.recipes.handover import carrier_alive, stands, take_up
from core.engine.recipes.plan import Rest, due_step, place, trouble_of
from core.study.recipes import (
    AnyRecipeEvent,
    ModelsRemoved,
    RecipeReader,
    RecipeState,
    StepExported,
    StepExporting,
    StepStarting,
)
from tui import words
from tui.follow import TICK, follow_events
from tui.leaving import first_done, goes_on, of_recipe
from tui.paths import shell_path


def follow_recipe(folder: Path, out: TextIO | None = None) -> int:
    """Print what happens until the recipe rests; 0 when all steps are done, 1 when it cannot, or waits for somebody.

    Ctrl+C ends the following, not the recipe.

    Raises:
        StudyError: the recipe or a study of it cannot be read.
        EngineError: what carries it on died and cannot be started again.
        KeyboardInterrupt: Ctrl+C; a note says what becomes of the recipe.
    """
    out = out or sys.stdout
    reader = RecipeReader(folder)
    with goes_on(lambda: of_recipe(folder)):
        while True:
            code = _look(reader, out)
            if code is not None:
                return code
            time.sleep(TICK)
            for event in reader.poll():
                _say(happening(event, reader.state), out)


def happening(event: AnyRecipeEvent, state: RecipeState) -> str:
    """What a record means to a person, in a line; empty where it means nothing new."""
    match event:
        case StepStarting():
            return f"{_place(state, event.step)} starts"
        case StepExporting():
            return (
                f"{_place(state, event.step)}: making a model of the weights of trial {event.trial}"
            )
        case StepExported():
            size = f" ({words.size(event.bytes)} on the disk)" if event.bytes else ""
            return f"{_place(state, event.step)} is done{size}"
        case ModelsRemoved():
            numbers = ", ".join(map(str, event.steps))
            return f"the models of step {numbers} are removed (recipe.keep_models = false)"
    return ""


def closing(reader: RecipeReader) -> str:
    """Where the result of a recipe that is done lies."""
    last = reader.state.steps[-1]
    if last.planned.makes_reward_model:
        trial = reader.folder.study(last.planned).trial(last.exported or 1)
        return f"All steps are done. The reward model is in {os.path.relpath(trial.output)}"
    model = reader.folder.model(last.planned)
    return f"All steps are done. The model is in {os.path.relpath(model)}"


def _look(reader: RecipeReader, out: TextIO) -> int | None:
    """Follow the step that runs, or see to it that the next one comes; the exit code once there is nothing to wait
    for."""
    folder = reader.folder.path
    at_work = carrier_alive(folder)
    reader.poll()
    action = stands(reader)
    if not isinstance(action, Rest):
        trouble = trouble_of(reader.state, action)
        if trouble and not at_work:
            print(f"\n{_place(reader.state, due_step(reader.state, action))}: {trouble}", file=out)
            print(f"  try again:  tunedeck resume {shell_path(folder)}", file=out)
            return 1
        if not at_work:
            with first_done():
                take_up(folder)
        return None
    if action.kind == "running":
        _follow_step(reader, action.step, out)
        return None
    print(file=out)
    if action.kind == "done":
        print(closing(reader), file=out)
        return 0
    print(f"{action.text[:1].upper()}{action.text[1:]}.", file=out)
    if action.kind in ("paused", "stopped"):
        print(f"  go on:  tunedeck resume {shell_path(folder)}", file=out)
    return 1


def _follow_step(reader: RecipeReader, number: int, out: TextIO) -> None:
    study = reader.folder.study(reader.state.steps[number - 1].planned).path
    print(f"\n-- {_place(reader.state, number)}, in {os.path.relpath(study)}", file=out)
    # What comes of the recipe is said to whoever leaves, not what comes of the step alone.
    follow_events(study, out)


def _place(state: RecipeState, number: int) -> str:
    return place(number, len(state.steps), state.steps[number - 1].planned.name)


def _say(line: str, out: TextIO) -> None:
    if line:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=out, flush=True)
