"""The memory benches, on the smallest of what they run."""

from pathlib import Path

import bitsandbytes  # noqa: F401  (before the trial: one that is not quantised hides it from peft)
import pytest

from bench.memory.published import shape
from bench.memory.real_cpu import base, compare, runs, write_rows
from bench.memory.t4 import MEASURED, Row, read, simulate

MIB = 2**20


def rows() -> list[Row]:
    return [row for row in read(MEASURED) if (row.model, row.length) == ("smollm2-135m", 512)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.attention}-{row.bits}")
def test_a_t4s_measurements_are_met(row: Row) -> None:
    found = simulate(row, shape(row.model))
    assert found.demand.allocated / MIB == pytest.approx(row.allocated, rel=0.015)
    assert found.demand.reserved / MIB == pytest.approx(row.reserved, rel=0.1)
    assert found.peak.moments["forward"] / MIB == pytest.approx(row.forward, rel=0.02)
    assert found.peak.moments["optimizer"] / MIB == pytest.approx(row.optimizer, rel=0.05)


def test_all_measured_models_are_known() -> None:
    measured = read(MEASURED)
    assert len(measured) == 36
    assert all(shape(row.model)["model_type"] for row in measured)


@pytest.mark.parametrize(
    "name",
    [
        "lora, fp32, checkpointing", "full, bf16", "freeze, pure_bf16", "full, chunked loss",
        "rm, lora", "rm, full, bf16, checkpointing", "dpo sigmoid, lora, 4 bits, bf16, checkpointing",
        "dpo sigmoid, full", "dpo sigmoid, freeze", "dpo simpo, lora", "kto, lora, 4 bits", "kto, full",
    ],
)  # fmt: skip
def test_the_worker_allocates_what_the_dry_run_says(name: str, tmp_path: Path) -> None:
    data, changes = tmp_path / "rows.jsonl", runs()[name]
    write_rows(data, str(changes.get("method.stage", "sft")))
    found = compare(name, base(data).with_changes(changes), tmp_path / "trial")
    # The batch that the data loader has fetched ahead, and numbers of the Trainer's, are not simulated.
    for error in found.errors().values():
        assert abs(error) < 0.2
