"""The small records that the processes of a trial hand to each other as files in the trial's folder.

`task.json` (the daemon writes it, the worker reads it), `run.json` and `report.json` (the worker writes them),
`exit.json` (the shim writes it) and `forecast.json` (the daemon writes it before the start). Each is replaced whole or
not at all.
"""

import json
import os
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

CACHE = "cache"
"""The folder of a study's tokenised data."""
RANGE_FILE = "range.json"
TRIAL_FILE = "trial.toml"
TASK_FILE = "task.json"
RUN_FILE = "run.json"
REPORT_FILE = "report.json"
EXIT_FILE = "exit.json"
FORECAST_FILE = "forecast.json"
METRICS_FILE = "metrics.jsonl"
LOG_FILE = "log.txt"
LOCK_FILE = "lock"
CHECKPOINTS = "checkpoints"
OUTPUT = "output"
TENSORBOARD = "tb"
STATE_FILE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint."""

LEAST_RANGE_STEPS = 10
MOST_RANGE_STEPS = 100_000
"""Updates of a learning-rate range test: fewer show no curve."""

Phase = Literal["start", "load", "data", "train", "eval", "save", "done"]
"""What a worker is doing, in the order in which it does it."""


Moment = Literal["load", "forward", "backward", "optimizer", "eval", "save"]
"""A part of a run that has a peak of memory of its own. `optimizer` is all between the last backward pass of an update
and the next forward pass: clipping, the update, reporting."""


class RangeTest(msgspec.Struct, frozen=True):
    """A learning-rate range test (`range.json` in the study's folder): the rate rises exponentially from `low` to
    `high` over `steps` updates."""

    low: float = 1e-7
    high: float = 1.0
    steps: int = 100

    @property
    def problem(self) -> str | None:
        """Why it cannot be run, as a sentence; None where it can."""
        if not 0 < self.low < self.high <= 1000:
            return f"a range test needs rates 0 < low < high, not {self.low:g} and {self.high:g}"
        if not MOST_RANGE_STEPS >= self.steps >= LEAST_RANGE_STEPS:
            return f"a range test takes {LEAST_RANGE_STEPS} to {MOST_RANGE_STEPS} updates, not {self.steps}"
        return None


class TrialTask(msgspec.Struct, frozen=True):
    """What a worker is to do besides `trial.toml`, which says how."""

    trial: int
    attempt: int
    kind: Literal["probe", "full", "range"]
    budget: float
    """The share of the full training to run, in (0, 1]."""
    device: Literal["cuda", "cpu"]
    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs leased to this attempt; empty on the CPU."""
    processes: int = 1
    """Processes that share the work: one for each GPU. On the CPU one, but for tests of how work is shared."""
    resume_from: str | None = None
    """A checkpoint's folder to continue from, relative to the trial's folder."""
    save_model: bool = False
    """Whether the trained weights are written to `output/` at the end."""
    threads: int | None = None
    """The most CPU threads to compute with; None leaves it to the library."""
    until: float = 1.0
    """The share of the probe at which to evaluate, save a checkpoint and end with the outcome "rung"; 1 runs to the
    end. Never before the warm-up is over."""
    looks: tuple[float, ...] = ()
    """Shares of the probe at which to evaluate besides: how fast a trial moves is judged at its first rung."""
    budget_tokens: int | None = None
    """Ends a probe with the first update after so many tokens (padding left out) in place of `budget`."""
    full_rows: int | None = None
    """Rows of the full training of the study's own profile, where `max_steps` gives its length: probes of other
    effective batches run `budget` of as many rows, not of as many updates."""
    own_batch: int | None = None
    """The effective batch of the study's own profile, which its counts of updates (warmup_steps, eval_steps) are for;
    None: the trial's own, or what `full_rows` tells."""
    schedule: Literal["own", "full"] = "own"
    """Whether a probe's learning-rate schedule spans the probe or the full training; of a training that continues from
    a probe, that one's."""
    cache: str | None = None
    """The folder of the study's tokenised data, relative to the trial's folder: what one trial has tokenised the others
    read. None: none is kept."""
    keep_checkpoint: bool = False
    """Whether a checkpoint is saved at the end and kept."""
    continues: str | None = None
    """A probe's last checkpoint, relative to the trial's folder, that this full training continues from."""
    range_low: float = 1e-7
    range_high: float = 1.0
    range_steps: int = 100
    """Of a learning-rate range test: the rate rises exponentially from low to high over so many updates."""


class RunInfo(msgspec.Struct, frozen=True):
    """What a worker knows once its first step is about to begin (`run.json`)."""

    attempt: int
    total_steps: int
    """Updates of the trial from its start to its end, be there a rung before that or not."""
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
    longest_row: int | None = None
    """Tokens of the longest row (or packed sequence) to train on: what the widest batch is as wide as, but for padding
    to a multiple of 8 on CUDA."""
    rung_step: int | None = None
    """The update after which this attempt waits at its rung; None where it runs to its end."""
    warmup_steps: int | None = None
    """Updates over which the learning rate rises first; None where an earlier version wrote this."""
    epoch_tokens: int | None = None
    """Tokens of one pass over the training rows, padding left out."""
    longest_eval_row: int | None = None
    """The same of the rows to evaluate on; None where there are none."""
    changed: dict[str, str] = {}
    """Where it goes on from a checkpoint: the settings that are others than those that made that, by full key, each as
    a sentence."""


class WorkerReport(msgspec.Struct, frozen=True):
    """How a worker says that it ended (`report.json`). A worker that was killed leaves none."""

    attempt: int
    outcome: Literal["completed", "paused", "rung", "stopped", "failed"]
    phase: Phase
    step: int = 0
    loss: float | None = None
    """The last logged training loss, nats per token; None where there is none or it is not finite."""
    eval_loss: float | None = None
    checkpoint: str | None = None
    """The checkpoint saved by a pause, at a rung or (where it is kept) at the end, relative to the trial's folder."""
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
    moment: Moment | None = None
    """The part of the run in which memory ran out; None where it did not."""
    moments: dict[Moment, int] | None = None
    """The most that the CUDA allocator held in each part of the run, bytes; None on the CPU."""
    context_bytes: int | None = None
    """What the process held besides: on a GPU CUDA's context and libraries, on the CPU the process itself with its
    libraries before the model was loaded, counted as memory.limit_gib counts. None where it cannot be known."""


class TrialForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial was forecast to need of its device's memory (`forecast.json`). All sizes are bytes."""

    attempt: int
    shape: str
    """Stands for all settings that memory depends on: trials with the same one need the same."""
    tier: Literal["estimate", "proof"]
    device: str
    """The name of the device that it was forecast for."""
    allocated: int
    """The most that tensors hold at once."""
    reserved: int
    needed: int
    """The smallest capacity of the allocator at which the run goes through."""
    context: int
    """What the process holds besides."""
    capacity: int
    """What the allocator may take of the device."""
    guard: float
    """The share of `needed` that has to stay free besides."""
    parts: dict[str, int]
    """What holds the memory at the peak; sums to `allocated`."""
    moments: dict[str, int]
    """The most allocated in each part of the run."""
    peak: str
    """In which part it peaks."""
    peak_step: int = 1
    notes: tuple[str, ...] = ()
    """What the method cannot see of this run, as sentences."""


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


def is_whole(checkpoint: Path) -> bool:
    """Whether all that belongs into a checkpoint was written: what comes last can be read to its end."""
    try:
        # It may hold NaN, which is no JSON to msgspec.
        json.loads((checkpoint / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return True


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
