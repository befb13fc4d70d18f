"""`tunedeck doctor`: what the curves of a study show, in words, and what the study says as a whole."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core.engine.outcome import fates
from core.study.files import RunInfo, read_record
from core.study.metrics import read_points
from core.study.state import Trial
from core.study.store import StudyReader, describe, find_study
from tui import words
from tui.study_facts import profile_document, profile_values, study_examination

if TYPE_CHECKING:
    from core.doctor import Examination, Finding

WIDTH = 96


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is wrong with a study's runs, or with one of them; healthy ones are not talked about."""
    reader = StudyReader(find_study(arguments.study))
    number = arguments.trial
    trials = reader.state.trials
    if number is not None and number not in trials:
        print(f"tunedeck: the study has no trial {number}", file=sys.stderr)
        return 1
    asked = [trials[number]] if number is not None else list(trials.values())
    profile = profile_values(profile_document(reader.folder.profile))
    found = {t.number: f for t in asked if (f := finding(reader, t, profile)) is not None}
    told = None if number is not None else study_examination(reader)
    if arguments.json:
        print(json.dumps(_as_json(asked, found, told), indent=1))
        return 0
    for trial in asked:
        if trial.number in found:
            _print_finding(trial, found[trial.number])
    if not found:
        print(_silence(asked, number))
    if told is not None:
        _print_examination(told)
    return 0


def finding(reader: StudyReader, trial: Trial, profile: dict[str, Any]) -> Finding | None:
    """What the doctor says of a trial's curve; None of one that is healthy or has logged too little."""
    from core.doctor import diagnose
    from core.engine.judgement import run_facts

    if trial.kind == "range":
        return None  # Its rate rises until the loss is lost: that is what it is for.
    folder = reader.folder.trial(trial.number)
    points = read_points(folder.metrics)
    run = read_record(folder.run, RunInfo)
    return diagnose(points, run_facts(trial, {**profile, **trial.changes}, run)) if points else None


def _silence(trials: list[Trial], number: int | None) -> str:
    """What is said where no curve has anything wrong with it: that all is well, or why there is no curve."""
    if any(t.step > 0 or t.live for t in trials):
        what = "the curves" if number is None else f"trial {number}"
        return f"Nothing is wrong with {what}, as far as can be seen."
    if any(t.ended for t in trials):
        told = fates(trials)
        return f"Nothing has trained, so there is no curve to look at: {told}."
    who = "No trial has" if number is None else f"Trial {number} has not"
    return f"{who} trained yet: there is no curve to look at."


def _print_finding(trial: Trial, said: Finding) -> None:
    settings = describe(trial.changes)
    print(f"Trial {trial.number}" + (f" ({settings})" if settings else ""))
    for text in (said.text, said.advice):
        if text:
            print(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  "))


def _print_examination(told: Examination) -> None:
    lines = examination_lines(told)
    if lines:
        print("\nThe study as a whole")
    for text in lines:
        print(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))


def examination_lines(told: Examination) -> list[str]:
    """What a study says as a whole, a sentence or two each."""
    known = [f"{i.name} {words.share(i.share, 1)}" for i in told.importances if i.share is not None]
    lines = [f"What the results depend on: {', '.join(known)}."] if known else []
    if told.band is not None:
        lines.append(told.band.text)
    # A step says what its edge says.
    steps = {_sentence(step.text) for step in told.next_steps}
    lines += [text for edge in told.edges if (text := _sentence(edge.text)) not in steps]
    lines += [_sentence(remark) for remark in told.remarks]
    return [*lines, *(f"Next: {step.text}" for step in told.next_steps)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _as_json(
    asked: list[Trial], found: dict[int, Finding], told: Examination | None
) -> dict[str, Any]:
    return {
        "trials": [
            {"trial": t.number, "status": t.status, "finding": _plain(found.get(t.number))}
            for t in asked
        ],
        "study": None if told is None else _plain(told),
    }


def _plain(value: Any) -> Any:
    """A dataclass of ours for JSON: mappings and tuples as they are written there."""
    return None if value is None else json.loads(json.dumps(asdict(value), default=dict))
