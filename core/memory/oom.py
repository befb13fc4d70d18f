"""Reads how a trial ended and tells a real out-of-memory ending from every other.

Evidence is taken only where an allocator or the kernel speaks: the type and message of the error
that the worker reported, the last lines of its log when it died without a report, and the
kernel's own count of kills. Text that merely talks of memory, in the training data say, is none.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal

OomKind = Literal["cuda", "cpu-allocator", "host-killed", "limit"]
"""`cuda`: the GPU's memory was full. `cpu-allocator`: the machine refused main memory.
`host-killed`: the kernel killed the trial. `limit`: the trial's own `memory.limit_gib` was reached,
on the GPU or the CPU, while the device may have had more."""

LOG_LINES = 15
"""How many of the log's last lines are looked at: an abort in C++ prints a handful."""

_UNITS = {"bytes": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = r"([\d.]+) (bytes|[KMGT]iB)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a trial's ending.

    `returncode` is as subprocess gives it (negative for a signal) or as a shell does (128 + n).
    `worker_error_type` may carry its module ("torch.OutOfMemoryError"). `log_tail` is the end of
    the worker's log. The kill counts are the control group's before and after the trial.
    `limit_gib` is the limit that was set on the trial, None without one; it caps the memory of
    `device`, so that a trial on a GPU has no limit in main memory.
    """

    returncode: int | None = None
    signal: int | None = None
    worker_error_type: str | None = None
    worker_error_message: str | None = None
    log_tail: str = ""
    oom_kills_before: int | None = None
    oom_kills_after: int | None = None
    limit_gib: float | None = None
    device: Literal["cuda", "cpu"] = "cpu"

    @property
    def host_limit_gib(self) -> float | None:
        """The limit on the trial's main memory, GiB."""
        return self.limit_gib if self.device == "cpu" else None


@dataclass(frozen=True, slots=True)
class OomVerdict:
    """An out-of-memory ending; all sizes in bytes, None where nobody told them.

    `capacity_bytes` is what there was to share (the GPU's memory or the trial's limit),
    `held_bytes` what the trial itself held, `message` a plain sentence for the user.
    """

    kind: OomKind
    asked_bytes: int | None
    capacity_bytes: int | None
    free_bytes: int | None
    held_bytes: int | None
    message: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One way in which an allocator says that it has run out.

    `message` must match where the error's message begins; `types` are the error's possible names
    without their modules, none meaning any. `only_capped` marks what means memory only when the
    trial's main memory was limited.
    """

    kind: OomKind
    types: frozenset[str]
    message: re.Pattern[str]
    only_capped: bool = False


def _pattern(kind: OomKind, types: str, message: str, only_capped: bool = False) -> _Pattern:
    return _Pattern(kind, frozenset(types.split()), re.compile(message), only_capped)


_RUNTIME = "RuntimeError AcceleratorError OutOfMemoryError"

_ERRORS: tuple[_Pattern, ...] = (
    # torch: CUDACachingAllocator; the dedicated type since 1.13, a RuntimeError before.
    _pattern("cuda", "OutOfMemoryError", r""),
    _pattern("cuda", _RUNTIME, r"CUDA out of memory\b"),
    _pattern("cuda", _RUNTIME, r"CUDA (driver )?error: (out of memory|CUDA_ERROR_OUT_OF_MEMORY)"),
    _pattern("cuda", _RUNTIME, r"CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    _pattern("cuda", _RUNTIME, r"cuDNN error: CUDNN_STATUS_(\w*_)?ALLOC(ATION)?_FAILED"),
    _pattern("cuda", _RUNTIME, r"Triton Error \[CUDA\]: out of memory"),
    # torch: c10/core/impl/alloc_cpu.cpp, on Linux and on Windows.
    _pattern(
        "cpu-allocator",
        "RuntimeError",
        r"(\[enforce fail at .*?\] .*?)?DefaultCPUAllocator: (can't allocate|not enough) memory",
    ),
    _pattern("cpu-allocator", "RuntimeError", r"unable to mmap \d+ bytes .*Cannot allocate memory"),
    _pattern("cpu-allocator", "RuntimeError", r"std::bad_alloc$"),
    _pattern("cpu-allocator", "MemoryError _ArrayMemoryError ArrowMemoryError", r""),
    _pattern("cpu-allocator", "OSError SafetensorError", r".*\bCannot allocate memory\b"),
    # Under a limit on the address space even a thread's stack or a library may not fit.
    _pattern("cpu-allocator", "RuntimeError", r"can't start new thread", only_capped=True),
    _pattern(
        "cpu-allocator",
        "ImportError OSError",
        r".*failed to map segment from shared object",
        only_capped=True,
    ),
)

_LOG_LINES: tuple[_Pattern, ...] = (
    _pattern("cuda", "", r"(torch\.(cuda\.)?)?OutOfMemoryError: (CUDA out of memory|Allocation)"),
    _pattern("cuda", "", r"(torch\.Accelerator|Runtime)Error: CUDA (error: )?out of memory"),
    # bitsandbytes prints this from C++ and ends the process.
    _pattern("cuda", "", r"Error out of memory at line \d+ in file \S+$"),
    _pattern("cpu-allocator", "", r"RuntimeError: \[enforce fail at .*DefaultCPUAllocator: "),
    _pattern("cpu-allocator", "", r"terminate called after throwing .*'std::bad_alloc'"),
    _pattern("cpu-allocator", "", r"(numpy\.\S+\._ArrayMemoryError|MemoryError)(: |$)"),
    _pattern("cpu-allocator", "", r"OpenBLAS error: Memory allocation still failed"),
    _pattern("cpu-allocator", "", r"OMP: Error #34: ", only_capped=True),
    _pattern("cpu-allocator", "", r"libgomp: Thread creation failed", only_capped=True),
)

_ASKED = (
    re.compile(rf"Tried to allocate {_SIZE}"),
    re.compile(r"you tried to allocate (\d+) (bytes)"),
    re.compile(r"unable to mmap (\d+) (bytes)"),
    re.compile(rf"Unable to allocate {_SIZE}"),
)
_TOTAL = (
    # torch 2.1 writes "capacty".
    re.compile(rf"total capaci?ty of {_SIZE}"),
    re.compile(rf"{_SIZE} total capacity"),
)
_FREE = (re.compile(rf"of which {_SIZE} is free"), re.compile(rf"{_SIZE} free"))
_ALLOWED = (re.compile(rf"{_SIZE} allowed"),)
_HELD = (
    re.compile(rf"this process has {_SIZE} memory in use"),
    re.compile(rf"{_SIZE} reserved in total by PyTorch"),
    re.compile(rf"Of the allocated memory {_SIZE} is allocated"),
    re.compile(rf"{_SIZE} already allocated"),
)
_CHILD_KILLED = re.compile(
    r"DataLoader worker \(pid.*\) (is killed by signal: Killed|exited unexpectedly)"
)


def read_ending(evidence: Evidence) -> OomVerdict | None:
    """What the trial ran out of, or None when it ended of something else."""
    if evidence.returncode == 0:
        return None
    if evidence.worker_error_type is not None:
        message = (evidence.worker_error_message or "").strip()
        kind = _error_kind(evidence, message)
        if kind is not None:
            return _verdict(kind, message, evidence.host_limit_gib)
        if _CHILD_KILLED.match(message) and _kernel_killed(evidence):
            return _killed("one of the trial's data loading processes")
        return None
    if _ending_signal(evidence) == signal.SIGKILL:
        # Whoever is killed leaves no last word: older lines in the log explain nothing.
        return _killed("the trial") if _kernel_killed(evidence) else None
    return _from_log(evidence)


def _error_kind(evidence: Evidence, message: str) -> OomKind | None:
    name = (evidence.worker_error_type or "").rpartition(".")[2]
    for pattern in _ERRORS:
        if pattern.only_capped and evidence.host_limit_gib is None:
            continue
        if name in pattern.types and pattern.message.match(message):
            return pattern.kind
    return None


def _from_log(evidence: Evidence) -> OomVerdict | None:
    for line in reversed(evidence.log_tail.rstrip().splitlines()[-LOG_LINES:]):
        for pattern in _LOG_LINES:
            if pattern.only_capped and evidence.host_limit_gib is None:
                continue
            if pattern.message.match(line):
                return _verdict(pattern.kind, line, evidence.host_limit_gib)
    return None


def _ending_signal(evidence: Evidence) -> int | None:
    if evidence.signal is not None:
        return evidence.signal
    code = evidence.returncode
    if code is None:
        return None
    if code < 0:
        return -code
    return code - 128 if 128 < code < 160 else None


def _kernel_killed(evidence: Evidence) -> bool:
    before, after = evidence.oom_kills_before, evidence.oom_kills_after
    return before is not None and after is not None and after > before


def _killed(whom: str) -> OomVerdict:
    return OomVerdict(
        kind="host-killed",
        asked_bytes=None,
        capacity_bytes=None,
        free_bytes=None,
        held_bytes=None,
        message=f"The machine's main memory ran out and the kernel killed {whom}.",
    )


def _verdict(kind: OomKind, message: str, host_limit_gib: float | None) -> OomVerdict:
    asked, total, free = _size(_ASKED, message), _size(_TOTAL, message), _size(_FREE, message)
    allowed, held = _size(_ALLOWED, message), _size(_HELD, message)
    if kind == "cuda":
        # The allocator names its share only when one was set, and checks it before the device.
        if allowed is not None and (free is None or asked is None or free > asked):
            kind = "limit"
    elif host_limit_gib is not None:
        kind, allowed = "limit", int(host_limit_gib * (1 << 30))
    capacity = allowed if kind == "limit" else total
    sentence = _sentence(kind, asked, capacity, free, held)
    return OomVerdict(kind, asked, capacity, free, held, sentence)


def _sentence(
    kind: OomKind, asked: int | None, capacity: int | None, free: int | None, held: int | None
) -> str:
    where = {
        "cuda": "The GPU's memory is full",
        "cpu-allocator": "The machine's main memory is full",
        "host-killed": "The machine's main memory ran out",
        "limit": "The trial reached its memory limit",
    }[kind]
    if capacity is not None:
        size = human_bytes(capacity)
        where += f" of {size}" if kind == "limit" else f" ({size})"
    parts = [where]
    if asked is not None:
        parts.append(f"it asked for {human_bytes(asked)} more")
    if free is not None and kind == "cuda":
        parts.append(f"{human_bytes(free)} were free")
    if held is not None:
        parts.append(f"it held {human_bytes(held)}")
    return parts[0] + (": " + ", ".join(parts[1:]) if parts[1:] else "") + "."


def human_bytes(count: int) -> str:
    """A size in the largest binary unit that keeps it at 1 or above: "1.95 GiB", "512 MiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count >= _UNITS[unit]:
            number = f"{count / _UNITS[unit]:.2f}".rstrip("0").rstrip(".")
            return f"{number} {unit}"
    return f"{count} bytes"


def _size(patterns: tuple[re.Pattern[str], ...], message: str) -> int | None:
    for pattern in patterns:
        if match := pattern.search(message):
            try:
                return int(float(match[1]) * _UNITS[match[2]])
            except ValueError:
                continue
    return None
