"""The small records that the processes of a trial hand to each other as files in the trial's folder.

`task.json` (the daemon writes it, the worker reads it), `run.json` and `report.json` (the worker writes them) and
`exit.json` (the shim writes it). Each is replaced whole or not at all.
"""

import os
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

TRIAL_FILE = "trial.toml"
TASK_FILE = "task.json"
RUN_FILE = "run.json"
REPORT_FILE = "report.json"
EXIT_FILE = "exit.json"
METRICS_FILE = "metrics.jsonl"
LOG_FILE = "log.txt"
LOCK_FILE = "lock"
CHECKPOINTS = "checkpoints"
OUTPUT = "output"
TENSORBOARD = "tb"

Phase = Literal["start", "load", "data", "train", "eval", "save", "done"]
"""What a worker is doing, in the order in which it does it."""


class TrialTask(msgspec.Struct, frozen=True):
    """What a worker is to do besides `trial.toml`, which says how."""

    trial: int
    attempt: int
    kind: Literal["probe", "full"]
    budget: float
    """The share of the full training to run, in (0, 1]."""
    device: Literal["cuda", "cpu"]
    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs leased to this attempt; empty on the CPU."""
    resume_from: str | None = None
    """A checkpoint's folder to continue from, relative to the trial's folder."""
    save_model: bool = False
    """Whether the trained weights are written to `output/` at the end."""
    threads: int | None = None
    """The most CPU threads to compute with; None leaves it to the library."""


class RunInfo(msgspec.Struct, frozen=True):
    """What a worker knows once its first step is about to begin (`run.json`)."""

    attempt: int
    total_steps: int
    """Updates that this attempt ends at, counted from the start of the trial."""
    full_steps: int
    """Updates of the full training."""
    steps_per_epoch: float
    train_rows: int
    eval_rows: int
    dropped_rows: int
    """Rows left out because no token of them would be learnt from."""
    trainable_parameters: int
    parameters: int
    precision: str
    """What the precision became, never `auto`."""
    device: str
    """The device's name: the GPU's, or `CPU`."""
    versions: dict[str, str]
    startup_seconds: float
    """From the worker's start to its first training step."""


class WorkerReport(msgspec.Struct, frozen=True):
    """How a worker says that it ended (`report.json`). A worker that was killed leaves none."""

    attempt: int
    outcome: Literal["completed", "paused", "stopped", "failed"]
    phase: Phase
    step: int = 0
    loss: float | None = None
    """The last logged training loss, nats per token; None where there is none or it is not finite."""
    eval_loss: float | None = None
    checkpoint: str | None = None
    """The checkpoint saved by a pause, relative to the trial's folder."""
    error_type: str | None = None
    """The exception's full name, as torch.OutOfMemoryError."""
    error: str | None = None
    """A sentence that says what went wrong and what to do, or the exception's message."""
    usage_error: bool = False
    """True when the input is wrong (a model, data, settings), so that trying again changes nothing."""
    peak_memory: int | None = None
    """The most memory held, bytes: of one GPU (allocated), or the process's resident set on the CPU."""
    peak_reserved: int | None = None
    """The most memory that the CUDA allocator reserved, bytes."""


class ProcessRecord(msgspec.Struct, frozen=True):
    """The identity of a process: a pid alone may have been given to another one since."""

    pid: int
    started: int
    """Clock ticks after boot (field 22 of /proc/PID/stat)."""
    boot_id: str


class ExitRecord(msgspec.Struct, frozen=True):
    """How a worker ended as its shim saw it (`exit.json`)."""

    attempt: int
    returncode: int | None
    """The exit code, None where a signal ended it."""
    signal: int | None
    started: float
    """Seconds since the epoch."""
    ended: float
    oom_kills_before: int | None = None
    """The cgroup's count of out-of-memory kills before the worker and after it; None where it cannot be read."""
    oom_kills_after: int | None = None
    requested: Literal["stop", "pause", "kill"] | None = None
    """What the shim had been asked to do to the worker."""
    problem: str | None = None
    """Why the worker could not be started, where it was not."""
    max_rss: int | None = None
    """The worker's largest resident set, bytes."""


Record = TypeVar("Record", bound=msgspec.Struct)


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Write `record` as JSON, atomically and durably.

    Raises:
        OSError: the disk is full or the folder is gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(msgspec.json.encode(record))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """Read a record; None when the file is not there, is not whole or is of another form."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError):
        # Bytes that are no UTF-8 and endless nesting are errors of Python's, not of msgspec's.
        return None
