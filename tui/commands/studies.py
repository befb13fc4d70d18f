"""`tunedeck studies`, `status`, `trials`, `best` and `save`: what is known about studies."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from core.engine.client import daemon_alive
from core.engine.standing import best_trial, ranking
from core.study.metrics import read_points
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader, all_studies, describe, find_study
from tui import words
from tui.text_table import table


def studies(arguments: argparse.Namespace) -> int:
    """List the studies that are known here, newest first."""
    listed = [_study(path) for path in all_studies()]
    if arguments.json:
        print(json.dumps(listed, indent=1))
        return 0
    if not listed:
        print("There are no studies here yet. Start with: tunedeck demo")
        return 0
    rows = [
        (
            s["name"],
            s["status"],
            f"{s['ended']}/{s['trials']}",
            words.duration(s["age_seconds"]),
            s["folder"],
        )
        for s in listed
    ]
    print(table(("study", "status", "trials", "age", "folder"), rows))
    return 0


def _study(path: Path) -> dict[str, Any]:
    try:
        state = StudyReader(path).state
    except StudyError as error:
        return {
            "name": path.name, "status": "unreadable", "reason": str(error), "trials": 0, "ended": 0,
            "age_seconds": None, "folder": str(path), "engine": False,
        }  # fmt: skip
    return {**_status(path, state), "age_seconds": time.time() - state.created}


def _status(path: Path, state: StudyState) -> dict[str, Any]:
    best = best_trial(state)
    return {
        "name": path.name,
        "folder": str(path),
        "status": state.status,
        "reason": state.reason,
        "engine": daemon_alive(path),
        "trials": len(state.trials),
        "ended": sum(t.ended for t in state.trials.values()),
        "live": [t.number for t in state.live()],
        "queued": [t.number for t in state.queued()],
        "rank_by": state.rank_by,
        "best": None if best is None else best.number,
        "updated": state.updated,
    }


def status(arguments: argparse.Namespace) -> int:
    """Say how a study stands."""
    reader = StudyReader(find_study(arguments.study))
    content = _status(reader.folder.path, reader.state)
    if arguments.json:
        print(json.dumps(content, indent=1))
        return 0
    why = f" ({content['reason']})" if content["reason"] else ""
    engine = "running" if content["engine"] else "not running"
    print(f"{content['name']}: {content['status']}{why}")
    print(f"  folder   {content['folder']}")
    print(f"  engine   {engine}")
    print(
        f"  trials   {content['ended']} of {content['trials']} ended, {len(content['live'])} live"
    )
    if content["best"] is not None:
        best = reader.state.trials[content["best"]]
        print(f"  best     trial {best.number}: {describe(best.changes)}")
    for note in reader.state.warnings[-3:]:
        print(f"  note     {note.text}")
    if not content["engine"] and reader.state.status == "running":
        print(f"  The engine is gone with work left: tunedeck attach {content['folder']}")
    return 0


def trials(arguments: argparse.Namespace) -> int:
    """List the trials of a study."""
    reader = StudyReader(find_study(arguments.study))
    listed = [_seen(reader, t) for t in reader.state.trials.values()]
    if arguments.json:
        print(json.dumps([msgspec.to_builtins(t) for t in listed], indent=1))
        return 0
    rows = [
        (
            str(t.number), t.status, describe(t.changes), f"{t.step}/{t.total_steps or '?'}",
            words.loss(t.loss), words.loss(t.eval_loss), words.size(t.peak_memory), t.reason,
        )
        for t in listed
    ]  # fmt: skip
    headers = ("trial", "state", "settings", "step", "loss", "eval loss", "peak", "why")
    print(table(headers, rows, right=(0, 4, 5, 6)) if rows else "No trials yet.")
    return 0


def _seen(reader: StudyReader, trial: Trial) -> Trial:
    """A trial with what its metrics file knows beyond the journal while it is live."""
    if not trial.live:
        return trial
    points = read_points(reader.folder.trial(trial.number).metrics)
    if not points:
        return trial
    loss = next((p.loss for p in reversed(points) if p.loss is not None), None)
    eval_loss = next((p.eval_loss for p in reversed(points) if p.eval_loss is not None), None)
    return msgspec.structs.replace(
        trial, step=points[-1].step, loss=loss, eval_loss=eval_loss, peak_memory=points[-1].mem_peak
    )


def ranking_table(state: StudyState) -> str:
    """The ranking of a study as a table."""
    rows = []
    for ranked in ranking(state):
        trial = state.trials[ranked.trial]
        place = "-" if ranked.place is None else f"{ranked.place}{'=' if ranked.tied else ''}"
        rows.append(
            (
                place,
                str(trial.number),
                words.loss(ranked.value),
                describe(trial.changes),
                ranked.reason or "",
            )
        )
    metric = "eval loss" if state.rank_by == "eval_loss" else "loss"
    return table(("place", "trial", metric, "settings", ""), rows, right=(0, 1, 2))


def best(arguments: argparse.Namespace) -> int:
    """Print the winner and the ranking behind it."""
    reader = StudyReader(find_study(arguments.study))
    winner = best_trial(reader.state)
    if arguments.json:
        content = (
            None if winner is None else {**msgspec.to_builtins(winner), "changes": winner.changes}
        )
        print(json.dumps(content, indent=1))
    elif winner is not None:
        print(f"trial {winner.number}: {describe(winner.changes) or 'the profile as it is'}\n")
        print(ranking_table(reader.state))
    if winner is None:
        print("tunedeck: no trial has completed yet", file=sys.stderr)
        return 1
    return 0


def save(arguments: argparse.Namespace) -> int:
    """Save a trial's settings as a profile."""
    from core import profile
    from core.engine.results import TUNED_COMMENT, trial_profile

    reader = StudyReader(find_study(arguments.study))
    number = arguments.trial
    if number is None:
        winner = best_trial(reader.state)
        if winner is None:
            print("tunedeck: no trial has completed yet; name one with --trial", file=sys.stderr)
            return 1
        number = winner.number
    elif number not in reader.state.trials:
        print(f"tunedeck: the study has no trial {number}", file=sys.stderr)
        return 1
    target = Path(arguments.output)
    if target.exists() and not arguments.force:
        print(f"tunedeck: {target} exists; --force replaces it", file=sys.stderr)
        return 1
    found = trial_profile(reader, number, as_probe=arguments.probe)
    try:
        profile.save(found, target, comment=TUNED_COMMENT)
    except OSError as error:
        # Not the error's own words: they name the file that was to be renamed to the target.
        why = error.strerror or str(error)
        print(f"tunedeck: {target} cannot be written: {why.lower()}", file=sys.stderr)
        return 1
    print(f"Saved trial {number} as {target}\n  run it:  tunedeck train {target}")
    return 0
