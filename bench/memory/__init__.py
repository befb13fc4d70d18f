"""How well memory is forecast: `python -m bench memory [NAME ...]`, or one of them with its arguments."""

from importlib import import_module

BENCHES = ("t4", "real_cpu", "grid", "speed")


def main(arguments: list[str] | None = None) -> None:
    """Run all of them, or the one that the first argument names, with the rest of them."""
    given = arguments or []
    if given:
        import_module(f"bench.memory.{given[0]}").main(given[1:])
        return
    for name in BENCHES:
        print(f"\nmemory {name}", flush=True)
        import_module(f"bench.memory.{name}").main([])
