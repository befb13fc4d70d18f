from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.forecast import Moment
from core.memory.oom import Evidence, human_bytes, read_ending

MIB, GIB = 1 << 20, 1 << 30

NEW_CUDA = (
    "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.57 GiB of "
    "which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. Including non-PyTorch "
    "memory, this process has 966.00 MiB memory in use. Of the allocated memory 734.07 MiB is "
    "allocated by PyTorch, and 33.93 MiB is reserved by PyTorch but unallocated."
)
CAPPED_CUDA = (
    "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 70.25 GiB is free. Including non-PyTorch memory, this process has 8.50 GiB memory in "
    "use. 8.00 GiB allowed; Of the allocated memory 7.80 GiB is allocated by PyTorch, and 21.50 "
    "MiB is reserved by PyTorch but unallocated."
)
OLD_CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 23.65 GiB total capacity; 21.98 GiB "
    "already allocated; 15.56 MiB free; 22.22 GiB reserved in total by PyTorch) If reserved "
    "memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation."
)
OLD_CAPPED_CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 23.65 GiB total capacity; 1.98 GiB "
    "already allocated; 21.00 GiB free; 2.00 GiB allowed; 1.99 GiB reserved in total by PyTorch)"
)
TYPO_CUDA = (
    "CUDA out of memory. Tried to allocate 172.00 MiB. GPU 1 has a total capacty of 23.69 GiB of "
    "which 49.94 MiB is free. Process 1 has 23.64 GiB memory in use."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 40000000000 bytes. Error code 12 (Cannot allocate memory)"
)
NUMPY = "Unable to allocate 74.5 GiB for an array with shape (10000000000,) and data type float64"


def error(kind: str, message: str, limit_gib: float | None = None) -> Evidence:
    return Evidence(
        returncode=1, worker_error_type=kind, worker_error_message=message, limit_gib=limit_gib
    )


@pytest.mark.parametrize(
    ("kind", "message", "asked", "capacity", "free", "held"),
    [
        ("torch.OutOfMemoryError", NEW_CUDA, 1.95 * GIB, 14.57 * GIB, 1.58 * GIB, 966 * MIB),
        ("RuntimeError", OLD_CUDA, 20 * MIB, 23.65 * GIB, 15.56 * MIB, 22.22 * GIB),
        ("torch.cuda.OutOfMemoryError", TYPO_CUDA, 172 * MIB, 23.69 * GIB, 49.94 * MIB, None),
    ],
)
def test_the_numbers_of_a_full_gpu_are_read(
    kind: str, message: str, asked: float, capacity: float, free: float, held: float | None
) -> None:
    verdict = read_ending(error(kind, message))
    assert verdict is not None and verdict.kind == "cuda"
    assert verdict.asked_bytes == int(asked)
    assert verdict.capacity_bytes == int(capacity)
    assert verdict.free_bytes == int(free)
    assert verdict.held_bytes == (None if held is None else int(held))


@pytest.mark.parametrize(("message", "gib"), [(CAPPED_CUDA, 8), (OLD_CAPPED_CUDA, 2)])
def test_a_share_of_the_gpu_that_is_used_up_is_the_limit_not_a_full_gpu(
    message: str, gib: int
) -> None:
    verdict = read_ending(error("torch.OutOfMemoryError", message, float(gib)))
    assert verdict is not None and verdict.kind == "limit"
    assert verdict.capacity_bytes == gib * GIB
    assert f"memory limit of {gib} GiB" in verdict.message


def test_a_full_gpu_is_no_limit_even_where_one_was_set() -> None:
    message = CAPPED_CUDA.replace("70.25 GiB is free", "10.00 MiB is free")
    verdict = read_ending(error("torch.OutOfMemoryError", message, 8.0))
    assert verdict is not None and verdict.kind == "cuda"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors might be ..."),
        ("RuntimeError", "CUDA error: out of memory"),
        (
            "RuntimeError",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        ("RuntimeError", "Triton Error [CUDA]: out of memory"),
    ],
)
def test_every_wording_of_a_full_gpu_counts(kind: str, message: str) -> None:
    verdict = read_ending(error(kind, message))
    assert verdict is not None and verdict.kind == "cuda"
    assert verdict.message.startswith("The GPU's memory is full")


@pytest.mark.parametrize(
    ("kind", "message", "asked"),
    [
        ("RuntimeError", CPU, 40_000_000_000),
        (
            "RuntimeError",
            CPU.replace("can't allocate memory", "not enough memory"),
            40_000_000_000,
        ),
        ("MemoryError", "", None),
        ("numpy._core._exceptions._ArrayMemoryError", NUMPY, int(74.5 * GIB)),
        ("RuntimeError", "std::bad_alloc", None),
        ("OSError", "[Errno 12] Cannot allocate memory", None),
        (
            "RuntimeError",
            "unable to mmap 4000000000 bytes from file </data/model>: Cannot allocate memory (12)",
            4_000_000_000,
        ),
    ],
)
def test_a_refusal_of_main_memory_is_the_machines_or_the_limits(
    kind: str, message: str, asked: int | None
) -> None:
    free = read_ending(error(kind, message))
    assert free is not None and free.kind == "cpu-allocator" and free.asked_bytes == asked
    capped = read_ending(error(kind, message, 3.0))
    assert capped is not None and capped.kind == "limit" and capped.asked_bytes == asked
    assert capped.capacity_bytes == 3 * GIB
    assert "limit of 3 GiB" in capped.message


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RuntimeError", "can't start new thread"),
        ("ImportError", "libcublas.so.12: failed to map segment from shared object"),
    ],
)
def test_some_errors_mean_memory_only_under_a_limit(kind: str, message: str) -> None:
    assert read_ending(error(kind, message)) is None
    verdict = read_ending(error(kind, message, 2.0))
    assert verdict is not None and verdict.kind == "limit"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ValueError", "row 7 has no field 'output': CUDA out of memory. Tried to allocate 2 GiB"),
        ("ValueError", NEW_CUDA),
        ("KeyError", "MemoryError"),
        ("RuntimeError", "the sample 'CUDA out of memory' is too long"),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered"),
        ("OSError", "[Errno 28] No space left on device"),
    ],
)
def test_other_errors_that_mention_memory_do_not_count(kind: str, message: str) -> None:
    assert read_ending(error(kind, message)) is None


def test_a_log_that_mentions_memory_does_not_override_the_reported_error() -> None:
    evidence = Evidence(
        returncode=1,
        worker_error_type="ValueError",
        worker_error_message="bad row",
        log_tail=f"torch.OutOfMemoryError: {NEW_CUDA}\n",
    )
    assert read_ending(evidence) is None


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"torch.OutOfMemoryError: {NEW_CUDA}", "cuda"),
        (f"RuntimeError: {OLD_CUDA}", "cuda"),
        (f"RuntimeError: {CPU}", "cpu-allocator"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "cpu-allocator"),
        ("MemoryError", "cpu-allocator"),
        (f"numpy._core._exceptions._ArrayMemoryError: {NUMPY}", "cpu-allocator"),
        ("Error out of memory at line 380 in file /src/csrc/ops.cu", "cuda"),
        ("OpenBLAS error: Memory allocation still failed after 10 tries.", "cpu-allocator"),
    ],
)
def test_the_last_words_of_a_worker_that_died_unreported_count(line: str, kind: str) -> None:
    log = "step 1\nTraceback (most recent call last):\n" + line + "\n  what():  more\n"
    verdict = read_ending(Evidence(returncode=-signal.SIGABRT, log_tail=log))
    assert verdict is not None and verdict.kind == kind


def test_older_lines_of_the_log_do_not_count() -> None:
    log = "MemoryError\n" + "step\n" * 40
    assert read_ending(Evidence(returncode=1, log_tail=log)) is None


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_allocator_words_inside_a_line_of_training_data_do_not_count(before: str) -> None:
    log = f'{{"output": "{before} torch.OutOfMemoryError: {NEW_CUDA} MemoryError"}}\n'
    assert read_ending(Evidence(returncode=1, log_tail=log)) is None


@pytest.mark.parametrize("code", [-9, 137])
def test_a_kill_is_the_kernels_only_if_the_kernel_counted_one(code: int) -> None:
    verdict = read_ending(Evidence(returncode=code, oom_kills_before=2, oom_kills_after=3))
    assert verdict is not None and verdict.kind == "host-killed"
    assert read_ending(Evidence(returncode=code, oom_kills_before=3, oom_kills_after=3)) is None
    assert read_ending(Evidence(returncode=code)) is None
    assert read_ending(Evidence(returncode=code, log_tail="MemoryError\n")) is None


def test_another_processs_kill_does_not_explain_our_own_ending() -> None:
    risen = Evidence(returncode=1, oom_kills_before=0, oom_kills_after=1)
    assert read_ending(risen) is None
    terminated = Evidence(signal=signal.SIGTERM, oom_kills_before=0, oom_kills_after=1)
    assert read_ending(terminated) is None


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 42) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 42) exited unexpectedly",
    ],
)
def test_a_data_loading_process_killed_for_memory_counts(message: str) -> None:
    evidence = Evidence(
        returncode=1,
        worker_error_type="RuntimeError",
        worker_error_message=message,
        oom_kills_before=0,
        oom_kills_after=1,
    )
    verdict = read_ending(evidence)
    assert verdict is not None and verdict.kind == "host-killed"
    assert "data loading" in verdict.message
    assert read_ending(error("RuntimeError", message)) is None


def test_success_is_never_out_of_memory() -> None:
    assert read_ending(Evidence(returncode=0, log_tail="MemoryError\n")) is None


def test_the_sentence_gives_the_numbers_and_whose_memory_it_was() -> None:
    verdict = read_ending(error("torch.OutOfMemoryError", NEW_CUDA))
    assert verdict is not None
    assert verdict.message == (
        "The GPU's memory is full (14.57 GiB): it asked for 1.95 GiB more, 1.58 GiB were free; "
        "this trial held 966 MiB, another process 12.02 GiB. Without the other process it would "
        "have fit."
    )


def test_the_sentence_says_in_which_part_of_the_run_it_was() -> None:
    evidence = error("RuntimeError", OLD_CUDA)
    verdict = read_ending(replace(evidence, moment="backward"))
    assert verdict is not None and verdict.moment == "backward"
    assert verdict.message == (
        "The GPU's memory is full in the backward pass (23.65 GiB): it asked for 20 MiB more, "
        "15.56 MiB were free; this trial held 22.22 GiB."
    )


def test_the_sentence_tells_fragmentation_from_plain_need() -> None:
    text = OLD_CUDA.replace("21.98 GiB already", "17.00 GiB already")
    verdict = read_ending(error("RuntimeError", text))
    assert verdict is not None and verdict.fragmented
    assert verdict.message.endswith(
        " this trial held 22.22 GiB. Fragmentation: 5.22 GiB of that are reserved but unusable."
    )


def test_under_a_limit_the_sentence_names_the_limit_and_the_moment() -> None:
    evidence = replace(error("RuntimeError", CPU, 3.0), moment="forward", held_bytes=2 * GIB)
    verdict = read_ending(evidence)
    assert verdict is not None and verdict.held_bytes == 2 * GIB
    assert verdict.message == (
        "The trial reached its memory limit of 3 GiB in the forward pass: it asked for 37.25 GiB "
        "more; this trial had held up to 2 GiB."
    )


@pytest.mark.parametrize(
    ("moment", "phase", "expected"),
    [
        ("optimizer", "train", "optimizer"),
        (None, "load", "load"),
        (None, "eval", "eval"),
        (None, "save", "save"),
        (None, "train", "backward"),
        (None, None, "backward"),
        (None, "data", "backward"),
    ],
)
def test_the_moment_is_the_workers_word_else_its_phase_else_the_tracebacks(
    moment: Moment | None, phase: str | None, expected: Moment
) -> None:
    log = (
        "Traceback (most recent call last):\n"
        '  File "/x/torch/_tensor.py", line 625, in backward\n'
        f"torch.OutOfMemoryError: {NEW_CUDA}\n"
    )
    evidence = error("torch.OutOfMemoryError", NEW_CUDA)
    verdict = read_ending(replace(evidence, moment=moment, phase=phase, log_tail=log))
    assert verdict is not None and verdict.moment == expected


def test_what_a_report_cuts_off_is_taken_from_the_log() -> None:
    first = "Allocation on device 0 would exceed allowed memory. (out of memory)"
    log = (
        "Traceback (most recent call last):\n"
        '  File "/x/torch/optim/adamw.py", line 30, in step\n'
        f"torch.OutOfMemoryError: {first}\nCurrently allocated     : 9.43 GiB\n"
        "Requested               : 640.00 MiB\n"
    )
    evidence = error("torch.OutOfMemoryError", first.rstrip("."))
    verdict = read_ending(replace(evidence, log_tail=log))
    assert verdict is not None
    assert (verdict.asked_bytes, verdict.moment) == (640 * MIB, "optimizer")


@pytest.mark.parametrize("message", ["", "MemoryError"])
def test_an_error_without_words_is_found_in_the_log_by_its_name(message: str) -> None:
    log = (
        "Traceback (most recent call last):\n"
        '  File "/x/transformers/modeling_utils.py", line 1, in from_pretrained\nMemoryError\n'
    )
    verdict = read_ending(replace(error("MemoryError", message), log_tail=log))
    assert verdict is not None and verdict.moment == "load"


def test_a_log_of_another_error_adds_nothing_to_a_report() -> None:
    log = f"Traceback (most recent call last):\ntorch.OutOfMemoryError: {NEW_CUDA}\n"
    verdict = read_ending(replace(error("MemoryError", ""), log_tail=log))
    assert verdict is not None and verdict.kind == "cpu-allocator"
    assert verdict.asked_bytes is None and verdict.moment is None


def test_a_kill_says_when_and_what_was_held_where_that_is_known() -> None:
    evidence = Evidence(
        returncode=-9, oom_kills_before=0, oom_kills_after=1, phase="load", held_bytes=3 * GIB
    )
    verdict = read_ending(evidence)
    assert verdict is not None and verdict.held_bytes == 3 * GIB
    assert verdict.message == (
        "The machine's main memory ran out while loading the model and the kernel killed the "
        "trial; the trial had held up to 3 GiB."
    )


@given(st.text(), st.text(), st.text(), st.none() | st.integers(-64, 255))
def test_no_evidence_breaks_the_reader(kind: str, message: str, log: str, code: int | None) -> None:
    read_ending(Evidence(code, None, kind or None, message, log))
    read_ending(error("OutOfMemoryError", message))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1 << 30, "1 GiB"), (1536 * MIB, "1.5 GiB")],
)
def test_sizes_are_said_in_their_largest_unit(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_on_a_gpu_the_limit_is_not_that_of_main_memory() -> None:
    message = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."
    evidence = error("RuntimeError", message, limit_gib=3)
    verdict = read_ending(replace(evidence, device="cuda"))
    assert verdict is not None and verdict.kind == "cpu-allocator"
    assert "limit" not in verdict.message
    threads = error("RuntimeError", "can't start new thread", limit_gib=3)
    assert read_ending(threads) is not None
    assert read_ending(replace(threads, device="cuda")) is None
