"""What libraries beside torch's CUDA allocator say when memory is full, and what they say of other troubles."""

from __future__ import annotations

import pytest

from core.memory.oom import Evidence, OomVerdict, read_ending

MIB = 1 << 20

ASYNC_HINT = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
    "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


def verdict_of(error_type: str, message: str, log: str = "") -> OomVerdict | None:
    return read_ending(
        Evidence(
            returncode=1,
            worker_error_type=error_type,
            worker_error_message=message,
            log_tail=log,
        )
    )


LIBRARIES = (
    # version, type, message, kind, who asked, how much
    ("torch 1.10", "RuntimeError", "CUDA error: out of memory" + ASYNC_HINT, "cuda", "", None),
    (
        "torch 2.9",
        "torch.AcceleratorError",
        "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in "
        "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more "
        "information." + ASYNC_HINT,
        "cuda",
        "",
        None,
    ),
    ("torch 2.9, expandable segments", "RuntimeError", "CUDA driver error: out of memory", "cuda", "", None),
    (
        "cuBLAS of CUDA 11.7",
        "RuntimeError",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuda",
        "cuBLAS",
        None,
    ),
    (
        "cuBLAS of CUDA 12.1",
        "RuntimeError",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuda",
        "cuBLAS",
        None,
    ),
    ("cuDNN 8", "RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "cuda", "cuDNN", None),
    ("cuDNN 8", "RuntimeError", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", "cuda", "cuDNN", None),
    (
        "cuDNN 9",
        "RuntimeError",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuda",
        "cuDNN",
        None,
    ),
    (
        "cuDNN 9",
        "RuntimeError",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "cpu-allocator",
        "cuDNN",
        None,
    ),
    ("Triton 3.1", "RuntimeError", "Triton Error [CUDA]: out of memory", "cuda", "Triton", None),
    (
        "NCCL 2.18",
        "torch.distributed.DistBackendError",
        "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, unhandled cuda "
        "error (run with NCCL_DEBUG=INFO for details), NCCL version 2.18.5\nncclUnhandledCudaError:"
        " Call to CUDA function failed.\nLast error:\nCuda failure 'out of memory'",
        "cuda",
        "NCCL",
        None,
    ),
    (
        "NCCL 2.21",
        "torch.distributed.DistBackendError",
        "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, unhandled cuda error "
        "(run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclUnhandledCudaError: Call "
        "to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
        "cuda",
        "NCCL",
        None,
    ),
    (
        "NCCL 2.20",
        "torch.distributed.DistBackendError",
        "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:275, unhandled cuda error (run "
        "with NCCL_DEBUG=INFO for details), NCCL version 2.20.5\nncclUnhandledCudaError: Call to "
        "CUDA function failed.\nLast error:\nFailed to CUDA calloc async 6291456 bytes",
        "cuda",
        "NCCL",
        6291456,
    ),
    (
        "torch 1.4's CPU allocator",
        "RuntimeError",
        "[enforce fail at CPUAllocator.cpp:64] . DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 1178729664 bytes. Error code 12 (Cannot allocate memory)",
        "cpu-allocator",
        "",
        1178729664,
    ),
    (
        "torch 2.0's CPU allocator, in German",
        "RuntimeError",
        "[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 35896320000 bytes. Error code 12 (Nicht genügend Hauptspeicher "
        "verfügbar)",
        "cpu-allocator",
        "",
        35896320000,
    ),
    (
        "torch 1.13's CPU allocator on Windows",
        "RuntimeError",
        "[enforce fail at C:\\b\\abs_bao0hdcrdh\\croot\\pytorch_1675190257512\\work\\c10\\core\\impl"
        "\\alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to allocate "
        "1981808640 bytes.",
        "cpu-allocator",
        "",
        1981808640,
    ),
    (
        "safetensors 0.4 with torch 2.3",
        "RuntimeError",
        "unable to mmap 23802932552 bytes from file <./flux1-dev.safetensors>: Cannot allocate "
        "memory (12)",
        "cpu-allocator",
        "",
        23802932552,
    ),
    (
        "safetensors with torch 2.3, in Japanese",
        "RuntimeError",
        "unable to mmap 4993859720 bytes from file </data/model.safetensors>: メモリを確保できません (12)",
        "cpu-allocator",
        "",
        4993859720,
    ),
    ("safetensors 0.5", "safetensors_rust.SafetensorError", "Error: メモリ (os error 12)", "cpu-allocator", "", None),
    ("Python 3.11, in French", "OSError", "[Errno 12] Impossible d'allouer de la mémoire", "cpu-allocator", "", None),
    ("Python 3.11", "MemoryError", "", "cpu-allocator", "", None),
    (
        "NumPy 1.26",
        "numpy.core._exceptions._ArrayMemoryError",
        "Unable to allocate 105. MiB for an array with shape (21, 1024, 1280) and data type float32",
        "cpu-allocator",
        "",
        105 * MIB,
    ),
    ("pyarrow 17", "pyarrow.lib.ArrowMemoryError", "malloc of size 17179869184 failed", "cpu-allocator", "", 1 << 34),
    ("libstdc++", "RuntimeError", "std::bad_alloc", "cpu-allocator", "", None),
)  # fmt: skip


@pytest.mark.parametrize(
    ("error_type", "message", "kind", "source", "asked"),
    [case[1:] for case in LIBRARIES],
    ids=[f"{case[0]}: {case[2][:40]}" for case in LIBRARIES],
)
def test_every_librarys_words_for_full_memory_count(
    error_type: str, message: str, kind: str, source: str, asked: int | None
) -> None:
    verdict = verdict_of(error_type, message)
    assert verdict is not None
    assert (verdict.kind, verdict.asked_by, verdict.asked_bytes) == (kind, source, asked)
    assert (source in verdict.message) if source else "could not get" not in verdict.message


@pytest.mark.parametrize(
    ("error_type", "message"),
    [
        # Triton's shared memory is a kernel's, not the device's.
        (
            "triton.runtime.errors.OutOfResources",
            "out of resource: shared memory, Required: 135200, Hardware limit: 101376. Reducing "
            "block sizes or `num_stages` may help.",
        ),
        (
            "torch.distributed.DistBackendError",
            "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:275, unhandled cuda error "
            "(run with NCCL_DEBUG=INFO for details), NCCL version 2.20.5\nncclUnhandledCudaError: "
            "Call to CUDA function failed.\nLast error:\nCuda failure 1 'invalid argument'",
        ),
        ("RuntimeError", "CUDA error: device-side assert triggered" + ASYNC_HINT),
        ("RuntimeError", "CUDA driver error: invalid argument"),
        ("RuntimeError", "Triton Error [CUDA]: device kernel image is invalid"),
        (
            "RuntimeError",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`",
        ),
        (
            "RuntimeError",
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasGemmEx(handle)`",
        ),
        ("RuntimeError", "unable to mmap 8 bytes from file </data/x>: No such device (19)"),
        ("RuntimeError", "FIND was unable to find an engine to execute this computation"),
        ("OSError", "[Errno 122] Disk quota exceeded"),
        ("safetensors_rust.SafetensorError", "Error while deserializing header: InvalidHeader"),
        ("AssertionError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_errors_of_the_same_libraries_that_are_not_of_memory_do_not_count(
    error_type: str, message: str
) -> None:
    assert verdict_of(error_type, message) is None


def test_a_library_that_cannot_start_is_said_to_be_probably_memory() -> None:
    text = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    verdict = verdict_of("RuntimeError", text)
    assert verdict is not None and not verdict.certain
    assert verdict.message.startswith("The GPU's memory is probably full")


def test_a_library_that_cannot_start_after_a_bad_index_is_no_matter_of_memory() -> None:
    text = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    log = (
        "../aten/src/ATen/native/cuda/Indexing.cu:1146: indexSelectLargeIndex: block: [12,0,0], "
        "thread: [64,0,0] Assertion `srcIndex < srcSelectDimSize` failed.\n"
    )
    assert verdict_of("RuntimeError", text, log) is None


def test_a_message_that_the_worker_put_the_errors_name_before_counts() -> None:
    text = "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED"
    verdict = verdict_of("RuntimeError", text)
    assert verdict is not None and verdict.asked_by == "cuDNN"
