"""How fast a supervised LoRA training is: `python -m bench train [--rows N] [--rounds N] [--data FILE] [--cuda]`.

On SmolLM2-135M, in turn in one run: a plain Trainer of transformers on padded batches, and ours on padded batches, on
packed rows and on rows grouped by length. The same rows for all, each once, and about as many of them to an update; the
rate is of learnt and prompt tokens, padding left out, over all updates. What one update costs for once (ours runs the
widest batch before it begins) is not counted. Then the data phase of a first trial and of a second one, which finds
what the first has tokenised. With --cuda, the rate and the model FLOPs utilisation of a 0.5B and of a 7B-shaped model.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.train import arms, phases

ROUNDS = 1
ROWS = 24
GOAL_PADDED, GOAL_MIXED = 1.0, 1.5


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench train", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--data", type=Path, help="rows to train on, in place of made ones")
    parser.add_argument("--cuda", action="store_true", help="0.5B and 7B-shaped models on a GPU")
    given = parser.parse_args(arguments or [])
    if given.cuda:
        from bench.train import gpu

        return gpu.main()
    with tempfile.TemporaryDirectory(prefix="tunedeck-bench-") as folder:
        root = Path(folder)
        setup = arms.prepare(root, given.rows, given.data)
        print(setup.describe(), flush=True)
        missed = _compare(setup, given.rounds)
        first, second, rows = phases.measure(root, setup.model)
    print(
        f"data phase of {rows:,} rows: {first:.2f} s for the first trial, {second:.2f} s for the second one, "
        "which tokenises nothing"
    )
    return missed


def _compare(setup: arms.Setup, rounds: int) -> int:
    rates: dict[str, list[float]] = {name: [] for name in arms.ARMS}
    ends: dict[str, arms.Ran] = {}
    for number in range(rounds):
        # Forth and back: what the machine does besides meets all alike.
        for name in arms.ARMS if number % 2 == 0 else tuple(reversed(arms.ARMS)):
            ran = arms.run(setup, name, number)
            rates[name].append(ran.tokens_per_s)
            ends[name] = ran
    plain = statistics.median(rates["plain"])
    ratios = {name: statistics.median(found) / plain for name, found in rates.items()}
    for name, found in rates.items():
        print(
            f"{arms.TITLES[name]:<34} {statistics.median(found):7.1f} tokens/s ({min(found):.1f} to {max(found):.1f}), "
            f"{ratios[name]:.2f} × plain; {ends[name].eval_loss:.4f} nats a token after the same rows in "
            f"{ends[name].updates} updates",
            flush=True,
        )
    mixed = max(ratios["packed"], ratios["grouped"])
    padded_met, mixed_met = ratios["padded"] >= GOAL_PADDED, mixed >= GOAL_MIXED
    print(
        f"goals: padded batches at least as fast as plain ones: {'met' if padded_met else 'missed'}; "
        f"mixed lengths {GOAL_MIXED} ×: {'met' if mixed_met else 'missed'} ({mixed:.2f} ×)"
    )
    return int(not (padded_met and mixed_met))
