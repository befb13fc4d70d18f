"""The command line: what there is, and who does it. Exit codes: 0 done, 1 failed, 2 wrong use, 130 left with Ctrl-C.

Commands import what they need when they run, so that the dashboard and short commands start at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from core.version import VERSION
from tui.commands.after_options import add_after
from tui.leaving import say
from tui.parsing import Subparsers
from tui.parsing import add_command as _command
from tui.parsing import add_json as _json

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
    _add_memory(commands)
    add_after(commands)
    _add_machine(commands)
    return top


def _fix(command: argparse.ArgumentParser) -> None:
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--fix", metavar="N", type=_place, help="which of its suggested fixes (1 by default)"
    )
    which.add_argument(
        "--no-fix", dest="fix", action="store_const", const=0, help="as it is, whatever was found"
    )


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
    _add_lr_range(commands)
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
            _fix(command)
        if name == "promote":
            _promoted(command)
        _json(command)
    _add_doctor(commands)
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


def _promoted(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--continue", dest="continues", action="store_true",
        help="go on from the checkpoint that the trial kept (search.keep_checkpoints) and not from the beginning",
    )  # fmt: skip
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="changes",
        help="what the full training has otherwise, as learning_rate=1e-4; may be given several times",
    )  # fmt: skip


def _add_doctor(commands: Subparsers) -> None:
    doctor = _command(
        commands, "doctor", "tui.commands.doctor:doctor",
        "what the curves of a study show, in words, and what to do about it",
    )  # fmt: skip
    doctor.add_argument("study", metavar="STUDY")
    doctor.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="only this trial")
    _json(doctor)


def _add_lr_range(commands: Subparsers) -> None:
    test = _command(
        commands, "lr-range", "tui.commands.lr_range:lr_range",
        "one short run at rising learning rates that shows which of them train",
    )  # fmt: skip
    test.epilog = "exit code: 0 it ran, 1 it failed or -o could not be written, 2 wrong use."
    test.add_argument("profile", metavar="PROFILE", help="a .toml file or a ready-made profile")
    test.add_argument(
        "--low", metavar="RATE", type=float, default=1e-7, help="the first rate (1e-7)"
    )
    test.add_argument("--high", metavar="RATE", type=float, default=1.0, help="the last rate (1)")
    test.add_argument(
        "--steps", metavar="N", type=int, default=100, help="updates in between (100)"
    )
    test.add_argument(
        "-o", "--output", metavar="FILE",
        help="write the profile with the suggested range as search.space.learning_rate",
    )  # fmt: skip
    test.add_argument("--force", action="store_true", help="replace the file if it exists")
    test.add_argument("--study", metavar="DIR", help="the study's folder, which must not exist yet")
    test.add_argument(
        "--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="changes",
        help="change a value of the profile; may be given several times",
    )  # fmt: skip
    _json(test)


def _add_profiles(commands: Subparsers) -> None:
    check = _command(
        commands,
        "check",
        "tui.commands.profiles:check",
        "say everything that is wrong with a profile",
    )
    check.add_argument("profile", metavar="PROFILE")
    check.add_argument(
        "--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="changes",
        help="change a value of the profile; may be given several times",
    )  # fmt: skip
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
    _add_data(commands)
    profiles = _command(
        commands, "profiles", "tui.commands.profiles:profiles", "the ready-made profiles"
    )
    _json(profiles)


def _add_data(commands: Subparsers) -> None:
    data = _command(
        commands, "data", "tui.commands.data:data",
        "a profile's data as its training sees it: template, loss mask, lengths, usual mistakes",
    )  # fmt: skip
    data.epilog = "exit code: 0 it can be trained on, 1 it cannot (or failed), 2 wrong use."
    data.add_argument(
        "profile", metavar="PROFILE", help="a .toml file, a ready-made profile, or a recipe"
    )
    data.add_argument("--step", metavar="NAME", help="only this step of a recipe")
    which = data.add_mutually_exclusive_group()
    which.add_argument(
        "--examples",
        metavar="N",
        type=_natural,
        default=3,
        help="show the first N rows (default: 3)",
    )
    which.add_argument(
        "--row", metavar="N", type=_natural, help="show row N of each file, and count nothing"
    )
    data.add_argument(
        "--all", action="store_true", help="examine every row, not just the first 20,000"
    )
    data.add_argument("--tokens", action="store_true", help="show where each token ends")
    data.add_argument("--ids", action="store_true", help="show each token with its number")
    data.add_argument("--whole", action="store_true", help="show long rows from end to end")
    data.add_argument(
        "--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="changes",
        help="change a value of the profile; may be given several times",
    )  # fmt: skip
    _json(data)


def _natural(text: str) -> int:
    """A number from 1 on.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is no number of rows: 1 or more")
    return int(text)


def _add_memory(commands: Subparsers) -> None:
    estimate = _command(
        commands, "estimate", "tui.commands.memory:estimate",
        "what a profile needs of a GPU's memory, and whether it fits",
    )  # fmt: skip
    estimate.epilog = f"exit code: 0 it fits, 1 it does not, 2 wrong use.\n\n{JSON_OF_ESTIMATE}"
    _question(estimate)
    estimate.add_argument(
        "--prove", action="store_true",
        help="dry-run two training steps on the CPU (seconds) in place of an estimate",
    )  # fmt: skip
    _json(estimate)
    fit = _command(
        commands, "fit", "tui.commands.memory:fit",
        "make a profile fit a GPU, or find the fastest way to run it there",
    )  # fmt: skip
    fit.epilog = f"exit code: 0 there is a way, 1 there is none, 2 wrong use.\n\n{JSON_OF_FIT}"
    _question(fit)
    fit.add_argument("-o", "--output", metavar="FILE", help="write the profile that fits")
    fit.add_argument(
        "--fix", metavar="N", type=_place,
        help="write this one (default: the first that leaves the result as it is)",
    )  # fmt: skip
    fit.add_argument("--force", action="store_true", help="replace the file if it exists")
    fit.add_argument(
        "--equivalent-only", action="store_true",
        help="only changes that leave the result as it is up to rounding",
    )  # fmt: skip
    _json(fit)


def _question(command: argparse.ArgumentParser) -> None:
    """What both questions about memory take."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("profile", metavar="PROFILE", help="a .toml file or a ready-made profile")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--gpu-gib", metavar="N", type=_gib, help="a GPU of N GiB that is not here")
    where.add_argument(
        "--device", metavar="GPU",
        help="a GPU here by number or UUID, or cpu (default: the one with the most free memory)",
    )  # fmt: skip
    command.add_argument(
        "--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="changes",
        help="change a value of the profile; may be given several times",
    )  # fmt: skip


def _gib(text: str) -> float:
    """A GPU's memory in GiB.

    Raises:
        argparse.ArgumentTypeError: it is no size that a GPU can have.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is no size of a GPU: a number of GiB, as 24")
    return value


def _place(text: str) -> int:
    """A number in a list that begins with 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is no number of a fix: the first is 1")
    return int(text)


JSON_OF_ESTIMATE = """\
JSON, sizes in bytes:
  profile; problem (why nothing could be proven, or "")
  device {kind, name, here, total, free, limit, capacity, guard}
  rows {train, evaluation, measured}: the longest, in tokens
  tier (estimate or proof), fits, notes
  needed (what the allocator must have), context (what the process holds
    besides), total, headroom, allocated, reserved
  parts {category: size at the peak}, moments {part of the run: its peak},
    peak, peak_step
  smallest_gpu (GB; null on the CPU, or where there is none)
  largest_batch and longest_sequence {value, proven, most}"""
JSON_OF_FIT = """\
JSON, sizes in bytes:
  profile, device; forecast {as `estimate --json` has it}; fits
  dominant, summary; tried (dry runs); problem (why nothing could be proven)
  fixes [{changes, text, needed, headroom, slowdown [at least, at most: the
    time per token as a factor], source, numerics (equivalent or different),
    effect, proven}]
  fastest (such a fix, where the profile fits and a faster way does; or null)
  written (the file, or null)"""


def _add_machine(commands: Subparsers) -> None:
    gpus = _command(
        commands, "gpus", "tui.commands.machine:gpus", "the GPUs, who uses them, and the host"
    )
    _json(gpus)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        arguments = parser().parse_args(argv)
        module, _, function = arguments.run.partition(":")
        code = int(getattr(import_module(module), function)(arguments))
        if sys.stdout is not None:
            # Now, while what cannot be written can still be told.
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of a pipe left, and wants to hear no more.
        return 1
    except KeyboardInterrupt as interrupt:
        return say(interrupt)
    except Exception as error:
        if is_ours(error):
            print(f"tunedeck: {error}", file=sys.stderr)
            return 1
        raise
    finally:
        _let_go()


def _let_go() -> None:
    """Give up what cannot be written: Python's own flush at exit would fail on it once more, with a status of its
    own."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_ours(error: Exception) -> bool:
    """Whether the error is one whose message a user can act on, so that no traceback is due."""
    from core.study.store import StudyError

    if isinstance(error, StudyError | OSError):
        return True
    names = (
        "ProfileError", "EngineError", "UnknownParameterError", "ArchitectureError", "MetricError", "SearchError"
    )  # fmt: skip
    return any(kind.__name__ in names for kind in type(error).__mro__)
