"""Which exceptions say that memory or the disk is full."""

import gc
import mmap

import pytest
import torch

from core.memory.endings.messages import recognise
from core.train.limits import (
    is_disk_full,
    is_out_of_memory,
    peak_resident_bytes,
    resident_bytes,
)


@pytest.mark.parametrize(
    ("error", "memory", "disk"),
    [
        (MemoryError(), True, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("std::bad_alloc"), True, False),
        (RuntimeError("can't start new thread"), True, False),
        (OSError(12, "Cannot allocate memory"), True, False),
        (OSError(28, "No space left on device"), False, True),
        (OSError(122, "Disk quota exceeded"), False, True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), False, True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 620160 vs 620048"), False, True),
        (RuntimeError("size mismatch for lm_head.weight"), False, False),
        (ValueError("out of memory"), False, False),
        (OSError(2, "No such file"), False, False),
    ],
)  # fmt: skip
def test_endings_are_told_apart(error: BaseException, memory: bool, disk: bool) -> None:
    assert (is_out_of_memory(error), is_disk_full(error)) == (memory, disk)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY",
        "CUDA error: cudaErrorMemoryAllocation",
        "Triton Error [CUDA]: out of memory",
        "[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
    ],
)
def test_the_worker_knows_the_words_that_its_ending_is_read_by(message: str) -> None:
    assert recognise("RuntimeError", message, capped=False)
    assert is_out_of_memory(RuntimeError(message))


def test_weights_that_cannot_be_mapped_into_memory_are_no_damaged_file() -> None:
    class SafetensorError(Exception):
        pass

    full = SafetensorError("Cannot allocate memory (os error 12)")
    assert recognise("SafetensorError", str(full), capped=False)
    assert is_out_of_memory(full)
    assert not is_out_of_memory(SafetensorError("Error while deserializing header"))


def test_what_a_process_holds_is_read() -> None:
    # What earlier tests left must not be freed between the two readings.
    gc.collect()
    held = resident_bytes()
    # Fresh pages: an allocator may hand out what it holds already.
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"x" * (64 << 20))
        assert resident_bytes() - held > 32 << 20
    assert peak_resident_bytes() >= held + (32 << 20)
