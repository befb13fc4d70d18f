"""Rows of mixed length, made from a seed: as real instruction sets have them, most are short and a few are long."""

import json
from pathlib import Path

import numpy as np

MEDIAN, SPREAD, LEAST, MOST = 45.0, 1.1, 3, 420
"""Of the words of an answer: log-normal, as the lengths of published instruction sets are."""
_TEXT = (
    "the model learns from each example that it sees and a longer answer takes more time than a short one because "
    "every token of it has to be computed while what is only there to fill a batch teaches nothing at all so that "
    "rows of about the same length belong together or are joined into one sequence in which none sees another"
)


def write_rows(file: Path, count: int, seed: int) -> None:
    """Write `count` rows of alpaca's format into `file`."""
    random, words = np.random.default_rng(seed), _TEXT.split()
    lengths = random.lognormal(np.log(MEDIAN), SPREAD, count).clip(LEAST, MOST).astype(int)
    with file.open("w", encoding="utf-8") as out:
        for number, length in enumerate(lengths):
            answer = " ".join(random.choice(words, length))
            row = {"instruction": f"Tell me about number {number}.", "output": answer}
            out.write(json.dumps(row) + "\n")
