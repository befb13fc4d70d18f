"""`tunedeck eval`: what a trained model is worth, in a table."""

import argparse
import json
import sys
from pathlib import Path

import msgspec

from core.engine import after
from core.engine.after import AfterError
from core.engine.borrowing import borrowed
from core.engine.runs import find_run
from core.study.after import EvaluateReply, EvaluateRequest
from tui import words
from tui.commands.after import ProgressLine, failed, tell
from tui.commands.chat import sampling_of
from tui.text_table import table

_LABELS = {
    "eval_loss": "loss (nats a token)",
    "eval_perplexity": "perplexity",
    "eval_accuracy": "token accuracy",
    "eval_reward_accuracy": "reward accuracy",
    "eval_reward_margin": "reward margin",
    "eval_reward_chosen": "reward of the chosen",
    "eval_reward_rejected": "reward of the rejected",
    "eval_reward": "mean reward",
    "eval_kl": "KL divergence",
    "exact_match": "exact match",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
_SHARES = ("eval_accuracy", "eval_reward_accuracy", "exact_match", "rouge1", "rouge2", "rougeL")
"""What is shown as a percentage."""
_TOKEN_STAGES = ("eval_perplexity",)
"""Its presence says that the loss is one of tokens; that of other stages is another number."""


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a run."""
    run = find_run(arguments.run_name, arguments.trial, arguments.base_model)
    if not arguments.json:
        print(f"measuring {run.text}", file=sys.stderr)
    try:
        with borrowed(arguments.device) as place, ProgressLine() as line:
            tell(place.note)
            request = EvaluateRequest(
                weights=run.weights,
                data=tuple(arguments.data),
                device=place.device,
                base=arguments.base,
                generate=arguments.generate,
                references=_absolute(arguments.references) if arguments.references else None,
                output=_absolute(arguments.output) if arguments.output else None,
                max_samples=arguments.max_samples,
                sampling=sampling_of(arguments),
                batch_size=arguments.batch_size,
            )
            reply = after.evaluate(request, line.show, place.environment)
    except AfterError as error:
        return failed(error, arguments.json)
    if arguments.json:
        made = msgspec.to_builtins(reply)
        print(json.dumps({"run": run.text, "weights": run.weights.folder, **made}, indent=1))
    else:
        print(evaluation_text(reply))
    return 0


def evaluation_text(reply: EvaluateReply) -> str:
    """What was measured, a row for each number and a column for each model."""
    names = list(dict.fromkeys(name for r in reply.results for name in r.metrics))
    tokens = any(name in _TOKEN_STAGES for name in names)
    rows = [
        [_label(name, tokens=tokens), *(_value(name, r.metrics.get(name)) for r in reply.results)]
        for name in names
    ]
    headers = ["", *(r.who for r in reply.results)]
    dropped = (
        f", {reply.dropped:,} left out (nothing to learn within cutoff_len)"
        if reply.dropped
        else ""
    )
    lines = [
        f"{words.plural(reply.rows, 'row')} of {reply.data}{dropped}",
        table(headers, rows, right=range(1, len(headers))),
        *(f"note: {note}" for note in reply.notes),
    ]
    if reply.output is not None:
        lines.append(f"the answers are in {reply.output}")
    return "\n".join(lines)


def _label(name: str, *, tokens: bool) -> str:
    if name == "eval_loss" and not tokens:
        return "loss"
    return _LABELS.get(name, name.removeprefix("eval_").replace("_", " "))


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "no number"
    return f"{value:.2%}" if name in _SHARES else f"{value:.5g}"


def _absolute(name: str) -> str:
    return str(Path(name).expanduser().absolute())
