"""Messages of real out-of-memory endings, as users of many versions reported them, and what each of them says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.endings.messages import Sizes, read_sizes
from core.memory.oom import Evidence, OomVerdict, read_ending

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

MAX_SPLIT = (
    " If reserved but unallocated memory is large try setting max_split_size_mb to avoid "
    "fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"
)
EXPANDABLE = (
    " If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF="
    "expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  "
    "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
RENAMED = EXPANDABLE.replace("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


@dataclass(frozen=True)
class Case:
    """One message and what is to be read from it; sizes in bytes, None where it does not say."""

    version: str
    message: str
    type: str = "torch.OutOfMemoryError"
    kind: str = "cuda"
    asked: float | None = None
    capacity: float | None = None
    free: float | None = None
    held: float | None = None
    others: float | None = None
    fragmented: bool | None = None
    whose: str | None = None


ALLOCATOR = (
    Case(
        "torch 1.10, the older type and no hint",
        "CUDA out of memory. Tried to allocate 5.59 GiB (GPU 0; 11.17 GiB total capacity; 0 bytes "
        "already allocated; 10.91 GiB free; 5.59 GiB allowed; 0 bytes reserved in total by PyTorch)",
        type="RuntimeError",
        kind="limit",
        asked=5.59 * GIB,
        capacity=5.59 * GIB,
        free=10.91 * GIB,
        held=0,
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 1.13",
        "CUDA out of memory. Tried to allocate 382.00 MiB (GPU 0; 15.78 GiB total capacity; 14.02 "
        "GiB already allocated; 339.50 MiB free; 14.05 GiB reserved in total by PyTorch) If "
        "reserved memory is >> allocated memory try setting max_split_size_mb to avoid "
        "fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
        type="torch.cuda.OutOfMemoryError",
        asked=382 * MIB,
        capacity=15.78 * GIB,
        free=339.5 * MIB,
        held=14.05 * GIB,
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 1.13, the device belongs to somebody else",
        "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 31.75 GiB total capacity; 612.33 "
        "MiB already allocated; 14.75 MiB free; 622.00 MiB reserved in total by PyTorch)",
        type="RuntimeError",
        asked=20 * MIB,
        capacity=31.75 * GIB,
        free=14.75 * MIB,
        held=622 * MIB,
        others=int(31.75 * GIB) - int(14.75 * MIB) - 622 * MIB,
        fragmented=False,
        whose="others",
    ),
    Case(
        "torch 2.0, nothing free on Windows",
        "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 8.00 GiB total capacity; 7.06 GiB "
        "already allocated; 0 bytes free; 7.29 GiB reserved in total by PyTorch) If reserved "
        "memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.",
        type="torch.cuda.OutOfMemoryError",
        asked=20 * MIB,
        capacity=8 * GIB,
        free=0,
        held=7.29 * GIB,
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 1.10, most of what is reserved lies in pieces",
        "CUDA out of memory. Tried to allocate 11.25 GiB (GPU 0; 31.75 GiB total capacity; 15.35 "
        "GiB already allocated; 5.26 GiB free; 25.10 GiB reserved in total by PyTorch)",
        type="RuntimeError",
        asked=11.25 * GIB,
        capacity=31.75 * GIB,
        free=5.26 * GIB,
        held=25.10 * GIB,
        fragmented=True,
    ),
    Case(
        "torch 2.1, misspelt",
        "CUDA out of memory. Tried to allocate 570.00 MiB. GPU 0 has a total capacty of 79.25 GiB "
        "of which 103.50 MiB is free. Including non-PyTorch memory, this process has 79.14 GiB "
        "memory in use. Of the allocated memory 76.38 GiB is allocated by PyTorch, and 2.24 GiB is "
        "reserved by PyTorch but unallocated." + MAX_SPLIT,
        type="torch.cuda.OutOfMemoryError",
        asked=570 * MIB,
        capacity=79.25 * GIB,
        free=103.5 * MIB,
        held=79.14 * GIB,
        others=0,
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 2.1 on WSL, where the driver does not tell what processes hold",
        "CUDA out of memory. Tried to allocate 5.91 GiB. GPU 0 has a total capacty of 23.99 GiB of "
        "which 3.39 GiB is free. Including non-PyTorch memory, this process has 17179869184.00 GiB "
        "memory in use. Of the allocated memory 13.67 GiB is allocated by PyTorch, and 5.27 GiB is "
        "reserved by PyTorch but unallocated." + MAX_SPLIT,
        type="torch.cuda.OutOfMemoryError",
        asked=5.91 * GIB,
        capacity=23.99 * GIB,
        free=3.39 * GIB,
        held=int(13.67 * GIB) + int(5.27 * GIB),
        fragmented=True,
    ),
    Case(
        "torch 2.1 in a container, whose own process is in the list by another number",
        "CUDA out of memory. Tried to allocate 3.50 GiB. GPU 0 has a total capacty of 23.64 GiB of "
        "which 1.42 GiB is free. Process 2722 has 22.22 GiB memory in use. Of the allocated memory "
        "20.13 GiB is allocated by PyTorch, and 1.75 GiB is reserved by PyTorch but unallocated."
        + MAX_SPLIT,
        type="torch.cuda.OutOfMemoryError",
        asked=3.5 * GIB,
        capacity=23.64 * GIB,
        free=1.42 * GIB,
        held=22.22 * GIB,
        others=0,
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 2.1, its own figure is zero",
        "CUDA out of memory. Tried to allocate 16.13 GiB. GPU 0 has a total capacty of 23.49 GiB "
        "of which 7.47 GiB is free. Including non-PyTorch memory, this process has 0 bytes memory "
        "in use. Of the allocated memory 15.59 GiB is allocated by PyTorch, and 98.64 MiB is "
        "reserved by PyTorch but unallocated." + MAX_SPLIT,
        type="torch.cuda.OutOfMemoryError",
        asked=16.13 * GIB,
        capacity=23.49 * GIB,
        free=7.47 * GIB,
        held=int(15.59 * GIB) + int(98.64 * MIB),
        fragmented=False,
    ),
    Case(
        "torch 2.2 on Windows, no word of processes",
        "CUDA out of memory. Tried to allocate 90.00 MiB. GPU 0 has a total capacity of 8.00 GiB "
        "of which 0 bytes is free. Of the allocated memory 7.13 GiB is allocated by PyTorch, and "
        "127.09 MiB is reserved by PyTorch but unallocated." + EXPANDABLE,
        type="torch.cuda.OutOfMemoryError",
        asked=90 * MIB,
        capacity=8 * GIB,
        free=0,
        held=int(7.13 * GIB) + int(127.09 * MIB),
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 2.4, many pieces",
        "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 1 has a total capacity of 47.41 GiB "
        "of which 270.69 MiB is free. Including non-PyTorch memory, this process has 47.10 GiB "
        "memory in use. Of the allocated memory 33.18 GiB is allocated by PyTorch, and 13.19 GiB "
        "is reserved by PyTorch but unallocated." + EXPANDABLE,
        asked=1.5 * GIB,
        capacity=47.41 * GIB,
        free=270.69 * MIB,
        held=47.10 * GIB,
        others=0,
        fragmented=True,
        whose="ours",
    ),
    Case(
        "torch 2.5, a large neighbour",
        "CUDA out of memory. Tried to allocate 3.21 GiB. GPU 0 has a total capacity of 93.11 GiB "
        "of which 3.15 GiB is free. Process 569641 has 73.59 GiB memory in use. Including "
        "non-PyTorch memory, this process has 16.36 GiB memory in use. Of the allocated memory "
        "15.64 GiB is allocated by PyTorch, and 50.30 MiB is reserved by PyTorch but unallocated."
        + EXPANDABLE,
        asked=3.21 * GIB,
        capacity=93.11 * GIB,
        free=3.15 * GIB,
        held=16.36 * GIB,
        others=73.59 * GIB,
        fragmented=False,
        whose="others",
    ),
    Case(
        "torch 2.5, several neighbours",
        "CUDA out of memory. Tried to allocate 56.00 MiB. GPU 0 has a total capacity of 7.79 GiB "
        "of which 20.75 MiB is free. Process 3441597 has 2.54 GiB memory in use. Process 2618016 "
        "has 274.00 MiB memory in use. Process 2618019 has 274.00 MiB memory in use. Process "
        "2618020 has 274.00 MiB memory in use. Including non-PyTorch memory, this process has 4.41 "
        "GiB memory in use. Of the allocated memory 3.90 GiB is allocated by PyTorch, and 220.70 "
        "MiB is reserved by PyTorch but unallocated." + EXPANDABLE,
        asked=56 * MIB,
        capacity=7.79 * GIB,
        free=20.75 * MIB,
        held=4.41 * GIB,
        others=int(2.54 * GIB) + 3 * 274 * MIB,
        fragmented=True,
        whose="others",
    ),
    Case(
        "torch 2.5 with CUDA graphs, in a container beside a small process",
        "CUDA out of memory. Tried to allocate 270.00 MiB. GPU 0 has a total capacity of 21.67 GiB "
        "of which 255.75 MiB is free. Process 2109 has 344.00 MiB memory in use. Process 1448259 "
        "has 21.07 GiB memory in use. Of the allocated memory 20.08 GiB is allocated by PyTorch, "
        "with 328.00 MiB allocated in private pools (e.g., CUDA Graphs), and 56.49 MiB is reserved "
        "by PyTorch but unallocated." + EXPANDABLE,
        asked=270 * MIB,
        capacity=21.67 * GIB,
        free=255.75 * MIB,
        held=21.07 * GIB,
        others=344 * MIB,
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 2.6, the last clause left out",
        "CUDA out of memory. Tried to allocate 21.10 GiB. GPU 0 has a total capacity of 22.30 GiB "
        "of which 50.00 MiB is free. Process 189021 has 22.28 GiB memory in use. Of the allocated "
        "memory 20.94 GiB is allocated by PyTorch, with 22.00 MiB allocated in private pools "
        "(e.g., CUDA Graphs).",
        asked=21.10 * GIB,
        capacity=22.30 * GIB,
        free=50 * MIB,
        held=22.28 * GIB,
        others=0,
        whose="ours",
    ),
    Case(
        "torch 2.6 within its share of the device",
        "CUDA out of memory. Tried to allocate 250.00 MiB. GPU 0 has a total capacity of 79.19 GiB "
        "of which 2.07 GiB is free. Including non-PyTorch memory, this process has 77.11 GiB "
        "memory in use. 75.23 GiB allowed; Of the allocated memory 74.23 GiB is allocated by "
        "PyTorch, and 943.54 MiB is reserved by PyTorch but unallocated." + EXPANDABLE,
        kind="limit",
        asked=250 * MIB,
        capacity=75.23 * GIB,
        free=2.07 * GIB,
        held=int(74.23 * GIB) + int(943.54 * MIB),
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 2.8, a share was set, and yet others had taken all of the device",
        "CUDA out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total capacity of 191.69 GiB "
        "of which 0 bytes is free. 50.00 GiB allowed; Of the allocated memory 9.58 GiB is "
        "allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but unallocated." + EXPANDABLE,
        asked=64 * MIB,
        capacity=191.69 * GIB,
        free=0,
        held=int(9.58 * GIB) + 100 * MIB,
        others=int(191.69 * GIB) - int(9.58 * GIB) - 100 * MIB,
        fragmented=False,
        whose="others",
    ),
    Case(
        "torch 2.10, the variable's newer name",
        "CUDA out of memory. Tried to allocate 346.00 MiB. GPU 0 has a total capacity of 14.56 GiB "
        "of which 343.81 MiB is free. Including non-PyTorch memory, this process has 14.22 GiB "
        "memory in use. Of the allocated memory 12.84 GiB is allocated by PyTorch, and 1.26 GiB is "
        "reserved by PyTorch but unallocated." + RENAMED,
        asked=346 * MIB,
        capacity=14.56 * GIB,
        free=343.81 * MIB,
        held=14.22 * GIB,
        others=0,
        fragmented=True,
        whose="ours",
    ),
    Case(
        "torch 2.12 on ROCm",
        "HIP out of memory. Tried to allocate 76.00 MiB. GPU 0 has a total capacity of 255.69 GiB "
        "of which 252.82 GiB is free. 1.20 GiB allowed; Of the allocated memory 1.14 GiB is "
        "allocated by PyTorch, with 17.00 MiB allocated in private pools (e.g., HIP Graphs), and "
        "18.63 MiB is reserved by PyTorch but unallocated." + EXPANDABLE,
        kind="limit",
        asked=76 * MIB,
        capacity=1.20 * GIB,
        free=252.82 * GIB,
        held=int(1.14 * GIB) + int(18.63 * MIB),
        fragmented=False,
        whose="ours",
    ),
    Case(
        "torch 2.7, cudaMallocAsync",
        "Allocation on device 0 would exceed allowed memory. (out of memory)\n"
        "Currently allocated     : 9.43 GiB\nRequested               : 640.00 MiB\n"
        "Device limit            : 11.59 GiB\nFree (according to CUDA): 7.12 MiB\n"
        "PyTorch limit (set by user-supplied memory fraction)\n"
        "                        : 17179869184.00 GiB",
        asked=640 * MIB,
        capacity=11.59 * GIB,
        free=7.12 * MIB,
        held=9.43 * GIB,
        others=int(11.59 * GIB) - int(7.12 * MIB) - int(9.43 * GIB),
        whose="others",
    ),
    Case(
        "torch 2.7, cudaMallocAsync, the first line alone",
        "Allocation on device 0 would exceed allowed memory. (out of memory)",
    ),
    Case(
        "torch 2.3, a size beyond all sense",
        "CUDA out of memory. Tried to allocate more than 1EB memory.",
    ),
    Case(
        "torch 2.9, cut in the middle of a clause",
        "CUDA out of memory. Tried to allocate 8.00 GiB. GPU 4 has a total capacity of 178.36 GiB "
        "of which 7.20 GiB is free. Including non-PyTorch memory, this process has 171.",
        asked=8 * GIB,
        capacity=178.36 * GIB,
        free=7.20 * GIB,
    ),
    Case("torch 2.9, cut at once", "CUDA out of mem"),
    Case(
        "torch 2.1, wrapped by a terminal",
        "CUDA out of memory. Tried to allocate 2.22 GiB. GPU 0 has a total capacty of 79.15 GiB of "
        "which 228.38 MiB\nis free. Including non-PyTorch memory, this process\nhas 78.93    GiB "
        "memory in use. Of the allocated memory 76.28 GiB\nis allocated by PyTorch, and 2.14 GiB "
        "is reserved\nby PyTorch but unallocated.",
        asked=2.22 * GIB,
        capacity=79.15 * GIB,
        free=228.38 * MIB,
        held=78.93 * GIB,
        others=0,
        fragmented=False,
        whose="ours",
    ),
)


def verdict_of(error_type: str, message: str) -> OomVerdict | None:
    return read_ending(
        Evidence(returncode=1, worker_error_type=error_type, worker_error_message=message)
    )


@pytest.mark.parametrize("case", ALLOCATOR, ids=lambda case: case.version)
def test_the_allocators_message_is_read_in_every_form(case: Case) -> None:
    verdict = verdict_of(case.type, case.message)
    assert verdict is not None
    assert verdict.kind == case.kind
    told = (
        verdict.asked_bytes,
        verdict.capacity_bytes,
        verdict.free_bytes,
        verdict.held_bytes,
        verdict.others_bytes,
    )
    expected = (case.asked, case.capacity, case.free, case.held, case.others)
    assert told == tuple(None if size is None else int(size) for size in expected)
    assert verdict.fragmented is case.fragmented
    assert verdict.whose == case.whose
    assert verdict.message.endswith(".") and "None" not in verdict.message


def test_two_messages_written_into_each_other_give_no_figures_of_the_other() -> None:
    text = (
        "CUDA out of memory. Tried to alloCUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 "
        "has a total capacity of 79.25 GiB of which 1.00 GiB is free."
    )
    assert read_sizes(text) == Sizes()


def test_one_process_that_may_be_anybodys_is_counted_for_nobody() -> None:
    sizes = read_sizes(
        "CUDA out of memory. Tried to allocate 172.00 MiB. GPU 1 has a total capacty of 23.69 GiB "
        "of which 49.94 MiB is free. Process 1 has 23.64 GiB memory in use."
    )
    assert (sizes.held, sizes.others) == (None, None)


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 40), st.integers(0, 1 << 40))
def test_the_two_meanings_of_reserved_agree(asked: int, allocated: int, rest: int) -> None:
    old = read_sizes(
        f"CUDA out of memory. Tried to allocate {asked} bytes (GPU 0; {allocated} bytes already "
        f"allocated; {allocated + rest} bytes reserved in total by PyTorch)"
    )
    new = read_sizes(
        f"CUDA out of memory. Tried to allocate {asked} bytes. Of the allocated memory {allocated} "
        f"bytes is allocated by PyTorch, and {rest} bytes is reserved by PyTorch but unallocated."
    )
    assert old == new
    assert old.reserved == allocated + rest and old.unallocated == rest


@given(st.integers(0, 700), st.sampled_from(ALLOCATOR))
def test_a_message_cut_anywhere_says_nothing_that_the_whole_does_not(
    length: int, case: Case
) -> None:
    cut, whole = read_sizes(case.message[:length]), read_sizes(case.message)
    if cut.total is not None:
        assert cut.total == whole.total
    if cut.asked is not None:
        assert cut.asked == whole.asked
