"""Rows of mixed length, made from a seed: as real instruction sets have them, most are short and a few are long."""

import json
from pathlib import Path

import numpy as np

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
LENGTHS = (1, 8, 25, 106, 259, 362, 401, 509, 594)
"""How long answers are: tokens of SmolLM2 that a share of the answers has at most, in the 999 rows of the instruction
set that LLaMA-Factory ships (data/alpaca_en_demo.json at ff6d4d1): median 106, 95th percentile 401."""
SCALE = 0.5
"""Of these lengths, so that two cores are done in minutes: what is padding is a matter of how lengths differ."""
_TEXT = (
    "the model learns from each example that it sees and a longer answer takes more time than a short one because "
    "every token of it has to be computed while what is only there to fill a batch teaches nothing at all so that "
    "rows of about the same length belong together or are joined into one sequence in which none sees another"
)


def write_rows(file: Path, count: int, seed: int) -> None:
    """Write `count` rows of alpaca's format into `file`. Few rows have that distribution as well as many: each has its
    own share of it."""
    random, words = np.random.default_rng(seed), _TEXT.split()
    shares = (random.permutation(count) + random.random(count)) / count
    # Each of these words is one token.
    lengths = np.ceil(SCALE * np.interp(shares, SHARES, LENGTHS)).astype(int)
    with file.open("w", encoding="utf-8") as out:
        for number, length in enumerate(lengths):
            answer = " ".join(random.choice(words, length))
            row = {"instruction": f"Tell me about number {number}.", "output": answer}
            out.write(json.dumps(row) + "\n")
