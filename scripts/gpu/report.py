"""What the checks on a GPU found: the record that is kept as JSON and the table that a person reads."""

import os
import textwrap
from pathlib import Path
from typing import Literal

import msgspec

from core.values import Scalar, number

Outcome = Literal["passed", "failed", "skipped"]
Figures = dict[str, Scalar]
"""What was measured, name → value; the name says the unit."""

_WIDTH = 100


class Result(msgspec.Struct, frozen=True):
    """What became of one check."""

    name: str
    claim: str
    """What is claimed, in a sentence."""
    outcome: Outcome
    seconds: float
    reason: str = ""
    """Why it failed or was skipped; empty where it passed."""
    figures: Figures = {}
    evidence: tuple[str, ...] = ()
    """The last words of the logs of what failed."""


class Report(msgspec.Struct, frozen=True):
    """One run of all checks."""

    date: str
    """ISO 8601, UTC."""
    device: Literal["cuda", "cpu"]
    gpu: str
    """The GPU's name; `CPU` where none was used."""
    uuid: str
    memory_gib: float | None
    driver: str
    versions: dict[str, str]
    seconds: float
    results: tuple[Result, ...]

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(r.outcome == "failed" for r in self.results)


def write(report: Report, path: Path) -> None:
    """Write the report as JSON, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> Report:
    """Read a report.

    Raises:
        OSError: the file cannot be read.
        msgspec.DecodeError: it is none.
    """
    return msgspec.json.decode(path.read_bytes(), type=Report)


def table(report: Report) -> str:
    """The report as text: a head, one block a check, a sum."""
    size = f", {report.memory_gib:.1f} GiB" if report.memory_gib is not None else ""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    head = [f"{report.gpu}{size}, driver {report.driver or 'none'}, {report.date}", versions, ""]
    blocks = [line for result in report.results for line in lines(result)]
    counts = ", ".join(
        f"{sum(r.outcome == outcome for r in report.results)} {outcome}"
        for outcome in ("passed", "failed", "skipped")
    )
    return "\n".join([*head, *blocks, "", f"{counts} in {report.seconds:.0f} s"])


def headline(result: Result) -> str:
    """One check in a line."""
    return f"{result.outcome:<8} {result.name:<14} {result.seconds:6.1f} s  {result.claim}"


def lines(result: Result) -> list[str]:
    """One check: its headline, what it says when it did not pass, its figures and its logs' ends."""
    said = [headline(result)]
    if result.reason:
        said += _indented(result.reason, "why: ")
    figures = "; ".join(f"{name} {_text(value)}" for name, value in result.figures.items())
    if figures:
        said += _indented(figures, "")
    said += [f"           | {line}" for line in result.evidence]
    return said


def _indented(words: str, first: str) -> list[str]:
    return textwrap.wrap(words, _WIDTH, initial_indent=" " * 9 + first, subsequent_indent=" " * 9)


def _text(value: Scalar) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value and abs(value) < 1e4 else f"{value:,.0f}"
    return number(value) if isinstance(value, bool | int) else value
