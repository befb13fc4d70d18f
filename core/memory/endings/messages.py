"""What allocators say when they have run out of memory: which words count, and which sizes they give.

A message counts where an error's own message begins with it, never because the words occur somewhere: training data
talks of memory as well. Wordings are those of torch 1.13 to 2.13 (c10/cuda/CUDACachingAllocator.cpp and
CUDAMallocAsyncAllocator.cpp, c10/core/impl/alloc_cpu.cpp), cuBLAS, cuDNN 8 and 9, NCCL, Triton, bitsandbytes,
flash-attn, NumPy, Arrow, safetensors, the C++ runtime and Rust's. Errors of the operating system are told by their
number, because their words are in the user's language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

OomKind = Literal["cuda", "cpu-allocator", "host-killed", "limit"]
"""`cuda`: the GPU's memory was full. `cpu-allocator`: the machine refused main memory.
`host-killed`: the kernel killed the trial. `limit`: the trial's own `memory.limit_gib` was reached,
on the GPU or the CPU, while the device may have had more."""

UNITS = {"bytes": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

_ABSURD = 1 << 50
"""No memory is this large: where NVML cannot tell (WSL), torch prints minus one byte as 17179869184.00 GiB."""
_CONTEXT_MOST = 2 << 30
"""What a process holds outside of torch's allocator at most (CUDA's context and libraries): it tells which process
of torch's list is the trial itself where process ids differ, as they do in a container."""


@dataclass(frozen=True, slots=True)
class Wording:
    """One way of saying that memory has run out.

    `message` must match where the error's message begins; `types` are the error's possible names without their
    modules, none meaning any. `source` asked for the memory, empty for torch itself and where nobody says.
    `only_capped` marks what means memory only when the trial's main memory was limited, `probable` what mostly does.
    """

    kind: OomKind
    types: frozenset[str]
    message: re.Pattern[str]
    source: str = ""
    only_capped: bool = False
    probable: bool = False


def _wording(
    kind: OomKind,
    types: str,
    message: str,
    source: str = "",
    only_capped: bool = False,
    probable: bool = False,
) -> Wording:
    pattern = re.compile(message, re.DOTALL)
    return Wording(kind, frozenset(types.split()), pattern, source, only_capped, probable)


_RUNTIME = "RuntimeError AcceleratorError CUDAError Error"
_NCCL = "DistBackendError RuntimeError Error NCCLError"
_NO_CUDA_MEMORY = r"out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"

ERRORS: tuple[Wording, ...] = (
    # The dedicated type since torch 1.13, a RuntimeError before.
    _wording("cuda", "OutOfMemoryError", r""),
    _wording("cuda", _RUNTIME, r"(CUDA|HIP) out of memory\b"),
    # What a log that is cut at its beginning may leave of the type's name.
    _wording("cuda", "MemoryError", r"(CUDA|HIP) out of memory\b"),
    _wording("cuda", _RUNTIME, rf"(CUDA|HIP) (driver )?error: ({_NO_CUDA_MEMORY})"),
    _wording("cuda", _RUNTIME, r"CUDA error: CUBLAS_STATUS_ALLOC_FAILED", "cuBLAS"),
    # A handle that cannot be made for want of memory is reported as not initialised.
    _wording(
        "cuda",
        _RUNTIME,
        r"CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas(Lt)?Create",
        "cuBLAS",
        probable=True,
    ),
    _wording(
        "cpu-allocator", _RUNTIME, r"cuDNN error: CUDNN_STATUS_\w*HOST_ALLOCATION_FAILED", "cuDNN"
    ),
    _wording("cuda", _RUNTIME, r"cuDNN error: CUDNN_STATUS_(\w*_)?ALLOC(ATION)?_FAILED", "cuDNN"),
    _wording(
        "cuda", _RUNTIME, r"cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", "cuDNN", probable=True
    ),
    _wording("cuda", _RUNTIME, rf"Triton Error \[(CUDA|HIP)\]: ({_NO_CUDA_MEMORY})", "Triton"),
    _wording("cpu-allocator", _NCCL, r"NCCL error in: .*Failed to CUDA host (c?alloc)", "NCCL"),
    _wording(
        "cuda",
        _NCCL,
        r"NCCL error in: .*(Cuda failure (2 )?'out of memory'|Failed to CUDA (c|m)alloc)",
        "NCCL",
    ),
    _wording(
        "cpu-allocator",
        "RuntimeError",
        r"(\[enforce fail at .*?\] .*?)?DefaultCPUAllocator: (can't allocate|not enough) memory",
    ),
    # The number stands where the words may be in any language; 12 is ENOMEM.
    _wording(
        "cpu-allocator",
        "RuntimeError",
        r"(unable to mmap \d+ bytes|unable to allocate shared memory\(shm\)) [^\n]*"
        r"(\(12\)|Cannot allocate memory)",
    ),
    _wording("cpu-allocator", "RuntimeError", r"std::bad_alloc$"),
    _wording("cpu-allocator", "MemoryError _ArrayMemoryError ArrowMemoryError", r""),
    _wording("cpu-allocator", "OSError", r"\[Errno 12\]|[^\n]*\bCannot allocate memory\b"),
    _wording(
        "cpu-allocator", "SafetensorError", r"[^\n]*(\bCannot allocate memory\b|\(os error 12\))"
    ),
    # Under a limit on memory even a thread's stack or a library may not fit.
    _wording("cpu-allocator", "RuntimeError", r"can't start new thread", only_capped=True),
    _wording(
        "cpu-allocator",
        "ImportError OSError",
        r"[^\n]*failed to map segment from shared object",
        only_capped=True,
    ),
)

LINES: tuple[Wording, ...] = (
    # bitsandbytes prints these from C++ and ends the process; paged states are made in pythonInterface, of memory that
    # the driver takes from the machine.
    _wording(
        "cpu-allocator",
        "",
        r"Error out of memory at line \d+ in file \S*pythonInterface\.c(pp)?$",
        "bitsandbytes' paged optimizer",
    ),
    _wording("cuda", "", r"Error out of memory at line \d+ in file \S+$", "bitsandbytes"),
    # flash-attn's check of CUDA calls, which ends the process.
    _wording("cuda", "", r"CUDA error \(\S+:\d+\): out of memory$", "flash-attn"),
    _wording("cpu-allocator", "", r"terminate called after throwing .*'std::bad_alloc'"),
    _wording("cpu-allocator", "", r"what\(\): +std::bad_alloc$"),
    # Rust, in safetensors and tokenizers.
    _wording("cpu-allocator", "", r"memory allocation of \d+ bytes failed$"),
    _wording("cpu-allocator", "", r"OpenBLAS error: Memory allocation still failed", "OpenBLAS"),
    _wording("cpu-allocator", "", r"OMP: Error #34: ", "OpenMP", only_capped=True),
    _wording("cpu-allocator", "", r"libgomp: Thread creation failed", "OpenMP", only_capped=True),
)

_DEVICE_ASSERT = re.compile(r"device-side assert|Assertion `.*` failed")
"""A kernel that met a bad index leaves a context in which no library can start either."""


def recognise(error_type: str, message: str, *, capped: bool, context: str = "") -> Wording | None:
    """The wording that an error's message is, or None where it says something else.

    `error_type` may carry its module. `capped` is whether the trial's main memory was limited. `context` is what else
    was logged: it may show that an error which mostly means memory does not.
    """
    name = error_type.rpartition(".")[2]
    for wording in ERRORS:
        if wording.only_capped and not capped:
            continue
        if wording.probable and _DEVICE_ASSERT.search(context):
            continue
        if name in wording.types and wording.message.match(message):
            return wording
    return None


def recognise_line(line: str, *, capped: bool) -> Wording | None:
    """The wording of a line that a library printed without an exception, or None."""
    for wording in LINES:
        if (capped or not wording.only_capped) and wording.message.match(line):
            return wording
    return None


@dataclass(frozen=True, slots=True)
class Sizes:
    """The figures of a message in bytes, each None where it is not there."""

    asked: int | None = None
    total: int | None = None
    """The device's memory."""
    free: int | None = None
    """What the device had left."""
    allowed: int | None = None
    """The process's share of the device, where one was set."""
    allocated: int | None = None
    """What torch's tensors held."""
    unallocated: int | None = None
    """What torch had reserved and could not use for the request."""
    process: int | None = None
    """All that the process held of the device, its context included."""
    neighbours: tuple[int, ...] = ()
    """What the other processes on the device held, one by one."""

    @property
    def reserved(self) -> int | None:
        """What torch's allocator had taken from the device."""
        if self.allocated is None:
            return None
        return self.allocated + (self.unallocated or 0)

    @property
    def held(self) -> int | None:
        """What the process held: all of it where it is told, else what torch had reserved."""
        return self.process if self.process is not None else self.reserved

    @property
    def others(self) -> int | None:
        """About what other processes held: what is told of them, or what is missing from the device's sum."""
        if self.held is None:
            return None
        known = sum(self.neighbours)
        if self.total is None or self.free is None:
            return known if self.neighbours else None
        # Processes that draw, and those of other containers, are in no list: only the sum shows them. Without the
        # process's own figure the sum includes its context.
        missing = self.total - self.free - self.held
        if missing - known > (1 << 30 if self.process is not None else _CONTEXT_MOST):
            return missing
        return known if self.neighbours or self.process is not None else None


_SIZE = r"(?<![\d.])([\d.]{1,24}) (bytes|[KMGT]iB)"
_ASKED = (
    re.compile(rf"Tried to allocate {_SIZE}"),
    re.compile(r"you tried to allocate (\d+) (bytes)"),
    re.compile(r"unable to mmap (\d+) (bytes)"),
    re.compile(rf"Unable to allocate {_SIZE}"),
    re.compile(r"Failed to CUDA (?:host )?[cm]?alloc(?: async)? (\d+) (bytes)"),
    re.compile(r"memory allocation of (\d+) (bytes) failed"),
    re.compile(r"(?:m|re)alloc of size (\d+)() failed"),
    re.compile(rf"Requested : {_SIZE}"),
)
_TOTAL = (
    # torch 2.1 writes "capacty".
    re.compile(rf"total capaci?ty of {_SIZE}"),
    re.compile(rf"{_SIZE} total capacity"),
    re.compile(rf"Device limit : {_SIZE}"),
)
_FREE = (
    re.compile(rf"of which {_SIZE} is free"),
    re.compile(rf"; {_SIZE} free"),
    re.compile(rf"Free \(according to CUDA\): {_SIZE}"),
)
_ALLOWED = (
    re.compile(rf"{_SIZE} allowed"),
    re.compile(rf"PyTorch limit \(set by user-supplied memory fraction\) : {_SIZE}"),
)
_ALLOCATED = (
    re.compile(rf"Of the allocated memory {_SIZE} is allocated"),
    re.compile(rf"{_SIZE} already allocated"),
    re.compile(rf"Currently allocated : {_SIZE}"),
)
_UNALLOCATED = (re.compile(rf"{_SIZE} is reserved by PyTorch but unallocated"),)
_RESERVED_TOTAL = (re.compile(rf"{_SIZE} reserved in total by PyTorch"),)
_PROCESS = (re.compile(rf"this process has {_SIZE} memory in use", re.IGNORECASE),)
_NEIGHBOUR = re.compile(rf"\bProcess \d+ has {_SIZE} memory in use")
_BEGINNING = re.compile(r"(CUDA|HIP) out of memory")


def read_sizes(message: str) -> Sizes:
    """The figures of a message, however much of it is there. Line breaks within it do not matter."""
    text = " ".join(message.split())
    begins = [match.start() for match in _BEGINNING.finditer(text)]
    if len(begins) > 1:
        # Two processes wrote into each other: what follows is another one's.
        text = text[: begins[1]]
    allocated, unallocated = _size(_ALLOCATED, text), _size(_UNALLOCATED, text)
    reserved = _size(_RESERVED_TOTAL, text)
    if unallocated is None and reserved is not None and allocated is not None:
        # The old form gives the sum where the new one gives the rest.
        unallocated = max(0, reserved - allocated)
    process = _size(_PROCESS, text) or None
    neighbours = [size for m in _NEIGHBOUR.finditer(text) if (size := _bytes(m[1], m[2]))]
    if process is None and neighbours and allocated is not None:
        process = _own(neighbours, allocated + (unallocated or 0))
        if process is not None:
            neighbours.remove(process)
        else:
            neighbours = []
    elif process is None:
        # One of them may be the trial itself.
        neighbours = []
    return Sizes(
        asked=_size(_ASKED, text),
        total=_size(_TOTAL, text),
        free=_size(_FREE, text),
        allowed=_size(_ALLOWED, text),
        allocated=allocated if allocated is not None else reserved,
        unallocated=unallocated,
        process=process,
        neighbours=tuple(neighbours),
    )


def _own(processes: list[int], reserved: int) -> int | None:
    """Which of these processes holds what the trial reserved and a context besides; None if none does."""
    rounding = reserved // 200
    fitting = [p for p in processes if -rounding <= p - reserved <= _CONTEXT_MOST]
    return min(fitting) if fitting else None


def _size(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        if match := pattern.search(text):
            size = _bytes(match[1], match[2])
            if size is not None:
                return size
    return None


def _bytes(number: str, unit: str) -> int | None:
    try:
        size = int(float(number) * UNITS[unit or "bytes"])
    except (ValueError, OverflowError):
        return None
    return size if size < _ABSURD else None
