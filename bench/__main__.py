"""`make bench`: every figure of the README, printed. `python -m bench NAME ...` prints some of them."""

import os
import platform
import subprocess
import sys
from importlib import import_module

BENCHES = ("dashboard", "daemon", "worker", "train", "memory", "search", "search-real")
MODULES = {"search-real": "bench.search.real"}
"""Benches whose module has another name."""


def main(names: list[str]) -> int:
    if names[:1] == ["memory"]:
        return int(import_module("bench.memory").main(names[1:]))
    if names[:1] == ["train"]:
        return int(import_module("bench.train").main(names[1:]))
    if names[:1] == ["search"]:
        return int(import_module("bench.search").main(names[1:]))
    if names[:1] == ["doctor"]:
        return int(import_module("bench.search.doctor").main(names[1:]))
    if names[:1] == ["rates"]:
        return int(import_module("bench.search.rates").main(names[1:]))
    unknown = [n for n in names if n not in BENCHES]
    if unknown:
        print(
            f"no bench called {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr
        )
        return 2
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"tunedeck {commit}, Python {platform.python_version()}, {os.cpu_count()} cores")
    missed = 0
    for name in names or BENCHES:
        print(f"\n{name}", flush=True)
        module = import_module(MODULES.get(name, f"bench.{name}"))
        code = int(module.main(*([[]] if name in ("daemon", "search") else [])) or 0)
        # Recorded curves are not part of the repository: without them the bench says so, and nothing is missed.
        missed |= 0 if name == "search" and code == 2 else code
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
