"""The command `tunedeck`, and the way every process of it starts.

The import packages are called `core` and `tui`, names that a user's PYTHONPATH may hold as well. This module has
a name of its own, so that it is always found; it binds both names to the folders beside it before anything else
is imported. `sys.path` stays as the user set it: the user's own packages are found where they were.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def bind_packages() -> None:
    """Bind `core`, `tui` and `profiles` to the folders beside this file.

    Raises:
        ImportError: the installation is incomplete.
    """
    for name in ("core", "tui", "profiles"):
        loaded = sys.modules.get(name)
        if loaded is not None and str(ROOT / name) in list(getattr(loaded, "__path__", [])):
            continue
        spec = PathFinder.find_spec(name, [str(ROOT)])
        if spec is None or spec.loader is None:
            raise ImportError(f"tunedeck is not installed completely: {ROOT / name} is missing")
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


def main(argv: list[str] | None = None) -> int:
    """Run one process of tunedeck: a client, or by an internal first word the daemon, a shim or another."""
    bind_packages()
    arguments = sys.argv[1:] if argv is None else argv
    role = arguments[0] if arguments else ""
    if role == "_shim":
        from core.engine.shim import main as shim

        return shim(arguments[1:])
    if role == "_worker":
        from core.train.worker import main as worker

        return worker(arguments[1:])
    if role == "_data":
        from core.train.preview.main import main as preview

        return preview(arguments[1:])
    if role == "_dryrun":
        from core.dryrun.main import main as dryrun

        return dryrun(arguments[1:])
    if role == "_daemon":
        from core.engine.daemon import main as daemon

        return daemon(arguments[1:])
    if role == "_recipe":
        from core.engine.recipes.handover import main as recipe

        return recipe(arguments[1:])
    if role == "_advise":
        from core.engine.memory.advise import main as advise

        return advise(arguments[1:])
    if role == "_propose":
        from core.search.propose import main as propose

        return propose(arguments[1:])
    if role == "_export":
        from core.train.after.export import main as export

        return export(arguments[1:])
    if role == "_chat":
        from core.train.after.chat import main as chat

        return chat(arguments[1:])
    if role == "_evaluate":
        from core.train.after.evaluate import main as evaluate

        return evaluate(arguments[1:])
    try:
        from tui.cli import main as client
    except KeyboardInterrupt:
        # Before there is anybody to say it better.
        sys.stderr.write("tunedeck: interrupted; nothing was left behind\n")
        return 130
    return client(arguments)


if __name__ == "__main__":
    sys.exit(main())
