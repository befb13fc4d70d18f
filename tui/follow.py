"""Follow a study without a dashboard: one line for each thing that happens, and progress in between."""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from core.api import resting
from core.study.events import (
    Advice,
    AdviceAsked,
    AdviceGiven,
    AnyEvent,
    FixSuggested,
    RungDecided,
    SearchPlanned,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialAsked,
    TrialEnded,
    TrialQueued,
    TrialStalled,
    TrialStarting,
    Warned,
)
from core.study.files import RunInfo, read_record
from core.study.metrics import MetricsTail, Point
from core.study.state import StudyState, Trial
from core.study.store import StudyReader, describe
from tui import words
from tui.leaving import first_done, goes_on, of_study
from tui.rung_text import decision_text

TICK = 0.5
"""Seconds between two looks at the study."""
PROGRESS_EVERY = 15.0
"""Seconds between two lines of progress where the output is no terminal."""


_LOOKING: Mapping[Advice, str] = {
    "start": "a dry run finds out whether it fits into the memory",
    "fit": "dry runs find the largest batch that fits",
    "fix": "looking for a fix that fits",
}


@dataclass
class Progress:
    """What the metrics files say about the live trials; each look reads only what was added."""

    tails: dict[int, MetricsTail] = field(default_factory=dict)
    last: dict[int, Point] = field(default_factory=dict)
    totals: dict[int, int] = field(default_factory=dict)

    def look(self, reader: StudyReader) -> None:
        """Read what the live trials have logged since the last look."""
        for trial in reader.state.live():
            folder = reader.folder.trial(trial.number)
            tail = self.tails.setdefault(trial.number, MetricsTail(folder.metrics))
            for point in tail.poll():
                if point.loss is not None:
                    self.last[trial.number] = point
            run = read_record(folder.run, RunInfo)
            if run is not None:
                self.totals[trial.number] = run.total_steps

    def line(self, trial: Trial) -> str:
        """Where one live trial stands, in a few words."""
        point = self.last.get(trial.number)
        if point is None or point.attempt != trial.next_attempt:
            return f"trial {trial.number} {trial.status}"
        total = self.totals.get(trial.number)
        of = f"/{total}" if total else ""
        return f"trial {trial.number} step {point.step}{of} loss {words.loss(point.loss)}"


def happening(event: AnyEvent, state: StudyState) -> str:
    """What a record of the journal means to a person, in a line; empty where it means nothing new."""
    match event:
        case StudyCreated():
            return f"the search: {event.choice}" if event.choice else ""
        case SearchPlanned():
            return f"{words.plural(event.planned, 'trial')} are planned now: {event.reason}"
        case TrialAdded():
            return _added(event)
        case RungDecided():
            return _decided(event)
        case TrialStalled():
            stalls = f"stalled: {event.text}" if event.text else "logs again"
            return f"trial {event.trial}: {stalls}"
        case StudyChanged():
            why = f": {event.reason}" if event.reason else ""
            return f"the study is {event.status}{why}"
        case Warned():
            about = f"trial {event.trial}: " if event.trial is not None else ""
            return f"note: {about}{event.text}"
        case TrialQueued():
            return f"trial {event.trial}: again, attempt {event.attempt}: {event.reason}"
        case TrialStarting():
            trial = state.trials.get(event.trial)
            settings = describe(trial.changes) if trial else ""
            where = f" on GPU {', '.join(event.gpus)}" if event.gpus else ""
            if trial is not None and trial.rungs and trial.resume_from:
                at = words.percent(trial.rungs[-1].at)
                return f"trial {event.trial}: goes on from {at} of its probe{where}"
            again = f", attempt {event.attempt}" if event.attempt > 1 else ""
            return f"trial {event.trial}: starts{again}{where}: {settings or 'as the profile says'}"
        case TrialAsked():
            doing = "pausing" if event.ask == "pause" else "stopping"
            return f"trial {event.trial}: {doing}" + (f": {event.reason}" if event.reason else "")
        case AdviceAsked():
            return f"trial {event.trial}: {_LOOKING[event.about]}"
        case AdviceGiven():
            return f"trial {event.trial}: memory: {event.text}"
        case FixSuggested():
            return f"trial {event.trial}: suggested: {event.text}"
        case TrialEnded():
            return f"trial {event.trial}: {_ending(event, state.rank_by)}"
    return ""


def _added(event: TrialAdded) -> str:
    """A trial that came while the study ran; those of the plan are told when they start."""
    if event.source == "confirm":
        return (
            f"trial {event.trial}: runs the settings of trial {event.parent} with another seed, "
            "before a winner is named"
        )
    if event.source == "promote":
        return f"trial {event.trial}: the full training with the settings of trial {event.parent}"
    if event.source == "user":
        return f"trial {event.trial}: added: {describe(event.settings) or 'as the profile says'}"
    return ""


def _decided(event: RungDecided) -> str:
    dropped = ", ".join(str(number) for number in sorted(event.dropped))
    return decision_text(event) + (f" (dropped: {dropped})" if dropped else "")


def _ending(event: TrialEnded, rank_by: str) -> str:
    ranked = ""
    if event.value is not None and rank_by not in ("loss", "eval_loss"):
        ranked = f", {words.metric(rank_by)} {words.loss(event.value)}"
    if event.ending == "completed":
        held_out = (
            f", eval loss {words.loss(event.eval_loss)}" if event.eval_loss is not None else ""
        )
        return (
            f"completed, smoothed loss {words.loss(event.loss)}{held_out}{ranked}, "
            f"{words.duration(event.seconds)}"
        )
    if event.ending == "rung":
        value = f", {words.loss(event.value)}" if event.value is not None else ""
        return f"at its rung, step {event.step}{ranked or value}"
    word = "out of memory" if event.ending == "oom" else event.ending
    return f"{word}: {event.reason}" if event.reason else word


def follow(folder: Path, out: TextIO | None = None) -> int:
    """Print what happens until the study rests; 0 when a trial completed, 1 when none did or the study is paused.

    Ctrl+C ends the following, not the study.

    Raises:
        StudyError: the study cannot be read.
        EngineError: the study's engine died and cannot be started again.
        KeyboardInterrupt: Ctrl+C; a note says what becomes of the study.
    """
    with goes_on(lambda: of_study(folder)):
        return follow_events(folder, out or sys.stdout)


def follow_events(folder: Path, out: TextIO) -> int:
    """As `follow`, for somebody who says himself what becomes of it at Ctrl+C."""
    reader = StudyReader(folder)
    screen = out.isatty()
    progress = Progress()
    spoke = time.monotonic()
    while True:
        lines = [said for event in reader.news if (said := happening(event, reader.state))]
        progress.look(reader)
        _print_lines(out, screen, lines)
        if lines:
            spoke = time.monotonic()
        if resting(reader.state):
            break
        spoke = _print_progress(out, screen, reader.state, progress, spoke)
        revive(folder, reader.state)
        time.sleep(TICK)
        reader.poll()
    return _closing(reader, out)


def revive(folder: Path, state: StudyState) -> None:
    """Start the engine again where it died with work left."""
    from core.engine.client import daemon_alive, needs_daemon, start_daemon

    if needs_daemon(state, daemon_alive(folder)):
        with first_done():
            start_daemon(folder)


def _print_lines(out: TextIO, screen: bool, lines: list[str]) -> None:
    for line in lines:
        print(f"\r\x1b[K{line}" if screen else f"{time.strftime('%H:%M:%S')} {line}", file=out)
    out.flush()


def _print_progress(
    out: TextIO, screen: bool, state: StudyState, progress: Progress, spoke: float
) -> float:
    """Show where the live trials stand; returns when something was last printed."""
    live = state.live()
    done = sum(t.ended for t in state.trials.values())
    line = f"{done}/{len(state.trials)} done" + "".join(f" | {progress.line(t)}" for t in live)
    if screen:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=out, flush=True)
        return spoke
    now = time.monotonic()
    if live and now - spoke >= PROGRESS_EVERY:
        _print_lines(out, screen, [line])
        return now
    return spoke


def _closing(reader: StudyReader, out: TextIO) -> int:
    """Say how it came out; the exit code."""
    from core.engine.outcome import summary
    from core.engine.standing import best_trial
    from tui.commands.studies import ranking_table

    state, folder = reader.state, reader.folder
    print(file=out)
    if state.status == "paused":
        _print_pause(state, folder.path, out)
        return 1
    if any(t.kind == "probe" for t in state.trials.values()):
        print(ranking_table(state), file=out)
    for trial in state.trials.values():
        if trial.status in ("oom", "skipped") and trial.suggestion:
            print(
                f"Trial {trial.number} waits for its fix: tunedeck retry {folder.path} {trial.number}",
                file=out,
            )
        elif trial.kind == "full" and trial.status == "completed":
            weights = os.path.relpath(folder.trial(trial.number).output)
            print(f"The weights of trial {trial.number} are in {weights}", file=out)
            run = os.path.relpath(folder.trial(trial.number).path)
            print(f"One model of them, ready to serve: tunedeck export {run} -o DIR", file=out)
    best = best_trial(state)
    if best is None:
        told = summary(state)
        print(f"\n{told[:1].upper()}{told[1:]}.", file=out)
        tested = [t for t in state.trials.values() if t.kind == "range"]
        if tested and tested[-1].status == "completed":
            print(f"Its curve: tunedeck attach {folder.path}", file=out)
            return 0
        print(f"What each one said: tunedeck trials {folder.path}", file=out)
        return 1
    if best.kind == "full":
        return 0
    _print_best(reader, best, out)
    return 0


def _print_pause(state: StudyState, folder: Path, out: TextIO) -> None:
    """How far a paused search has come, and how it goes on."""
    from core.engine.outcome import summary

    ended = sum(t.ended for t in state.trials.values())
    of = max(state.planned, len(state.trials))
    print(f"The study is paused: {ended} of {of} trials ended. So far: {summary(state)}.", file=out)
    print(
        f"  go on:      tunedeck resume {folder}\n  the trials: tunedeck trials {folder}\n"
        f"  end it:     tunedeck stop {folder}",
        file=out,
    )


def _print_best(reader: StudyReader, best: Trial, out: TextIO) -> None:
    """The winner, what is to be known about it, and what to do with it."""
    from tui.commands.studies import cautions

    settings = describe(best.changes) or "the profile as it is"
    print(f"\nBest: trial {best.number} ({settings})", file=out)
    for caution in cautions(reader):
        print(f"  {caution}", file=out)
    if reader.folder.tuned.exists():
        tuned = os.path.relpath(reader.folder.tuned)
        trained = any(t.kind == "full" for t in reader.state.trials.values())
        hint = "" if trained else f"; the full training: tunedeck train {tuned}"
        print(f"Saved as {tuned}{hint}", file=out)
