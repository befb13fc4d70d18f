"""A trial on a stream: as many rows as its updates take, resumed exactly, packed into as many sequences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
STREAM = {"data__streaming": True, "data__buffer_size": 6, "data__val_size": 4.0, "max_steps": 8}


def test_a_stream_trains_on_the_rows_that_its_updates_take(run_trial: Run) -> None:
    rows = 8 * 2
    ran = run_trial(task={"full_rows": rows}, per_device_train_batch_size=2,
                    gradient_accumulation_steps=1, **STREAM)  # fmt: skip
    assert ran.report.outcome == "completed" and ran.report.step == 8
    assert (ran.run.train_rows, ran.run.eval_rows, ran.run.steps_per_epoch) == (rows, 4, 8)


@pytest.mark.parametrize("packing", [False, True])
def test_a_paused_stream_goes_on_as_if_it_had_not_been_paused(
    run_trial: Run, packing: bool
) -> None:
    settings = {**STREAM, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    settings |= {"packing": packing, "cutoff_len": 64}
    task = {"full_rows": 16}
    straight = run_trial("straight", task=task, **settings)
    # With the study's cache and without, which the trials of a study share.
    cached = {**task, "cache": "../cache"}
    paused = run_trial("paused", task=cached, ask=("paused", 3), **settings)
    resumed = run_trial(
        "paused",
        task={**cached, "attempt": 2, "resume_from": paused.report.checkpoint},
        **settings,
    )
    assert resumed.losses == straight.losses
    assert [p.eval_loss for p in resumed.points] == [p.eval_loss for p in straight.points]


def test_a_packed_stream_reads_on_until_it_fills_its_sequences(
    run_trial: Run, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("".join(f"Say hello {n} times.\n" for n in range(300)))
    ran = run_trial(
        stage="pt",
        dataset=str(file),
        cutoff_len=64,
        task={"full_rows": 16},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        **STREAM,
    )
    assert ran.report.outcome == "completed" and ran.report.step == 8
    assert ran.run.steps_per_epoch == 8 and ran.run.train_rows > 16
