"""`tunedeck stop`, `pause`, `resume`, `retry` and `promote`: wishes that a study's engine carries out."""

import argparse
import json
import sys
from pathlib import Path

from core.engine.client import daemon_alive, send
from core.engine.messages import Command, Reply, Request
from core.study.recipes import find_recipe
from core.study.store import StudyReader, find_study
from core.values import Scalar
from tui.leaving import goes_on
from tui.paths import shell_path


def stop(arguments: argparse.Namespace) -> int:
    """Stop a study or a trial."""
    return _send(arguments, "stop")


def pause(arguments: argparse.Namespace) -> int:
    """Pause a study or a trial."""
    return _send(arguments, "pause")


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a study or a trial."""
    return _send(arguments, "resume")


def retry(arguments: argparse.Namespace) -> int:
    """Give an ended trial another attempt; one that completed only with --force, as its result would be lost."""
    folder = find_study(arguments.study)
    trial = StudyReader(folder).state.trials.get(arguments.trial)
    if trial is not None and trial.status == "completed" and not arguments.force:
        said = f"trial {trial.number} completed: its result would be lost; --force tries it again all the same"
        print(f"tunedeck: {said}", file=sys.stderr)
        return 1
    return _ask(folder, Request("retry", arguments.trial, fix=arguments.fix), arguments.json)


def promote(arguments: argparse.Namespace) -> int:
    """Run a trial's settings, by default the winner's, as the full training; anew or from the trial's checkpoint."""
    from core.engine.standing import best_trial

    folder = find_study(arguments.study)
    trial = arguments.trial
    if trial is None:
        best = best_trial(StudyReader(folder).state)
        if best is None:
            print("tunedeck: no trial has completed yet: name one", file=sys.stderr)
            return 1
        trial = best.number
    try:
        changes = promoted_changes(arguments.changes)
    except ValueError as error:
        print(f"tunedeck: --set {error}", file=sys.stderr)
        return 2
    continues = bool(arguments.continues)
    return _ask(folder, Request("promote", trial, changes, continues=continues), arguments.json)


def promoted_changes(texts: list[str]) -> dict[str, Scalar] | None:
    """What the full training has otherwise than its trial; None where nothing was given.

    Raises:
        ValueError: a text is no KEY=VALUE, or the value is not allowed.
    """
    from tui.trial_settings import parse_settings

    return parse_settings(" ".join(texts)) if texts else None


def _send(arguments: argparse.Namespace, command: Command) -> int:
    recipe = find_recipe(arguments.study) if arguments.trial is None else None
    if recipe is not None:
        from tui.commands.recipe import control

        return control(recipe, command, as_json=arguments.json)
    return _ask(find_study(arguments.study), Request(command, arguments.trial), arguments.json)


def _ask(folder: Path, request: Request, as_json: bool) -> int:
    """Send one request, unless the study is already what is asked for."""
    already = _already(folder, request)
    with goes_on(lambda: not_known(folder, request.command)):
        reply = Reply(ok=True, text=already) if already else send(folder, request)
    if as_json:
        print(json.dumps({"ok": reply.ok, "text": reply.text, "trial": reply.trial}))
    else:
        print(
            reply.text if reply.ok else f"tunedeck: {reply.text}",
            file=None if reply.ok else sys.stderr,
        )
    return 0 if reply.ok else 1


def not_known(folder: Path, command: Command) -> str:
    """What is said to somebody who does not wait for the engine's answer."""
    return f"whether {command} was heard, `tunedeck status {shell_path(folder)}` tells"


def _already(folder: Path, request: Request) -> str:
    """Why nothing need be done; "" where something may. A study at rest gets no engine for it."""
    status = StudyReader(folder).state.status
    if request.command not in ("stop", "pause") or status == "running":
        return ""
    if request == Request("pause") and status == "paused":
        return "the study is paused already"
    goes_on = request.command == "stop" and status == "paused"
    return "" if goes_on or daemon_alive(folder) else f"the study is {status} already: nothing runs"
