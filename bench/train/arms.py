"""The trainings that are compared, each in a process of its own, on the same rows."""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.train.rows import write_rows
from bench.worker import CONVERT, ROOT, gguf
from core.params import DataTable
from core.profile import from_document, save
from core.study.files import RunInfo, TrialTask, WorkerReport, read_record, write_record
from core.study.metrics import read_points
from core.study.store import TrialFolder

ARMS = ("plain", "padded", "packed", "grouped")
TITLES = {
    "plain": "transformers Trainer, padded",
    "padded": "tunedeck, padded",
    "packed": "tunedeck, data.packing",
    "grouped": "tunedeck, data.group_by_length",
}
CUTOFF, BATCH, EVAL_ROWS, RATE, SEED = 1024, 8, 4, 2e-4, 42
SEQUENCES = 2
"""Packed sequences to a batch; they are as long as it takes for an update to be of as many rows as the others'."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all arms have in common."""

    root: Path
    model: Path
    train: Path
    evaluation: Path
    lengths: tuple[int, ...]
    """Tokens of the rows in the order in which they come."""

    @property
    def width(self) -> int:
        """Tokens of a packed sequence."""
        return max(*self.lengths, round(BATCH / SEQUENCES * sum(self.lengths) / len(self.lengths)))

    def describe(self) -> str:
        """A line about the rows."""
        batches = [self.lengths[i : i + BATCH] for i in range(0, len(self.lengths), BATCH)]
        width = sum(max(batch) * len(batch) for batch in batches)
        tokens = sum(self.lengths)
        return (
            f"SmolLM2-135M, LoRA, CPU, {os.cpu_count()} cores: {len(self.lengths)} rows of {min(self.lengths)} to "
            f"{max(self.lengths)} tokens (median {statistics.median(self.lengths):.0f}, {tokens:,} in all); "
            f"of batches of {BATCH} {1 - tokens / width:.0%} is padding"
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of an arm."""

    tokens_per_s: float
    updates: int
    eval_loss: float


def prepare(root: Path, rows: int, data: Path | None) -> Setup:
    """Unpack the model, make the rows and tokenise them for the plain Trainer."""
    model = root / "model"
    subprocess.run(
        [sys.executable, "-c", CONVERT, str(gguf()), str(model)], check=True, capture_output=True
    )
    train, evaluation = data or root / "train.jsonl", root / "eval.jsonl"
    if data is None:
        write_rows(train, rows, SEED)
    write_rows(evaluation, EVAL_ROWS, SEED + 1)
    given = _tokenise(model, train, evaluation, rows if data is not None else None)
    settings = {
        "model": str(model),
        "dtype": "float32",
        "device": "cpu",
        "batch": BATCH,
        "learning_rate": RATE,
        "out": str(root / "plain"),
        **given,
    }
    (root / "plain.json").write_text(json.dumps(settings))
    lengths = tuple(len(row["input_ids"]) for row in given["train"])
    return Setup(root, model, train, evaluation, lengths)


def _tokenise(model: Path, train: Path, evaluation: Path, most: int | None) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from core.train.data.batches import build_examples, epoch_order, read_split
    from core.train.data.chat import ChatEncoder

    table = DataTable(dataset=str(train), cutoff_len=CUTOFF, val_size=0, max_samples=most)
    split = read_split(table, "sft", [str(train)], [str(evaluation)], SEED)
    encoder = ChatEncoder.of(AutoTokenizer.from_pretrained(model), "auto", table)
    examples = build_examples(split, encoder, table, "sft", lambda: None)

    def plain(rows: Any) -> list[dict[str, list[int]]]:
        return [{"input_ids": r.ids.tolist(), "labels": r.labels.tolist()} for r in rows]

    order = epoch_order(len(examples.train), SEED, 0)
    return {
        "train": plain(examples.train[i] for i in order),
        "evaluation": plain(examples.evaluation),
    }


def run(setup: Setup, name: str, number: int) -> Ran:
    """Run one arm for the `number`-th time."""
    return _run_plain(setup, number) if name == "plain" else _run_ours(setup, name, number)


def _run_plain(setup: Setup, number: int) -> Ran:
    result = setup.root / f"plain-{number}.json"
    subprocess.run(
        [sys.executable, "-m", "bench.train.plain", str(setup.root / "plain.json"), str(result)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    found = json.loads(result.read_text())
    return Ran(sum(setup.lengths) / found["seconds"], found["updates"], found["eval_loss"])


def _run_ours(setup: Setup, name: str, number: int) -> Ran:
    folder = setup.root / f"{name}-{number}"
    folder.mkdir()
    packed = name == "packed"
    profile = from_document(
        {
            "model": {"model_name_or_path": str(setup.model)},
            "data": {
                "dataset": str(setup.train),
                "eval_dataset": str(setup.evaluation),
                "cutoff_len": setup.width if packed else CUTOFF,
                "packing": packed,
                "group_by_length": name == "grouped",
                "max_samples": len(setup.lengths),
            },
            "train": {
                "per_device_train_batch_size": SEQUENCES if packed else BATCH,
                "per_device_eval_batch_size": BATCH,
                "gradient_accumulation_steps": 1,
                "num_train_epochs": 1.0,
                "learning_rate": RATE,
                "lr_scheduler_type": "constant",
                "warmup_ratio": 0.0,
                "logging_steps": 1,
                "eval_steps": 100_000,
                "precision": "fp32",
                "data_seed": SEED,
            },
        }
    )
    trial = TrialFolder(folder)
    save(profile, trial.profile)
    write_record(trial.task, TrialTask(1, 1, "full", 1.0, "cpu", cache="../cache"))
    with trial.log.open("wb") as out:
        command = [sys.executable, "-P", str(ROOT / "tunedeck.py"), "_worker", str(folder)]
        subprocess.run(command, stdout=out, stderr=out, check=False)
    run, report = read_record(trial.run, RunInfo), read_record(trial.report, WorkerReport)
    if run is None or report is None or report.eval_loss is None:
        raise SystemExit(f"{TITLES[name]} failed:\n{trial.log.read_text()[-2000:]}")
    updates = [p for p in read_points(trial.metrics) if p.loss is not None]
    seconds, before = 0.0, 0
    for point in updates:
        assert point.tokens is not None and point.tokens_per_s is not None
        seconds += (point.tokens - before) / point.tokens_per_s
        before = point.tokens
    assert before == sum(setup.lengths), "all have the same rows, each once"
    return Ran(before / seconds, len(updates), report.eval_loss)
