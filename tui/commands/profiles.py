"""`tunedeck check`, `params` and `profiles`: about profiles, without running anything."""

import argparse
import json
import sys
import textwrap
from typing import Any

from core import profile as profiles_
from core.catalogue import Parameter, UnknownParameterError, find, json_schema, nearest, parameters
from core.missing import unusable_files
from core.params import TABLES
from core.profile import ProfileError
from core.recipe import is_recipe
from core.recipe import load as load_recipe
from core.values import toml_value
from tui.commands.run import parse_changes


def check(arguments: argparse.Namespace) -> int:
    """Say everything that is wrong with a profile: 0 when nothing is, 1 otherwise, 2 for a --set that means nothing."""
    path = profiles_.resolve(arguments.profile)
    if is_recipe(path):
        from tui.commands.recipe import check as check_recipe

        return check_recipe(arguments, path)
    try:
        changes = parse_changes(arguments.changes)
    except (ValueError, UnknownParameterError) as error:
        print(f"tunedeck: --set {error}", file=sys.stderr)
        return 2
    try:
        profile = profiles_.load(path, changes)
        problems = unusable_files(profile)
        if problems:
            raise ProfileError(str(path), problems)
    except ProfileError as error:
        if arguments.json:
            found = [
                {"key": p.key, "wrong": p.wrong, "right": p.right, "line": p.line}
                for p in error.problems
            ]
            print(json.dumps({"ok": False, "file": str(path), "problems": found}, indent=1))
        else:
            print(error, file=sys.stderr)
        return 1
    from core.search.choice import choose
    from core.search.samplers import fewer_notice, plan_notices

    fewer = fewer_notice(profile)
    notices = [*plan_notices(profile), *([fewer] if fewer else [])]
    if arguments.json:
        told = {"ok": True, "file": str(path), "problems": [], "notices": notices}
        print(json.dumps(told, indent=1))
        return 0
    searched = ", ".join(profile.search.space) or "nothing (one training)"
    choice = choose(profile, gpus=None)
    print(f"{path}: fine. Searches {searched}; trials: {choice.trials}.")
    if profile.search.space:
        print(f"  {choice.why}")
    for notice in notices:
        print(f"  {notice}")
    return 0


def params(arguments: argparse.Namespace) -> int:
    """Explain one parameter in full, or list those whose name contains the given text."""
    if arguments.schema:
        print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
        return 0
    listed = _matching(arguments.key)
    if not listed:
        print(
            f"tunedeck: {UnknownParameterError(arguments.key, nearest(arguments.key))}",
            file=sys.stderr,
        )
        return 2
    if arguments.json:
        print(json.dumps([_as_json(p) for p in listed], indent=1, ensure_ascii=False))
    elif len(listed) == 1:
        print(explain(listed[0]))
    else:
        _print_list(listed)
    return 0


def _matching(key: str | None) -> list[Parameter]:
    if key is None:
        return [p for p in parameters() if p.table != "tuned"]
    if key in TABLES:
        return [p for p in parameters() if p.table == key]
    try:
        return [find(key)]
    except UnknownParameterError:
        wanted = key.lower()
        return [p for p in parameters() if wanted in p.key.lower() or wanted in p.doc.title.lower()]


def explain(parameter: Parameter) -> str:
    """Everything that is known about a parameter, as text of at most 80 columns."""
    lines = [f"{parameter.key}  ({parameter.doc.title})", ""]
    lines += textwrap.wrap(parameter.help, 78, initial_indent="  ", subsequent_indent="  ")
    lines.append("")
    facts: list[tuple[str, str]] = []
    if parameter.doc.works:
        facts.append(("works", parameter.doc.works))
    facts.append(("takes", parameter.allowed()))
    needed = "must be set" if parameter.required else toml_value(parameter.default)
    facts.append(("default", needed))
    for when in parameter.doc.when:
        values = " or ".join(toml_value(v) for v in when.values)
        facts.append(("applies when", f"{when.key} = {values}"))
    if parameter.doc.llamafactory:
        facts.append(("LLaMA-Factory", parameter.doc.llamafactory))
    facts.append(("can be searched", "yes" if parameter.searchable else "no"))
    for label, text in facts:
        lines += textwrap.wrap(
            text, 78, initial_indent=f"  {label + ':':<17}", subsequent_indent=" " * 19
        )
    return "\n".join(lines)


def _print_list(listed: list[Parameter]) -> None:
    table = ""
    for p in listed:
        if p.table != table:
            table = p.table
            doc = (TABLES[table].__doc__ or "").strip().splitlines()[0]
            print(f"\n[{table}]  {doc}")
        default = "must be set" if p.required else toml_value(p.default)
        print(f"  {p.name:<30} {default:<16} {p.doc.works or p.doc.title}")
    print("\n`tunedeck params KEY` explains one.")


def _as_json(p: Parameter) -> dict[str, Any]:
    return {
        "key": p.key,
        "title": p.doc.title,
        "kind": p.kind,
        "default": p.default,
        "required": p.required,
        "choices": list(p.choices),
        "low": p.low,
        "high": p.high,
        "works": p.doc.works,
        "help": p.help,
        "applies_when": [{"key": w.key, "values": list(w.values)} for w in p.doc.when],
        "llamafactory": p.doc.llamafactory,
        "searchable": p.searchable,
    }


def profiles(arguments: argparse.Namespace) -> int:
    """List the ready-made profiles, the recipes of several steps last."""
    listed = [(path.stem, profiles_.load(path).profile.notes) for path in profiles_.ready_made()]
    listed += [(p.stem, load_recipe(p).profile.notes) for p in profiles_.ready_made_recipes()]
    if arguments.json:
        print(json.dumps([{"name": n, "notes": t} for n, t in listed], indent=1))
        return 0
    for name, notes in listed:
        print(name)
        print(textwrap.fill(notes, 78, initial_indent="    ", subsequent_indent="    "))
    print(
        "\nTry one with: tunedeck run NAME --set model.model_name_or_path=PATH --set data.dataset=FILE"
    )
    return 0
