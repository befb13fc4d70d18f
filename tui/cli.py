"""The command line: what there is, and who does it. Exit codes: 0 done, 1 failed, 2 wrong use.

Commands import what they need when they run, so that the dashboard and short commands start at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TypeAlias

from core.version import VERSION

EPILOG = """\
without a command, the dashboard opens. A STUDY is a folder, or a study's name as `tunedeck studies` lists it.
start here:  tunedeck demo      then:  tunedeck run lora-small --set model.model_name_or_path=PATH ...
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="tunedeck",
        description="Find good fine-tuning settings for a language model on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"tunedeck {VERSION}")
    top.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    top.set_defaults(run="tui.commands.run:dashboard")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    _add_running(commands)
    _add_studies(commands)
    _add_profiles(commands)
    _add_machine(commands)
    return top


Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(commands: Subparsers, name: str, run: str, text: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    made.set_defaults(run=run)
    made.add_argument(
        "--ascii", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return made


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON for programs")


def _add_running(commands: Subparsers) -> None:
    demo = _command(
        commands, "demo", "tui.commands.run:demo",
        "a real search on a small model, without a GPU or a network",
    )  # fmt: skip
    demo.add_argument("--headless", action="store_true", help="print progress, open no dashboard")
    demo.add_argument("--study", metavar="DIR", help="the study's folder (default: studies/demo)")
    for name, text in (
        ("run", "start the search that a profile describes"),
        ("train", "run a profile as one full training, without a search"),
    ):
        run = _command(commands, name, f"tui.commands.run:{name}", text)
        run.add_argument("profile", metavar="PROFILE", help="a .toml file or a ready-made profile")
        run.add_argument(
            "--headless", action="store_true", help="print progress, open no dashboard"
        )
        run.add_argument("--detach", action="store_true", help="start it and return at once")
        run.add_argument(
            "--study", metavar="DIR", help="the study's folder, which must not exist yet"
        )
        run.add_argument(
            "--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="changes",
            help="change a value of the profile; may be given several times",
        )  # fmt: skip
    attach = _command(
        commands,
        "attach",
        "tui.commands.run:attach",
        "watch a study, and take it up again if its engine died",
    )
    attach.add_argument("study", metavar="STUDY")
    attach.add_argument("--headless", action="store_true", help="print progress, open no dashboard")


def _add_studies(commands: Subparsers) -> None:
    for name, text in (
        ("status", "how a study stands"),
        ("trials", "the trials of a study"),
        ("best", "the winner of a study and its settings"),
    ):
        command = _command(commands, name, f"tui.commands.studies:{name}", text)
        command.add_argument("study", metavar="STUDY")
        _json(command)
    for name, text in (
        ("stop", "stop a study or one of its trials"),
        ("pause", "save a checkpoint, free the GPU, and go on later"),
        ("resume", "go on with a paused or stopped study or a paused trial"),
        ("retry", "try an ended trial again, with its suggested memory fix if it has one"),
        ("promote", "run a trial's settings (the winner's by default) as the full training"),
    ):
        command = _command(commands, name, f"tui.commands.control:{name}", text)
        command.add_argument("study", metavar="STUDY")
        needed = None if name == "retry" else "?"
        command.add_argument("trial", metavar="TRIAL", type=int, nargs=needed)
        if name == "retry":
            command.add_argument("--force", action="store_true", help="also a trial that completed")
        _json(command)
    save = _command(
        commands,
        "save",
        "tui.commands.studies:save",
        "save a trial's settings (the winner's by default) as a profile",
    )
    save.add_argument("study", metavar="STUDY")
    save.add_argument("--trial", metavar="N", type=int, help="another trial than the winner")
    save.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the .toml file to write"
    )
    save.add_argument(
        "--probe", action="store_true",
        help="keep the trial's length, so that `train` repeats the trial and not the full training",
    )  # fmt: skip
    save.add_argument("--force", action="store_true", help="replace the file if it exists")
    studies = _command(
        commands, "studies", "tui.commands.studies:studies", "the studies that are known here"
    )
    _json(studies)


def _add_profiles(commands: Subparsers) -> None:
    check = _command(
        commands,
        "check",
        "tui.commands.profiles:check",
        "say everything that is wrong with a profile",
    )
    check.add_argument("profile", metavar="PROFILE")
    _json(check)
    params = _command(
        commands, "params", "tui.commands.profiles:params", "explain the parameters of a profile"
    )
    params.add_argument(
        "key", metavar="KEY", nargs="?", help="a parameter, a table, or a part of a name"
    )
    params.add_argument(
        "--schema", action="store_true", help="print the JSON schema of a profile, for editors"
    )
    _json(params)
    profiles = _command(
        commands, "profiles", "tui.commands.profiles:profiles", "the ready-made profiles"
    )
    _json(profiles)


def _add_machine(commands: Subparsers) -> None:
    gpus = _command(
        commands, "gpus", "tui.commands.machine:gpus", "the GPUs, who uses them, and the host"
    )
    _json(gpus)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = parser().parse_args(argv)
    module, _, function = arguments.run.partition(":")
    try:
        return int(getattr(import_module(module), function)(arguments))
    except BrokenPipeError:
        # The reader of a pipe left; Python's own flush at exit must not fail on it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        if is_ours(error):
            print(f"tunedeck: {error}", file=sys.stderr)
            return 1
        raise


def is_ours(error: Exception) -> bool:
    """Whether the error is one whose message a user can act on, so that no traceback is due."""
    from core.study.store import StudyError

    if isinstance(error, StudyError | OSError):
        return True
    return type(error).__name__ in ("ProfileError", "EngineError", "UnknownParameterError")
