"""`tunedeck export` and `tunedeck eval`: what becomes of a trained model."""

import argparse
import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

import msgspec

from core.engine import after
from core.engine.after import AfterError
from core.engine.borrowing import borrowed
from core.engine.runs import FoundRun, find_run
from core.study.after import Check, ExportReply, ExportRequest, Progress
from tui import words
from tui.paths import short_path

REPORT_EVERY = 10.0
"""Seconds between two lines of progress where the output is no terminal."""


class ProgressLine:
    """What is being done, on the error output: in one line of a terminal, else a line for each new thing.

    A context manager: it clears its line on the way out.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._what = ""
        self._told = 0.0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def show(self, progress: Progress) -> None:
        """Show what is being done now."""
        text = progress.what
        if progress.total:
            text += f" {progress.done:,} of {progress.total:,}"
        if self._live:
            self._out.write(f"\r{text}\x1b[K")
        elif progress.what != self._what or time.monotonic() - self._told > REPORT_EVERY:
            self._out.write(f"{text}\n")
            self._told = time.monotonic()
        self._what = progress.what
        self._out.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live and self._what:
            self._out.write("\r\x1b[K")
            self._out.flush()
        self._what = ""


def export(arguments: argparse.Namespace) -> int:
    """Make one model of a run and its base."""
    run = find_run(arguments.run_name, arguments.trial, arguments.base_model)
    # Resolved: what is written is renamed in the end, which a link that stands there would not let happen.
    output = Path(arguments.output).expanduser().resolve()
    if not arguments.json:
        print(f"exporting {run.text}", file=sys.stderr)
    try:
        with borrowed(arguments.device) as place, ProgressLine() as line:
            tell(place.note)
            request = ExportRequest(
                weights=run.weights,
                output=str(output),
                dtype=arguments.dtype,
                max_shard_size=arguments.max_shard_size,
                device=place.device,
                adapter_only=arguments.adapter_only,
                overwrite=arguments.overwrite,
            )
            reply = after.export(request, line.show, place.environment)
    except AfterError as error:
        return failed(error, arguments.json)
    if arguments.json:
        print(json.dumps(_as_json(run, reply), indent=1))
    else:
        print(export_text(reply))
    return 0


def export_text(reply: ExportReply) -> str:
    """What was exported, what was checked, and how to serve it."""
    place = short_path(Path(reply.output))
    lines = [
        f"{place}: {reply.kind}, {reply.parameters:,} parameters in {reply.dtype}, {words.size(reply.bytes)}"
    ]
    lines += [_check_text(check, reply.kind) for check in reply.checks]
    if reply.effect is not None and reply.checks:
        lines.append(f"training moved the logits by {reply.effect:.2g} of their size")
    lines += [f"note: {note}" for note in reply.notes]
    if reply.serve:
        lines += ["serve it with one of", *(f"  {each}" for each in reply.serve)]
    return "\n".join(lines)


def _check_text(check: Check, kind: str) -> str:
    what = {"merged": "merged against base and adapter", "written": "loaded again from its files"}
    noun = "scores" if kind == "reward model" else "logits"
    text = f"checked: {what[check.what]}, {noun} differ by {check.error:.1g} of their size"
    text += f" ({check.tolerance:g} is allowed)"
    if check.agreement is None:
        return text
    return f"{text}, the same token is likeliest in {check.agreement:.1%} of {check.tokens} places"


def failed(error: AfterError, as_json: bool) -> int:
    """Say why something could not be done; returns the exit code."""
    if as_json:
        print(json.dumps({"error": str(error), "kept": error.kept}))
    print(f"tunedeck: {error}", file=sys.stderr)
    return 2 if error.usage else 1


def tell(note: str) -> None:
    """Say something besides, where there is something to say."""
    if note:
        print(f"note: {note}", file=sys.stderr)


def _as_json(run: FoundRun, reply: ExportReply) -> dict[str, object]:
    made = msgspec.to_builtins(reply)
    return {"run": run.text, "weights": run.weights.folder, **made}
