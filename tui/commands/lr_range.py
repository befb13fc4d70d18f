"""`tunedeck lr-range`: one short run at rising learning rates that shows which of them train."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from core.study.files import RangeTest
from core.study.store import StudyError, new_folder
from tui.follow import TICK, revive
from tui.leaving import first_done, goes_on, of_study
from tui.range_picture import as_text
from tui.range_test import RangeFollower, RangeView, progress_text, range_entry, view_picture

if TYPE_CHECKING:
    from core.profile import Profile

CHART_ROWS = 18
MOST_COLUMNS = 100
PROGRESS_EVERY = 15.0
"""Seconds between two lines of progress where the output is no terminal."""


def lr_range(arguments: argparse.Namespace) -> int:
    """Run a learning-rate range test of a profile: 0 when it ran, 1 when it failed, 2 for wrong use."""
    from core.profile import Profile
    from tui.commands.run import profile_of

    test = RangeTest(low=arguments.low, high=arguments.high, steps=arguments.steps)
    if test.problem:
        print(f"tunedeck: {test.problem}", file=sys.stderr)
        return 2
    profile = profile_of(arguments)
    if not isinstance(profile, Profile):
        return profile
    output = Path(arguments.output) if arguments.output else None
    if output is not None and output.exists() and not arguments.force:
        print(f"tunedeck: {output} exists; --force replaces it", file=sys.stderr)
        return 1
    given = arguments.study
    folder = Path(given) if given else new_folder(f"{profile.profile.name}-lr-range")
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(f"{folder} is not empty: name another folder with --study")
    # With --json, what is not the answer goes where it disturbs no program.
    out = sys.stderr if arguments.json else sys.stdout
    with goes_on(lambda: of_study(folder)):
        view = _wait(_start(profile, test, folder), out)
        written = None
        if output is not None and view.useful:
            written = _write(profile, view, output)
        if arguments.json:
            print(json.dumps(as_json(view, written), indent=1))
        else:
            _print(view, ascii=arguments.ascii, asked=output, written=written)
    return 1 if view.failed or not view.points or (output and not written) else 0


def _start(profile: Profile, test: RangeTest, folder: Path) -> Path:
    from core.engine.client import create_study, start_daemon

    with first_done():
        path = create_study(profile, folder, range_test=test)
        start_daemon(path)
    return path


def _wait(folder: Path, out: TextIO) -> RangeView:
    """Say how the test goes on until it has ended."""
    follower = RangeFollower(folder)
    screen, spoke = out.isatty(), time.monotonic()
    print(
        f"The range test is in {os.path.relpath(folder)}; it goes on if you leave (Ctrl+C).",
        file=out,
    )
    while not (view := follower.look()).ended:
        if screen:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{progress_text(view)[:width]}", end="", file=out, flush=True)
        elif time.monotonic() - spoke >= PROGRESS_EVERY:
            print(f"{time.strftime('%H:%M:%S')} {progress_text(view)}", file=out, flush=True)
            spoke = time.monotonic()
        state = follower.reader.state
        if state.status == "paused" and not state.live():
            break
        revive(folder, state)
        time.sleep(TICK)
    if screen:
        print("\r\x1b[K", end="", file=out)
    return view


def _print(view: RangeView, *, ascii: bool, asked: Path | None, written: Path | None) -> None:
    if view.points:
        columns = min(MOST_COLUMNS, shutil.get_terminal_size().columns - 1)
        print(as_text(view_picture(view, (columns, CHART_ROWS), ascii=ascii)) + "\n")
    if view.failed or not view.points:
        print(f"tunedeck: the range test {progress_text(view)}", file=sys.stderr)
        print(f"  its log: tunedeck attach {view.folder}", file=sys.stderr)
        return
    if view.reading is not None:
        text = view.reading.text
        print(text.replace("→", "->") if ascii else text)
    if written is not None:
        print(f"Saved as {written}; the search: tunedeck run {written}")
    elif asked is not None:
        print(f"tunedeck: no range is suggested, so {asked} is not written", file=sys.stderr)
    elif view.useful and view.reading is not None:
        entry = range_entry(view.reading)
        told = f'{{low={entry["low"]:g}, high={entry["high"]:g}, scale="log"}}'
        print(f"Search it with: --set 'search.space.learning_rate={told}'")


def _write(profile: Profile, view: RangeView, output: Path) -> Path | None:
    """Write the profile that searches the suggested range."""
    from core.profile import from_document, save

    assert view.reading is not None
    document = profile.to_document()
    space = {**document["search"].get("space", {}), "learning_rate": range_entry(view.reading)}
    document["search"]["space"] = space
    found = from_document(document, source=str(output))
    try:
        save(
            found,
            output,
            comment="The range of learning rates was found by a range test of tunedeck.",
        )
    except OSError as error:
        why = error.strerror or str(error)
        print(f"tunedeck: {output} cannot be written: {why.lower()}", file=sys.stderr)
        return None
    return output


def as_json(view: RangeView, written: Path | None) -> dict[str, Any]:
    """A test for programs; losses that are not finite are null."""
    reading = view.reading
    return {
        "study": str(view.folder),
        "status": view.status,
        "reason": view.reason,
        "low": view.test.low,
        "high": view.test.high,
        "steps": view.test.steps,
        "points": [[rate, loss if math.isfinite(loss) else None] for rate, loss in view.points],
        "steepest": reading.steepest if reading else None,
        "lowest": reading.lowest if reading else None,
        "diverged_at": reading.diverged_at if reading else None,
        "suggested": range_entry(reading) if reading and view.useful else None,
        "start": reading.start if reading else None,
        "text": reading.text if reading else "",
        "written": str(written) if written else None,
    }
