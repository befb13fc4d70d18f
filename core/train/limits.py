"""The memory cap of a trial, and what it has used."""

import errno
import resource
from pathlib import Path
from typing import Literal

GIB = 2**30
_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "defaultcpuallocator: not enough memory",
    "out of memory",
    "cuda_error_out_of_memory",
    "cudaerrormemoryallocation",
    "std::bad_alloc",
    "can't start new thread",
    "cublas_status_alloc_failed",
    # A handle that cannot be made for want of memory is reported as not initialised.
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
    "cudnn_status_alloc_failed",
    "allocation_failed",
)
"""What a RuntimeError of PyTorch says, in small letters, when memory has run out."""
Device = Literal["cuda", "cpu"]


def cap_memory(limit_gib: float | None, device: Device) -> None:
    """Let this process take no more than `limit_gib`: of its GPU, or of the host's memory when it trains on the CPU.

    On the CPU the cap is RLIMIT_DATA, which counts private writable memory: heap, allocations and thread stacks.
    RLIMIT_AS would count what costs no memory as well (libraries, memory-mapped weights, reserved address space), and
    RLIMIT_RSS is not enforced by Linux. An allocation beyond the cap fails inside of the process, so that the failure
    can be reported. Call it before the model is loaded.
    """
    if limit_gib is None:
        return
    import torch

    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gib * GIB / total), 0)
        return
    # The worker threads of the CPU kernels start with the first large operation. Started under the cap, one that
    # cannot get its stack would end the process without an exception.
    torch.ones(256, 256).mm(torch.ones(256, 256))
    torch.ones(1 << 16).add_(1)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    cap = int(limit_gib * GIB)
    if hard != resource.RLIM_INFINITY:
        cap = min(cap, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, hard))


def lift_cap() -> None:
    """Take the cap on host memory away, so that an ending can be reported when memory has run out."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def resident_bytes() -> int:
    """The process's resident set in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def held_bytes() -> int | None:
    """The process's private writable memory in bytes, which is what a cap on host memory counts; None where the
    system does not tell (it then has no such cap either)."""
    return _status("VmData")


def peak_resident_bytes() -> int:
    """The largest resident set so far in bytes."""
    # ru_maxrss is inherited from the parent over fork and exec; VmHWM is this program's own.
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(field: str) -> int | None:
    """A size from the kernel's account of this process, in bytes; None where it is not there."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: CUDA's, PyTorch's CPU allocator's or Python's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    if type(error).__name__ == "SafetensorError":
        return "cannot allocate memory" in text or "(os error 12)" in text
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that the disk, or the user's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    if "inline_container.cc" in text:
        # PyTorch's archive writer notices that less was written than it gave, and loses the reason.
        return "unexpected pos" in text or "file write failed" in text
    return any(
        sign in text for sign in ("No space left on device", "Disk quota exceeded", "os error 28")
    )
