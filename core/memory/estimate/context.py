"""What a process takes of a device besides its tensors."""

from core.memory.forecast import AMPERE, MIB, Target

HOPPER = (9, 0)


def cublas_workspace(target: Target) -> int:
    """What each of cuBLAS' two handles takes, that of the forward pass's thread and that of the backward pass's:
    CUDABlas.cpp's default, :4096:2:16:8 before Hopper and 32 MiB from then on (torch 2.13)."""
    if target.kind == "cpu":
        return 0
    return 32 * MIB if target.assumed_capability >= HOPPER else 2 * 4096 * 1024 + 8 * 16 * 1024


def context_of(target: Target, *, quantized: bool) -> int:
    """CUDA's context with the kernels that are loaded on demand, or, on the CPU, the process; typical values where
    nothing was measured.

    A context grows with the number of multiprocessors and with the libraries that are loaded: on PyTorch 2 with CUDA 12
    and lazy loading some 0.3 GiB on a T4, 0.5 GiB on an A100 and 0.6 GiB on an H100.
    """
    if target.context is not None:
        return target.context
    if target.kind == "cpu":
        return PROCESS + (BITSANDBYTES if quantized else 0)
    if target.assumed_capability >= HOPPER:
        return 620 * MIB
    return (510 if target.assumed_capability >= AMPERE else 330) * MIB


PROCESS = 430 * MIB
"""A worker's private writable memory (VmData) after its first step with the demo model, its tensors left out: measured
with two threads; each further one adds some 16 MiB."""
GROWN = 54 * MIB
"""How much of it comes with the model and the first step, after a worker tells its context (`context_bytes`)."""
BITSANDBYTES = 45 * MIB
"""What bitsandbytes adds to it."""
