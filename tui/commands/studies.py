"""`tunedeck studies`, `status`, `trials`, `best` and `save`: what is known about studies."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from core.engine.client import daemon_alive
from core.engine.outcome import summary
from core.engine.standing import best_trial, ranking, value_of_trial
from core.search.edges import Edge
from core.search.metric import find, value_of
from core.search.ranking import Ranked
from core.study.events import RungDecided
from core.study.files import RunInfo, read_record
from core.study.metrics import read_points
from core.study.recipes import find_recipe, recipe_of, unbegun_recipes
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader, all_studies, describe, find_study
from tui import rung_text, words
from tui.recipe_view import Unbegun, unbegun
from tui.study_facts import study_examination
from tui.text_table import table


def studies(arguments: argparse.Namespace) -> int:
    """List the studies that are known here, newest first."""
    waiting = [(path, waits) for path in unbegun_recipes() if (waits := unbegun(path)) is not None]
    listed = [_waiting(path, waits) for path, waits in waiting]
    listed += [_study(path) for path in all_studies()]
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
    for path, waits in waiting:
        print(f"{path.name}: {waits.why}")
    return 0


def _waiting(path: Path, waits: Unbegun) -> dict[str, Any]:
    """A recipe that has no study for the step that it is at, as a study that is not there yet."""
    return {
        "name": path.name, "status": "not begun" if waits.readable else "unreadable", "reason": waits.why,
        "trials": 0, "ended": 0, "age_seconds": time.time() - waits.updated if waits.updated else None,
        "folder": str(path), "engine": False,
    }  # fmt: skip


def _study(path: Path) -> dict[str, Any]:
    try:
        state = StudyReader(path).state
    except StudyError as error:
        return {
            "name": shown_name(path), "status": "unreadable", "reason": str(error), "trials": 0, "ended": 0,
            "age_seconds": None, "folder": str(path), "engine": False,
        }  # fmt: skip
    return {**status_of(path, state), "age_seconds": time.time() - state.created}


def status_of(path: Path, state: StudyState) -> dict[str, Any]:
    """How a study stands, for programs."""
    best = best_trial(state)
    return {
        "name": shown_name(path),
        "folder": str(path),
        "status": state.status,
        "reason": state.reason,
        "engine": daemon_alive(path),
        "trials": len(state.trials),
        "ended": sum(t.ended for t in state.trials.values()),
        "live": [t.number for t in state.live()],
        "queued": [t.number for t in state.queued()],
        "waiting_at_rung": [t.number for t in state.waiting_at_rung()],
        "dropped": [t.number for t in state.trials.values() if t.status == "pruned"],
        "to_come": state.to_come(),
        "planned": state.planned,
        "strategy": state.strategy,
        "stopping": state.stopping,
        "choice": state.choice,
        "rungs": [_rung(decision) for decision in state.decisions],
        "rank_by": state.rank_by,
        "direction": state.direction,
        "best": None if best is None else best.number,
        "summary": summary(state),
        "updated": state.updated,
    }


def shown_name(path: Path) -> str:
    """A study's name as `tunedeck studies` lists it: of a recipe's step with the recipe's before it."""
    return f"{path.parent.name}/{path.name}" if recipe_of(path) else path.name


def _rung(decision: RungDecided) -> dict[str, Any]:
    return {
        "rung": decision.rung, "at": decision.at, "kept": sorted(decision.kept),
        "dropped": {str(number): why for number, why in decision.dropped.items()},
        "text": rung_text.decision_text(decision),
    }  # fmt: skip


def status(arguments: argparse.Namespace) -> int:
    """Say how a study stands."""
    if recipe := find_recipe(arguments.study):
        from tui.commands import recipe as recipe_commands

        return recipe_commands.status(recipe, as_json=arguments.json)
    reader = StudyReader(find_study(arguments.study))
    content = status_of(reader.folder.path, reader.state)
    if arguments.json:
        print(json.dumps(content, indent=1))
        return 0
    why = f" ({content['reason']})" if content["reason"] else ""
    engine = "running" if content["engine"] else "not running"
    print(f"{content['name']}: {content['status']}{why}")
    print(f"  folder   {content['folder']}")
    print(f"  engine   {engine}")
    if content["choice"]:
        print(f"  search   {content['choice']}")
    print(f"  trials   {_counts(content)}")
    for decision in reader.state.decisions[-3:]:
        print(f"  rung     {rung_text.decision_text(decision)}")
    if content["best"] is None and reader.state.status != "running":
        print(f"  result   {content['summary']}")
    if content["best"] is not None:
        best = reader.state.trials[content["best"]]
        settings = describe(best.changes) or "the profile as it is"
        print(f"  best     trial {best.number}: {settings}")
    for note in reader.state.warnings[-3:]:
        print(f"  note     {note.text}")
    if not content["engine"] and reader.state.status == "running":
        print(f"  The engine is gone with work left: tunedeck attach {content['folder']}")
    return 0


def _counts(content: dict[str, Any]) -> str:
    """Where the trials are, those left out of which there are none."""
    of = max(content["trials"] + content["to_come"], content["planned"])
    counts = (
        (len(content["live"]), "live"),
        (len(content["queued"]), "waiting to start"),
        (len(content["waiting_at_rung"]), "at a rung"),
        (len(content["dropped"]), "dropped at a rung"),
    )
    told = "".join(f", {count} {what}" for count, what in counts if count)
    return f"{content['ended']} of {of} ended{told}"


def trials(arguments: argparse.Namespace) -> int:
    """List the trials of a study."""
    if recipe := find_recipe(arguments.study):
        from tui.commands import recipe as recipe_commands

        return recipe_commands.trials(recipe, as_json=arguments.json)
    reader = StudyReader(find_study(arguments.study))
    if arguments.json:
        print(json.dumps(trials_of(reader), indent=1))
    else:
        print(trials_table(reader))
    return 0


def trials_of(reader: StudyReader) -> list[dict[str, Any]]:
    """The trials of a study for programs."""
    places = {r.trial: r for r in ranking(reader.state)}
    listed = [_seen(reader, t) for t in reader.state.trials.values()]
    return [_as_json(t, places.get(t.number)) for t in listed]


def trials_table(reader: StudyReader) -> str:
    """The trials of a study as a table."""
    rank_by = reader.state.rank_by
    # What they are ranked by stands beside the losses, where it is none of them.
    ranked = () if rank_by in ("loss", "eval_loss") else (words.metric(rank_by),)
    listed = [_seen(reader, t) for t in reader.state.trials.values()]
    rows = [
        (
            str(t.number), "stalled" if t.stalled and t.live else t.status, describe(t.changes),
            f"{t.step}/{t.total_steps or '?'}", words.loss(t.loss), words.loss(t.eval_loss),
            *(words.loss(value_of_trial(t, rank_by)) for _ in ranked), words.size(t.peak_memory), _why(t),
        )
        for t in listed
    ]  # fmt: skip
    headers = ("trial", "state", "settings", "step", "loss", "eval loss", *ranked, "peak", "why")
    return (
        table(headers, rows, right=(0, *range(4, len(headers) - 1))) if rows else "No trials yet."
    )


def _why(trial: Trial) -> str:
    """Why a trial is where it is: its reason, else its rung, else where it comes from."""
    if trial.stalled and trial.live:
        return trial.stalled
    told = "" if trial.status == "rung" else trial.reason
    return told or rung_text.where(trial) or rung_text.source_text(trial)


def _as_json(trial: Trial, place: Ranked | None) -> dict[str, Any]:
    """A trial for programs: as the journal has it, with its place."""
    content: dict[str, Any] = {**msgspec.to_builtins(trial), "changes": trial.changes}
    content["place"] = place.place if place else None
    content["tied"] = place.tied if place else False
    content["ranked_value"] = place.value if place else None
    content["runs"] = place.runs if place else 1
    return content


def _seen(reader: StudyReader, trial: Trial) -> Trial:
    """A trial with what its files know beyond the journal while it is live."""
    if not trial.live:
        return trial
    folder = reader.folder.trial(trial.number)
    run = read_record(folder.run, RunInfo)
    if run is not None:
        trial = msgspec.structs.replace(trial, total_steps=run.total_steps)
    points = read_points(folder.metrics)
    if not points:
        return trial
    loss = next((p.loss for p in reversed(points) if p.loss is not None), None)
    eval_loss = next((p.eval_loss for p in reversed(points) if p.eval_loss is not None), None)
    return msgspec.structs.replace(
        trial,
        step=points[-1].step,
        loss=loss,
        eval_loss=eval_loss,
        value=value_of(points, find(reader.state.rank_by, reader.state.direction)),
        peak_memory=points[-1].mem_peak,
    )


def ranking_table(state: StudyState) -> str:
    """The ranking of a study as a table: those with a place, then those that were dropped, then the rest."""
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
                _note(ranked),
            )
        )
    return table(
        ("place", "trial", words.metric(state.rank_by), "settings", ""), rows, right=(0, 1, 2)
    )


def _note(ranked: Ranked) -> str:
    """What is to be known about a value: how many runs it is the mean of, why it has no place."""
    if ranked.runs > 1:
        spread = f" ± {ranked.spread:.2g}" if ranked.spread is not None else ""
        return f"mean of {ranked.runs} seeds{spread}"
    return ranked.reason or ""


def cautions(reader: StudyReader) -> list[str]:
    """What is to be known before the winner is trusted: ties, and edges of the space."""
    state = reader.state
    placed = [r for r in ranking(state) if r.place is not None]
    told = []
    if placed and placed[0].tied:
        group = placed[0].group
        others = [f"{r.trial}" for r in placed[1:] if r.group == group]
        told.append(f"tied with trial {', '.join(others)}: the difference is within the noise")
    told += [f"{edge.text[:1].upper()}{edge.text[1:]}" for edge in _edges(reader)]
    return told


def _edges(reader: StudyReader) -> tuple[Edge, ...]:
    told = study_examination(reader)
    return told.edges if told is not None else ()


def best(arguments: argparse.Namespace) -> int:
    """Print the winner and the ranking behind it."""
    if recipe := find_recipe(arguments.study):
        from tui.commands import recipe as recipe_commands

        return recipe_commands.best(recipe, as_json=arguments.json)
    reader = StudyReader(find_study(arguments.study))
    winner = best_trial(reader.state)
    if arguments.json:
        print(json.dumps(best_as_json(reader, winner), indent=1))
    elif winner is not None:
        print(f"trial {winner.number}: {describe(winner.changes) or 'the profile as it is'}")
        for caution in cautions(reader):
            print(f"  {caution}")
        print(f"\n{ranking_table(reader.state)}")
    if winner is None:
        told = "no trial has completed yet"
        if reader.state.status != "running":
            told = summary(reader.state)
        print(f"tunedeck: {told}", file=sys.stderr)
        return 1
    return 0


def best_as_json(reader: StudyReader, winner: Trial | None) -> dict[str, Any] | None:
    """The winner of a study for programs; None where there is none."""
    if winner is None:
        return None
    state = reader.state
    placed = [r for r in ranking(state) if r.place is not None]
    first = next((r for r in placed if r.trial == winner.number), None)
    group = first.group if first is not None else None
    return {
        **_as_json(winner, first),
        "strategy": state.strategy,
        "stopping": state.stopping,
        "choice": state.choice,
        "rank_by": state.rank_by,
        "direction": state.direction,
        "spread": first.spread if first is not None else None,
        "ties": [r.trial for r in placed if r.group == group and r.trial != winner.number],
        "confirmations": [
            t.number for t in rung_text.confirmations([*state.trials.values()], winner.number)
        ],
        "edges": [
            {
                "name": e.name,
                "side": e.side,
                "value": e.value,
                "widen_to": e.widen_to,
                "text": e.text,
            }
            for e in _edges(reader)
        ],
    }


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
