"""The data phase of a trial: from files to examples, with and without what another trial has tokenised."""

import time
from pathlib import Path

from bench.train.rows import write_rows
from core.params import DataTable

ROWS = 20_000


def measure(root: Path, model: Path) -> tuple[float, float, int]:
    """Seconds of a first trial's and of a second one's, and the number of rows."""
    from transformers import AutoTokenizer

    from core.train.data.chat import ChatEncoder
    from core.train.data.reading import Reading

    file = root / "many.jsonl"
    write_rows(file, ROWS, 7)
    table = DataTable(dataset=str(file), cutoff_len=512, val_size=0.01)
    seconds = []
    for _ in range(2):
        encoder = ChatEncoder.of(AutoTokenizer.from_pretrained(model), "auto", table)
        began = time.perf_counter()
        reading = Reading(table, "sft", [str(file)], [], 0, root / "phase-cache")
        reading.begin()
        reading.examples(encoder, lambda: None)
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1], ROWS
