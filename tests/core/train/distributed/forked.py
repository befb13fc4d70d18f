"""Trials of two ranks without the wait for imports: their processes are forked from one that has imported everything.

That one (multiprocessing's forkserver) has run nothing yet, so that its forks may. How a worker starts the other ranks
itself, and what becomes of them, is tested beside (`test_ranks`).
"""

import multiprocessing
import os
import socket
from pathlib import Path

from core.study.files import (
    REPORT_FILE,
    TASK_FILE,
    TrialTask,
    WorkerReport,
    read_record,
    write_record,
)
from core.train.distributed.crew import become_member
from core.train.distributed.ranks import LOCALHOST, Place
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.worker import train
from tests.core.train.conftest import Ran

IMPORTED = [
    "core.train.trial", "core.train.conductor", "core.train.report", "core.train.utilisation",
    "core.train.model.build", "core.train.model.trainable", "core.train.stages.ranked_by_row",
    "tests.core.train.distributed.forked", "peft.tuners.lora", "transformers.models.llama.modeling_llama",
]  # fmt: skip
PATIENCE = 120.0
"""Seconds after which two ranks are taken to wait for each other."""


def run_forked(folder: Path) -> Ran:
    """Train the trial in `folder` with two processes."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(IMPORTED)
    first = forks.Process(target=_be_both, args=(folder,))
    first.start()
    first.join(PATIENCE)
    log = folder / "log.txt"
    if first.is_alive():
        first.kill()
        first.join()
    report = read_record(folder / REPORT_FILE, WorkerReport)
    assert report is not None, log.read_text()
    # Rank 1 may fail where rank 0 does not.
    assert first.exitcode == 0 or report.outcome == "failed", log.read_text()
    return Ran(folder, report)


def _be_both(folder: Path) -> None:
    """Be rank 0, and fork rank 1. Rank 0 fails where it loses the other, which ends with it."""
    with (folder / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    task = read_record(folder / TASK_FILE, TrialTask)
    assert task is not None
    listener = socket.create_server((LOCALHOST, 0), backlog=2)
    port, own = listener.getsockname()[1], os.getpid()
    if os.fork() == 0:
        become_member(Place(1, 2, port, parent=own))
        listener.close()
        report = train(folder, task, Requests(), Stopwatch(), Place(1, 2, port))
        os._exit(report.outcome == "failed")
    place = Place(0, 2, port, listener=listener.detach())
    (folder / REPORT_FILE).unlink(missing_ok=True)
    write_record(folder / REPORT_FILE, train(folder, task, Requests(), Stopwatch(), place))
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
