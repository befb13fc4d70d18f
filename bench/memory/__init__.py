"""How well memory is forecast: `python -m bench memory`, or one of the benches by its name, with its arguments."""

import sys
from importlib import import_module

BENCHES = ("t4", "real_cpu", "grid", "speed", "search")


def main(arguments: list[str] | None = None) -> int:
    """Run all of them, or the one that the first argument names, with the rest of them; 1 where a goal is missed."""
    given = arguments or []
    if given and given[0] not in BENCHES:
        print(
            f"no bench of memory called {given[0]}; there are {', '.join(BENCHES)}",
            file=sys.stderr,
        )
        return 2
    if given:
        return int(import_module(f"bench.memory.{given[0]}").main(given[1:]))
    missed = 0
    for name in BENCHES:
        print(f"\nmemory {name}", flush=True)
        missed |= int(import_module(f"bench.memory.{name}").main([]))
    return missed
