"""What `run`, `check`, `attach`, `status`, `trials`, `best`, `stop`, `pause` and `resume` do with a recipe."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from core.catalogue import UnknownParameterError
from core.engine.messages import Command, Reply
from core.engine.outcome import summary
from core.engine.recipes.handover import carrier_alive, create_recipe, stands, take_up, views
from core.engine.recipes.plan import (
    Action,
    Rest,
    Serve,
    StepView,
    due_step,
    next_action,
    place,
    result_trial,
    trouble_of,
)
from core.engine.recipes.wishes import steer
from core.engine.standing import best_trial
from core.profile import ProfileError
from core.recipe import Recipe, load, missing_in
from core.recipe_size import disk_of, rows_of
from core.study.recipes import RecipeReader
from core.study.store import StudyReader, describe, new_folder, recipe_steps
from tui import words
from tui.commands.control import not_known
from tui.commands.run import dashboard, parse_changes
from tui.commands.studies import best_as_json, ranking_table, status_of, trials_of, trials_table
from tui.leaving import first_done, goes_on, of_recipe
from tui.paths import shell_path
from tui.text_table import table

_STEP = "step."


def loaded(path: Path, texts: list[str]) -> Recipe:
    """The recipe in a file with what `--set` says, all that it names being there.

    Raises:
        ProfileError: the recipe is wrong, or a file that it names does not exist.
        ValueError: what `--set` says is no KEY=VALUE, or a value is not allowed.
        UnknownParameterError: there is no such parameter.
    """
    recipe = load(path, recipe_changes(texts))
    problems = missing_in(recipe)
    if problems:
        raise ProfileError(str(path), problems)
    return recipe


def recipe_changes(texts: list[str]) -> dict[str, object]:
    """What `--set` says of a recipe: `step.NAME.TABLE.KEY=VALUE`, or `TABLE.KEY=VALUE` of what all steps share.

    Raises:
        ValueError: a text is no KEY=VALUE, or its value is not allowed.
        UnknownParameterError: there is no such parameter.
    """
    changes: dict[str, object] = {}
    for text in texts:
        of_step = text.strip().startswith(_STEP)
        head, rest = "", text
        if of_step:
            name, dot, rest = text.strip().removeprefix(_STEP).partition(".")
            if not dot or "=" in name:
                raise ValueError(f"{text}: write step.NAME.TABLE.KEY=VALUE")
            head = f"{_STEP}{name}."
        changes |= {head + key: value for key, value in parse_changes([rest]).items()}
    return changes


def run(arguments: argparse.Namespace, path: Path, *, searching: bool = True) -> int:
    """Start a recipe and show it; without `searching` each step is one full training."""
    try:
        recipe = loaded(path, arguments.changes)
    except (ValueError, UnknownParameterError) as error:
        print(f"tunedeck: --set {error}", file=sys.stderr)
        return 2
    recipe = recipe if searching else recipe.as_training()
    wanted = Path(arguments.study) if arguments.study else new_folder(recipe.name)
    with goes_on(lambda: of_recipe(wanted)):
        with first_done():
            folder = create_recipe(recipe, wanted)
            take_up(folder)
        if arguments.detach:
            print(f"The recipe runs in {folder}, {words.plural(len(recipe.steps), 'step')}")
            print(f"  watch it:  tunedeck attach {shell_path(folder)}")
            return _trouble(folder)
        return _show(folder, arguments, f"The recipe is in {os.path.relpath(folder)}")


def attach(folder: Path, arguments: argparse.Namespace) -> int:
    """Watch a recipe, and take it up where it stands."""
    with goes_on(lambda: of_recipe(folder)):
        with first_done():
            take_up(folder)
        return _show(folder, arguments, "")


def _show(folder: Path, arguments: argparse.Namespace, said: str) -> int:
    if not arguments.headless and sys.stdin.isatty() and sys.stdout.isatty():
        begun = recipe_steps(folder)
        if _trouble(folder):
            return 1
        return dashboard(arguments, begun[-1]) if begun else status(folder, as_json=False)
    from tui.follow_recipe import follow_recipe

    if said:
        print(f"{said}; it goes on if you leave (Ctrl+C).")
    return follow_recipe(folder)


def _trouble(folder: Path) -> int:
    """Say why the recipe does not go on, where that is so; the exit code."""
    reader = RecipeReader(folder)
    state, action = reader.state, stands(reader)
    trouble, number = trouble_of(state, action), due_step(state, action)
    if not trouble:
        return 0
    where = place(number, len(state.steps), state.steps[number - 1].planned.name)
    print(f"tunedeck: {where}: {trouble}", file=sys.stderr)
    return 1


# -- check ------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace, path: Path) -> int:
    """Say what a recipe will run, or everything that is wrong with it."""
    try:
        recipe = loaded(path, arguments.changes)
    except (ValueError, UnknownParameterError) as error:
        print(f"tunedeck: --set {error}", file=sys.stderr)
        return 2
    except ProfileError as error:
        if arguments.json:
            found = [
                {"key": p.key, "wrong": p.wrong, "right": p.right, "line": p.line}
                for p in error.problems
            ]
            print(json.dumps({"ok": False, "file": str(path), "problems": found}, indent=1))
        else:
            print(error, file=sys.stderr)
        return 1
    steps = _planned(recipe)
    if arguments.json:
        disk = disk_of(recipe)
        taken = {"each": disk.each, "models": disk.models, "kept": disk.kept}
        told = {"ok": True, "file": str(path), "problems": [], "steps": steps, "disk": taken}
        print(json.dumps(told, indent=1))
        return 0
    print(f"{path}: fine. A recipe of {words.plural(len(steps), 'step')}:")
    rows = [
        (
            f"{s['step']}", s["name"], s["stage"], s["finetuning_type"], s["from"], _rate(s), _length(s),
            "?" if s["rows"] is None else str(s["rows"]),
            f"{', '.join(s['searches'])}: {words.plural(s['trials'], 'trial')}" if s["searches"] else "nothing",
        )
        for s in steps
    ]  # fmt: skip
    headers = ("", "step", "stage", "method", "from", "rate", "length", "rows", "searches")
    print(table(headers, rows, right=(0, 7)))
    print(disk_text(recipe))
    return 0


def _planned(recipe: Recipe) -> list[dict[str, Any]]:
    """The steps as they will run, for programs."""
    from core.search.choice import choose

    told = []
    for step in recipe.steps:
        profile = step.profile
        told.append(
            {
                "step": step.number,
                "name": step.name,
                "stage": profile.method.stage,
                "finetuning_type": profile.method.finetuning_type,
                "from": step.source or "base",
                "reward_model": step.reward,
                "learning_rate": profile.train.learning_rate,
                "epochs": profile.train.num_train_epochs,
                "max_steps": profile.train.max_steps,
                "rows": rows_of(step),
                "searches": list(profile.search.space),
                "trials": choose(profile, gpus=None).trials if step.searches else 1,
            }
        )
    return told


def _rate(step: dict[str, Any]) -> str:
    return "searched" if "learning_rate" in step["searches"] else f"{step['learning_rate']:g}"


def _length(step: dict[str, Any]) -> str:
    if step["max_steps"] is not None:
        return words.plural(step["max_steps"], "update")
    epochs = step["epochs"]
    return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"


def disk_text(recipe: Recipe) -> str:
    """What the models of a recipe take on the disk, as a sentence."""
    disk = disk_of(recipe)
    each = "as much as the model itself" if disk.each is None else f"about {words.size(disk.each)}"
    models = words.plural(disk.models, "step")
    told = f"Disk: a model of {each} for each of {models}"
    if disk.each is not None:
        told += f", {words.size(disk.each * disk.models)} together"
    if recipe.keep_models:
        return f"{told}; all stay (recipe.keep_models = false removes those in between when all steps are done)."
    return f"{told}; when all steps are done those in between are removed (recipe.keep_models)."


# -- how it stands ----------------------------------------------------------------------------


def status(folder: Path, *, as_json: bool) -> int:
    """Say how a recipe and its steps stand."""
    reader = RecipeReader(folder)
    seen = views(reader)
    action = next_action(reader.state, seen, reader.folder.held())
    trouble = trouble_of(reader.state, action)
    kind = action.kind if isinstance(action, Rest) else "failed" if trouble else "running"
    why = action.text if isinstance(action, Rest) else trouble or _due(action, folder)
    if as_json:
        told = {
            "recipe": folder.name, "folder": str(folder), "status": kind, "reason": why,
            "step": reader.state.current, "steps": [_step_status(reader, view) for view in seen],
            "handing_over": carrier_alive(folder),
        }  # fmt: skip
        print(json.dumps(told, indent=1))
        return 0
    print(f"{folder.name}: {kind}, step {reader.state.current} of {len(seen)}")
    print(f"  folder   {folder}")
    rows = [(str(v.number), v.name, v.record.planned.stage, _state(v), _told(v)) for v in seen]
    listed = table(("", "step", "stage", "state", ""), rows, right=(0,))
    print("\n".join(f"  {line}" for line in listed.splitlines()))
    if kind != "running" or not isinstance(action, Rest):
        print(f"  {why[:1].upper()}{why[1:]}.")
    if hint := _hint(reader, action, trouble):
        print(f"  {hint}")
    return 0


def _hint(reader: RecipeReader, action: Action, trouble: str) -> str:
    """What a person may do about a recipe as it stands, or where its result is; empty where it goes on by itself."""
    folder = reader.folder.path
    shown = shell_path(folder)
    if not isinstance(action, Rest):
        if carrier_alive(folder):
            return ""
        if trouble:
            return f"try again:  tunedeck resume {shown}"
        return f"Nothing carries it on just now: tunedeck attach {shown}"
    if action.kind in ("paused", "stopped"):
        return f"go on:   tunedeck resume {shown}"
    last = reader.state.steps[-1].planned
    if action.kind == "done" and not last.makes_reward_model:
        return f"model    {reader.folder.model(last)}"
    return ""


def _due(action: Action, folder: Path) -> str:
    """What is to be done next, or is being done."""
    if isinstance(action, Serve):
        return "the engine of this step is gone with work left"
    return "the next step is being prepared" if carrier_alive(folder) else "the next step is due"


def _state(view: StepView) -> str:
    """The state of a step in a word."""
    if view.record.exported is not None:
        return "done"
    if view.state is None:
        return "waits"
    if view.state.status == "running":
        return "running" if view.engine else "engine not running"
    if view.state.status != "finished":
        return view.state.status
    return "trained" if result_trial(view.state) is not None else "failed"


def _told(view: StepView) -> str:
    """What a step has come to, in a line."""
    if view.state is None:
        return ""
    result = result_trial(view.state)
    if result is not None:
        value = result.value if result.value is not None else result.loss
        size = f", model {words.size(view.record.bytes)}" if view.record.bytes else ""
        settings = describe(result.changes)
        told = f"trial {result.number}, {view.state.rank_by} {words.loss(value)}{size}"
        return f"{told}: {settings}" if settings else told
    trials = view.state.trials.values()
    ended = sum(t.ended for t in trials)
    planned = max(view.state.planned, len(trials))
    if view.state.status == "finished":
        return summary(view.state)
    return f"{ended} of {words.plural(planned, 'trial')} ended"


def _step_status(reader: RecipeReader, view: StepView) -> dict[str, Any]:
    planned = view.record.planned
    study = reader.folder.study(planned).path
    result = result_trial(view.state) if view.state is not None else None
    output = None
    if view.record.exported is not None and not view.record.removed:
        trial = reader.folder.study(planned).trial(view.record.exported)
        output = str(trial.output if planned.makes_reward_model else reader.folder.model(planned))
    return {
        "step": view.number, "name": view.name, "stage": planned.stage, "from": planned.source,
        "status": _state(view), "folder": str(study), "trial": result.number if result else None,
        "value": result.value if result else None, "model": output, "bytes": view.record.bytes,
        "trouble": view.record.trouble,
        "study": None if view.state is None else status_of(study, view.state),
    }  # fmt: skip


def trials(folder: Path, *, as_json: bool) -> int:
    """List the trials of every step that was begun."""
    told = []
    for view, reader in _begun(folder):
        if as_json:
            told.append({"step": view.number, "name": view.name, "trials": trials_of(reader)})
        else:
            print(f"{'' if view.number == 1 else chr(10)}step {view.number}, {view.name}")
            print(trials_table(reader))
    if as_json:
        print(json.dumps(told, indent=1))
    return 0


def best(folder: Path, *, as_json: bool) -> int:
    """Print the winner of every step that was begun."""
    told: list[dict[str, Any]] = []
    for view, reader in _begun(folder):
        winner = best_trial(reader.state)
        if as_json:
            content = best_as_json(reader, winner)
            told.append({"step": view.number, "name": view.name, "best": content})
            continue
        print(f"{'' if view.number == 1 else chr(10)}step {view.number}, {view.name}")
        if winner is None:
            waits = reader.state.status == "running"
            print("no trial has completed yet" if waits else summary(reader.state))
            continue
        print(f"trial {winner.number}: {describe(winner.changes) or 'the profile as it is'}")
        if winner.kind == "probe":
            print(ranking_table(reader.state))
    if as_json:
        print(json.dumps(told, indent=1))
    return 0


def _begun(folder: Path) -> list[tuple[StepView, StudyReader]]:
    reader = RecipeReader(folder)
    seen = [v for v in views(reader) if v.state is not None]
    return [(v, StudyReader(reader.folder.study(v.record.planned).path)) for v in seen]


# -- steering ---------------------------------------------------------------------------------


def control(folder: Path, command: Command, *, as_json: bool) -> int:
    """Stop, pause or resume a recipe: the step that it is at, and what comes after it."""
    with goes_on(lambda: not_known(folder, command)):
        reply: Reply = steer(folder, command)
    if as_json:
        print(json.dumps({"ok": reply.ok, "text": reply.text, "trial": reply.trial}))
    else:
        out = sys.stdout if reply.ok else sys.stderr
        print(reply.text if reply.ok else f"tunedeck: {reply.text}", file=out)
    return 0 if reply.ok else 1
