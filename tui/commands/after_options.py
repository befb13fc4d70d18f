"""The parsers of `tunedeck export`, `chat` and `eval`: what is done with a trained model."""

import argparse
import math
from collections.abc import Callable

from tui.parsing import Subparsers, add_command, add_json


def add_after(commands: Subparsers) -> None:
    """Add the three commands."""
    export = add_command(
        commands, "export", "tui.commands.after:export",
        "make one model of a run: adapters merged into their base, checked, ready to serve",
    )  # fmt: skip
    _run_of(export, device="cpu")
    export.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to write")
    _dtype(export, "the numbers of its weights (default: those that the base model is stored in)")
    export.add_argument(
        "--max-shard-size", metavar="SIZE", default="5GB", help="of one file of weights (5GB)"
    )
    export.add_argument(
        "--adapter-only", action="store_true", help="copy the adapter as it is, without its base"
    )
    export.add_argument(
        "--overwrite", action="store_true", help="replace a folder that is not empty"
    )
    add_json(export)
    chat = add_command(
        commands, "chat", "tui.commands.chat:chat", "talk to a run, and compare it with its base"
    )
    _run_of(chat, device="auto")
    _dtype(chat, "the numbers to hold weights in (default: as in training); bf16 halves fp32")
    chat.add_argument("--compare", action="store_true", help="let the base model answer as well")
    chat.add_argument("--system", metavar="TEXT", help="what the model is told before anything")
    _sampling(chat)
    evaluate = add_command(
        commands, "eval", "tui.commands.evaluate:evaluate",
        "loss, perplexity and accuracy of a run, and how its answers match references",
    )  # fmt: skip
    _run_of(evaluate, device="auto")
    evaluate.add_argument(
        "--data", metavar="NAME", action="append", default=[],
        help="rows to measure on: files, or names as data.dataset takes them (default: those that training set aside); "
        "may be given several times",
    )  # fmt: skip
    evaluate.add_argument("--base", action="store_true", help="measure the base model beside it")
    evaluate.add_argument(
        "--generate", action="store_true",
        help="answer each row and compare with the data's answers: exact match, ROUGE",
    )  # fmt: skip
    evaluate.add_argument(
        "--references", metavar="FILE",
        help="answers to compare with, one for each row (.jsonl, .json or .txt); as --generate",
    )  # fmt: skip
    evaluate.add_argument("-o", "--output", metavar="FILE", help="write the answers (JSON lines)")
    evaluate.add_argument("--max-samples", metavar="N", type=_count, help="only the first N rows")
    evaluate.add_argument("--batch-size", metavar="N", type=_count, help="rows at a time")
    _sampling(evaluate)
    add_json(evaluate)


def _run_of(command: argparse.ArgumentParser, device: str) -> None:
    """What names trained weights, and where they are worked with."""
    command.add_argument(
        "run_name",
        metavar="RUN",
        help="a study, a trial's folder, a checkpoint, or a folder of weights",
    )
    command.add_argument(
        "--trial", metavar="N", type=_whole, help="a trial of the study by its number"
    )
    command.add_argument(
        "--base-model",
        metavar="MODEL",
        help="the base model, where it is not where training found it",
    )
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default=device,
        help=f"where to compute; auto: a free GPU, else the CPU ({device})",
    )  # fmt: skip


def _dtype(command: argparse.ArgumentParser, text: str) -> None:
    """In which numbers weights are."""
    command.add_argument(
        "--dtype", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help=text
    )


def _sampling(command: argparse.ArgumentParser) -> None:
    """How answers are drawn."""
    group = command.add_argument_group("answers (default: the profile's [generation])")
    group.add_argument("--max-new-tokens", metavar="N", type=_count, help="of an answer at most")
    group.add_argument(
        "--temperature",
        metavar="T",
        type=_number(0, 100),
        help="0 takes the likeliest token each time",
    )
    group.add_argument("--top-p", metavar="P", type=_number(0, 1), help="draw from the likeliest")
    group.add_argument("--top-k", metavar="K", type=_whole, help="draw from so many tokens")
    group.add_argument("--seed", metavar="N", type=_whole, help="makes answers repeatable")


def _number(low: float, high: float) -> Callable[[str], float]:
    """What reads a number from `low` to `high`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is no number from {low:g} to {high:g}")
        return value

    return number


def _whole(text: str) -> int:
    """A whole number of at least 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text} is no whole number")
    return int(text)


def _count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
