"""`tunedeck data`: a profile's data as its training sees it, its lengths, and what looks like a mistake."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from core.engine.preview import Preview, PreviewError, request
from core.study.preview import FIRST_ROWS, Began, Counted, Failed, Progress, Shown
from tui import data_view
from tui.data_view import Line, Role, Style

if TYPE_CHECKING:
    from core.profile import Profile

WIDTH = 96
NARROWEST = 40
PROGRESS_EVERY = 0.2
"""Seconds between two lines of progress on a terminal."""

COLOURS: Mapping[Role, str] = {
    "learnt": "32",
    "special": "36",
    "mark": "2",
    "escape": "33",
    "border": "2",
    "head": "1",
    "note": "2",
    "bar": "34",
    "beyond": "33",
    "warning": "33",
    "error": "31",
}
"""What a terminal's own palette has for each role: SGR parameters."""


@dataclass(frozen=True, slots=True)
class Paper:
    """Where the answer is written, and how."""

    out: TextIO
    style: Style
    colours: bool
    width: int = WIDTH
    """Columns that words and bars take; what stands in the data keeps its lines."""

    def line(self, line: Line, indent: str = "") -> None:
        told = "".join(self._coloured(text, role) for text, role in line)
        print(f"{indent}{told}".rstrip(), file=self.out)

    def text(self, text: str, role: Role = "text", *, hang: int = 0) -> None:
        """Words, wrapped."""
        shown = data_view.spelled_out(text, ascii=self.style.ascii)
        for part in textwrap.wrap(shown, self.width, subsequent_indent=" " * hang) or [""]:
            self.line([(part, role)])

    def _coloured(self, text: str, role: Role) -> str:
        code = COLOURS.get(role) if self.colours else None
        return f"\x1b[{code}m{text}\x1b[0m" if code else text


def data(arguments: argparse.Namespace) -> int:
    """Show a profile's data: 0 where it can be trained on, 1 where it cannot, 2 for wrong use."""
    from core.profile import Profile
    from tui.commands.run import profile_of, recipe_file

    if path := recipe_file(arguments.profile):
        return _steps(arguments, path)
    if arguments.step is not None:
        print(f"tunedeck: --step: {arguments.profile} is no recipe", file=sys.stderr)
        return 2
    profile = profile_of(arguments, rows=False)
    if not isinstance(profile, Profile):
        return profile
    if not arguments.json:
        return _look(arguments, profile, Printer(_paper(arguments), profile.profile.name))
    report = Report()
    code = _look(arguments, profile, report)
    print(as_text(report.told()))
    return code


def _steps(arguments: argparse.Namespace, path: Path) -> int:
    """The data of each step of a recipe, or of the one that is named."""
    from core.catalogue import UnknownParameterError
    from tui.commands.recipe import loaded

    try:
        recipe = loaded(path, arguments.changes)
    except (ValueError, UnknownParameterError) as error:
        print(f"tunedeck: --set {error}", file=sys.stderr)
        return 2
    steps = [step for step in recipe.steps if arguments.step in (None, step.name)]
    if not steps:
        there = ", ".join(step.name for step in recipe.steps)
        print(f"tunedeck: --step {arguments.step}: there are {there}", file=sys.stderr)
        return 2
    codes, told = [], []
    for step in steps:
        name = f"step {step.number}, {step.name}"
        if arguments.json:
            report = Report()
            codes.append(_look(arguments, step.profile, report))
            told.append({"step": step.name, **report.told()})
            continue
        if codes:
            print()
        codes.append(_look(arguments, step.profile, Printer(_paper(arguments), name)))
    if arguments.json:
        print(as_text({"ok": not any(codes), "steps": told}))
    return max(codes)


def _look(arguments: argparse.Namespace, profile: Profile, teller: Printer | Report) -> int:
    """Look at one profile's data; the exit code."""
    asked = request(
        profile,
        examples=arguments.examples,
        row=arguments.row,
        most=None if arguments.all else FIRST_ROWS,
        examine=arguments.row is None,
    )
    try:
        with Preview(asked) as preview:
            for told in preview:
                teller.take(told)
    except PreviewError as error:
        teller.take(Failed(str(error), usage=False))
    return teller.end()


def _paper(arguments: argparse.Namespace) -> Paper:
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    plain = bool(arguments.ascii) or not encoding.startswith("utf")
    colours = terminal and not os.environ.get("NO_COLOR") and not arguments.ascii
    style = Style(
        ascii=plain,
        brackets=not colours,
        tokens=arguments.tokens,
        ids=arguments.ids,
        most=None if arguments.whole else Style().most,
    )
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    return Paper(sys.stdout, style, colours, max(NARROWEST, min(WIDTH, columns)))


class Printer:
    """Writes what is told as it comes."""

    def __init__(self, paper: Paper, name: str) -> None:
        """`name` says whose data it is."""
        self._paper, self._name = paper, name
        self._began: Began | None = None
        self._shown = 0
        self._failed = False
        self._progress_at = 0.0
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def take(self, told: Began | Shown | Progress | Counted | Failed) -> None:
        """Write one message."""
        match told:
            case Progress():
                self._say_progress(told)
                return
            case Began():
                self._began = told
                self._begin(told)
            case Shown(why=None):
                self._show(told)
            case Shown():
                pass  # Findings name their rows; --row shows them.
            case Counted():
                self._count(told)
            case Failed():
                self._fail(told)
        self._paper.out.flush()

    def end(self) -> int:
        """The exit code."""
        self._clear()
        return int(self._failed)

    def _begin(self, began: Began) -> None:
        self._clear()
        style = self._paper.style
        self._paper.text(f"{self._name}: {data_view.began_text(began)}", "head")
        if began.stage == "ppo":
            return
        told = "is what the loss counts"
        if began.stage == "rm":
            told = "is what is scored, at its last token"
        marks = "[[...]]" if style.ascii else "⟦…⟧"
        self._paper.line([(marks if style.brackets else "This", "learnt"), (f" {told}", "note")])

    def _show(self, shown: Shown) -> None:
        self._clear()
        self._shown += 1
        number = None if shown.place.startswith("sequence ") else self._shown
        stage = self._began.stage if self._began else "sft"
        style = self._paper.style
        head = data_view.example_head(shown, number, stage=stage, ascii=style.ascii)
        print(file=self._paper.out)
        self._paper.line([(head, "head")])
        for line in data_view.example_lines(shown, style):
            self._paper.line(line, "  ")

    def _count(self, counted: Counted) -> None:
        self._clear()
        began, style = self._began, self._paper.style
        if began is None:
            return
        print(file=self._paper.out)
        self._paper.text(f"Lengths in tokens, {data_view.rows_text(counted)}", "head")
        width = self._paper.width - 2
        for line in data_view.histogram(counted, began, width, ascii=style.ascii, most=10):
            self._paper.line(line, "  ")
        self._paper.text(f"  {data_view.length_text(counted, began)}", hang=2)
        self._paper.text(f"  {data_view.amount_text(counted, began)}", hang=2)
        if counted.looked < counted.of:
            self._paper.text("  --all looks at every row", "note")
        print(file=self._paper.out)
        for finding in counted.findings:
            told = data_view.finding_text(finding, ascii=style.ascii)
            self._paper.text(f"{finding.severity}: {told}", finding.severity, hang=2)
        if not counted.findings:
            self._paper.text("None of the usual mistakes was found.")
        self._failed = any(finding.severity == "error" for finding in counted.findings)

    def _fail(self, failed: Failed) -> None:
        self._clear()
        self._failed = True
        self._paper.out.flush()
        told = data_view.spelled_out(f"{self._name}: {failed.reason}")
        print(f"tunedeck: {told}", file=sys.stderr)

    def _say_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._terminal and now - self._progress_at >= PROGRESS_EVERY:
            self._progress_at = now
            far = f" ({progress.done:,} of {progress.of:,})" if progress.of else ""
            print(f"\r\x1b[K{progress.doing}{far} ...", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._terminal and self._progress_at:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Report:
    """Keeps what is told, for programs."""

    def __init__(self) -> None:
        self._began: Began | None = None
        self._examples: list[Shown] = []
        self._counted: Counted | None = None
        self._error = ""

    def take(self, told: Began | Shown | Progress | Counted | Failed) -> None:
        """Keep one message."""
        match told:
            case Began():
                self._began = told
            case Shown():
                self._examples.append(told)
            case Counted():
                self._counted = told
            case Failed(reason):
                self._error = reason

    def end(self) -> int:
        """The exit code."""
        return int(not self.told()["ok"])

    def told(self) -> dict[str, Any]:
        """All of it."""
        return as_json(self._began, self._examples, self._counted, self._error)


def as_text(report: dict[str, Any]) -> str:
    """JSON without a character that a terminal obeys: DEL is the one that JSON lets through."""
    return json.dumps(report, indent=1).replace("\x7f", "\\u007f")


def as_json(
    began: Began | None, examples: Iterable[Shown], counted: Counted | None, error: str
) -> dict[str, Any]:
    """A look at the data for programs; texts are as the tokens say them, control characters and all."""
    findings = counted.findings if counted else ()
    return {
        "ok": not error and not any(f.severity == "error" for f in findings),
        "error": error or None,
        "stage": began.stage if began else None,
        "template": began.template if began else None,
        "rows": began.rows if began else None,
        "eval_rows": began.eval_rows if began else None,
        "cutoff_len": began.cutoff_len if began else None,
        "packed": began.packed if began else None,
        "examples": [_example(shown) for shown in examples],
        "counts": _counts(counted) if counted else None,
        "findings": [
            {
                "kind": f.kind,
                "severity": f.severity,
                "text": f.text,
                "rows": f.rows,
                "places": list(f.places),
            }
            for f in findings
        ],
    }


def _example(shown: Shown) -> dict[str, Any]:
    return {
        "place": shown.place,
        "tokens": shown.size,
        "learnt": shown.learnt,
        "lost": shown.lost,
        "used": shown.used,
        "evaluation": shown.evaluation,
        "finding": shown.why,
        "parts": [
            {
                "title": part.title,
                "place": part.place or None,
                "tokens": [
                    {"text": p.text, "ids": list(p.ids), "learnt": p.learnt, "special": p.special}
                    for p in part.pieces
                ],
            }
            for part in shown.parts
        ],
    }


def _counts(counted: Counted) -> dict[str, Any]:
    return {
        "looked": counted.looked,
        "of": counted.of,
        "cut": counted.cut,
        "left_out": counted.left_out,
        "tokens": counted.tokens,
        "learnt": counted.learnt,
        "sequences": counted.sequences,
        "good": counted.good,
        "median": data_view.percentile(counted.lengths, 0.5),
        "p95": data_view.percentile(counted.lengths, 0.95),
        "longest": max(counted.lengths, default=0),
        "lengths": counted.lengths,
    }
