"""Which exceptions say that memory or the disk is full."""

import gc
import mmap

import pytest
import torch

from core.train.limits import is_disk_full, is_out_of_memory, peak_resident_bytes, resident_bytes


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


def test_what_a_process_holds_is_read() -> None:
    # What earlier tests left must not be freed between the two readings.
    gc.collect()
    held = resident_bytes()
    # Fresh pages: an allocator may hand out what it holds already.
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"x" * (64 << 20))
        assert resident_bytes() - held > 32 << 20
    assert peak_resident_bytes() >= held + (32 << 20)
