"""`tunedeck`, `demo`, `run`, `train` and `attach`: what starts or shows a study."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.study.store import StudyError, find_study, new_folder, remember
from tui.leaving import NOTHING, first_done, goes_on, of_study

if TYPE_CHECKING:
    from core.profile import Profile

DEMO_PROFILE = Path(__file__).resolve().parents[2] / "core" / "assets" / "demo" / "demo.toml"


def dashboard(arguments: argparse.Namespace, study: Path | None = None) -> int:
    """Open the dashboard, on a study where one is given."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = f"`tunedeck attach {study} --headless`" if study else "`tunedeck --help`"
        print(f"tunedeck: the dashboard needs a terminal; without one, see {hint}", file=sys.stderr)
        return 2
    if os.environ.get("TERM") == "dumb":
        print(
            "tunedeck: this terminal cannot move its cursor (TERM is dumb); "
            "set TERM, or use a command of `tunedeck --help`",
            file=sys.stderr,
        )
        return 2
    with goes_on(lambda: of_study(study) if study else NOTHING):
        from tui.dashboard import run_dashboard

        return run_dashboard(study, ascii=arguments.ascii)


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo's search; its study is an ordinary one."""
    from core.profile import load

    folder = Path(arguments.study) if arguments.study else new_folder("demo")
    return _start(load(DEMO_PROFILE), folder, arguments)


def run(arguments: argparse.Namespace) -> int:
    """Start the search that a profile describes, or a recipe's steps."""
    from core.profile import Profile

    if path := recipe_file(arguments.profile):
        from tui.commands.recipe import run as run_recipe

        return run_recipe(arguments, path)
    profile = profile_of(arguments)
    if isinstance(profile, Profile):
        folder = Path(arguments.study) if arguments.study else new_folder(profile.profile.name)
        return _start(profile, folder, arguments)
    return profile


def train(arguments: argparse.Namespace) -> int:
    """Run a profile as one full training; of a recipe each step."""
    from core.profile import Profile

    if path := recipe_file(arguments.profile):
        from tui.commands.recipe import run as run_recipe

        return run_recipe(arguments, path, searching=False)
    profile = profile_of(arguments)
    if isinstance(profile, Profile):
        name = f"{profile.profile.name}-training"
        folder = Path(arguments.study) if arguments.study else new_folder(name)
        return _start(profile.as_training(), folder, arguments)
    return profile


def attach(arguments: argparse.Namespace) -> int:
    """Watch a study; where its engine died with work left, start it again."""
    from core.engine.client import daemon_alive, needs_daemon, start_daemon
    from core.study.recipes import find_recipe
    from core.study.store import StudyReader
    from tui.recipe_view import carry_on

    if recipe := find_recipe(arguments.study):
        from tui.commands.recipe import attach as attach_recipe

        return attach_recipe(recipe, arguments)
    folder = find_study(arguments.study)
    with goes_on(lambda: of_study(folder)):
        carry_on(folder)
        reader = StudyReader(folder)
        if needs_daemon(reader.state, daemon_alive(folder)):
            print("The study's engine is gone; starting it again ...")
            with first_done():
                start_daemon(folder)
        if arguments.headless:
            from tui.follow import follow

            return follow(folder)
        return dashboard(arguments, folder)


def recipe_file(name: str) -> Path | None:
    """The file that a person means by `name` where it is a recipe; None where it is the profile of one run."""
    from core.profile import resolve
    from core.recipe import is_recipe

    path = resolve(name)
    return path if is_recipe(path) else None


def profile_of(arguments: argparse.Namespace, *, rows: bool = True) -> Profile | int:
    """The profile with the changes of the command line, or the exit code where they are wrong. With `rows` the first
    rows of its data must fit its stage."""
    from core.catalogue import UnknownParameterError
    from core.missing import missing_files, unusable_files
    from core.profile import ProfileError, load, resolve

    path = resolve(arguments.profile)
    try:
        changes = parse_changes(arguments.changes)
    except (ValueError, UnknownParameterError) as error:
        print(f"tunedeck: --set {error}", file=sys.stderr)
        return 2
    profile = load(path, changes)
    problems = unusable_files(profile) if rows else missing_files(profile)
    if problems:
        raise ProfileError(str(path), problems)
    return profile


def parse_changes(texts: list[str]) -> dict[str, object]:
    """What `--set` says: full key → value, `search.space.NAME` among the keys.

    Raises:
        ValueError: a text is no KEY=VALUE, or its value is not allowed.
        UnknownParameterError: there is no such parameter.
    """
    from core.catalogue import find
    from core.values import read_toml

    changes: dict[str, object] = {}
    for given in texts:
        key, equals, value = given.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(f"{given}: write TABLE.KEY=VALUE")
        if key.startswith("search.space."):
            name = find(key.removeprefix("search.space.")).name
            entry = read_toml(value.strip())
            changes[f"search.space.{name}"] = entry if isinstance(entry, list | dict) else [entry]
            continue
        parameter = find(key)
        try:
            changes[parameter.key] = parameter.parse(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return changes


def _start(profile: Profile, folder: Path, arguments: argparse.Namespace) -> int:
    """Make the study, start its engine and show it."""
    from core.engine.client import create_study, start_daemon
    from core.study.store import StudyReader

    if folder.exists() and any(folder.iterdir()):
        raise StudyError(
            f"{folder} is not empty; `tunedeck attach {folder}` if it is a study, or name another"
        )
    with goes_on(lambda: of_study(folder)):
        with first_done():
            try:
                path = create_study(profile, folder)
            except PermissionError:
                raise StudyError(
                    f"{folder} cannot be made: this folder may not be written to"
                ) from None
            remember(path)
            start_daemon(path)
        if getattr(arguments, "detach", False):
            print(f"The study runs in {path}\n  watch it:  tunedeck attach {path}")
            if choice := StudyReader(path).state.choice:
                print(f"  search:    {choice}")
            return 0
        headless = arguments.headless or not (sys.stdin.isatty() and sys.stdout.isatty())
        if not headless:
            return dashboard(arguments, path)
        from tui.follow import follow

        print(f"The study is in {os.path.relpath(path)}; it goes on if you leave (Ctrl+C).")
        return follow(path)
