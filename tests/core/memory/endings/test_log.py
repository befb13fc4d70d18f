"""Logs of workers that died without a report: cut, interleaved, prefixed, beside other words."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.endings.log import moment_of
from core.memory.forecast import Moment
from core.memory.oom import Evidence, OomVerdict, read_ending

MIB, GIB = 1 << 20, 1 << 30

HEAD = "Traceback (most recent call last):\n"
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total "
    "capacity of 14.57 GiB of which 1.58 GiB is free. Including non-PyTorch memory, this process "
    "has 12.99 GiB memory in use. Of the allocated memory 12.75 GiB is allocated by PyTorch, and "
    "33.93 MiB is reserved by PyTorch but unallocated."
)
SITE = "/usr/local/lib/python3.12/dist-packages/"
TRAINING = (
    f'  File "{SITE}transformers/trainer.py", line 2674, in _inner_training_loop\n'
    "    tr_loss_step = self.training_step(model, inputs, num_items_in_batch)\n"
    "                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
    f'  File "{SITE}transformers/trainer.py", line 4071, in training_step\n'
)
FORWARD = TRAINING + (
    "    loss = self.compute_loss(model, inputs)\n"
    f'  File "{SITE}transformers/trainer.py", line 3810, in compute_loss\n'
    "    outputs = model(**inputs)\n"
    f'  File "{SITE}torch/nn/modules/module.py", line 1751, in _wrapped_call_impl\n'
    "    return self._call_impl(*args, **kwargs)\n"
    f'  File "{SITE}transformers/models/llama/modeling_llama.py", line 212, in forward\n'
)
BACKWARD = TRAINING + (
    "    self.accelerator.backward(loss, **kwargs)\n"
    f'  File "{SITE}torch/_tensor.py", line 625, in backward\n'
    "    torch.autograd.backward(\n"
    f'  File "{SITE}torch/autograd/__init__.py", line 354, in backward\n'
    "    _engine_run_backward(\n"
    f'  File "{SITE}torch/utils/checkpoint.py", line 1129, in unpack_hook\n'
    f'  File "{SITE}transformers/models/llama/modeling_llama.py", line 212, in forward\n'
)
STEP = (
    f'  File "{SITE}transformers/trainer.py", line 2740, in _inner_training_loop\n'
    "    self.optimizer.step()\n"
    f'  File "{SITE}accelerate/optimizer.py", line 165, in step\n'
    f'  File "{SITE}torch/optim/adamw.py", line 232, in step\n'
    f'  File "{SITE}torch/optim/adamw.py", line 175, in _init_group\n'
)
EVAL = (
    f'  File "{SITE}transformers/trainer.py", line 3200, in _maybe_log_save_evaluate\n'
    f'  File "{SITE}transformers/trainer.py", line 3149, in _evaluate\n'
    f'  File "{SITE}transformers/trainer.py", line 4198, in evaluate\n'
    f'  File "{SITE}transformers/trainer.py", line 4393, in evaluation_loop\n'
    f'  File "{SITE}transformers/loss/loss_utils.py", line 55, in ForCausalLMLoss\n'
)
LOAD = (
    '  File "/home/someone/train.py", line 12, in main\n'
    f'  File "{SITE}transformers/modeling_utils.py", line 4091, in from_pretrained\n'
    f'  File "{SITE}transformers/modeling_utils.py", line 988, in forward\n'
)
SAVE = (
    f'  File "{SITE}transformers/trainer.py", line 3251, in _save_checkpoint\n'
    f'  File "{SITE}peft/peft_model.py", line 330, in save_pretrained\n'
)
BAR = " 12%|█▏        | 12/100 [00:10<01:17,  1.14it/s]"


def death(log: str, code: int = 1) -> OomVerdict | None:
    return read_ending(Evidence(returncode=code, log_tail=log))


@pytest.mark.parametrize(
    ("frames", "moment"),
    [
        (FORWARD, "forward"),
        (BACKWARD, "backward"),
        (STEP, "optimizer"),
        (EVAL, "eval"),
        (LOAD, "load"),
        (SAVE, "save"),
        ('  File "/home/someone/train.py", line 12, in main\n', None),
        ("", None),
    ],
)
def test_the_traceback_tells_the_part_of_the_run(frames: str, moment: Moment | None) -> None:
    verdict = death(HEAD + frames + OOM + "\n")
    assert verdict is not None and verdict.moment == moment
    assert verdict.asked_bytes == int(1.95 * GIB)


def test_of_a_traceback_whose_beginning_is_cut_off_the_rest_tells() -> None:
    verdict = death(BACKWARD[BACKWARD.rindex("torch.autograd") :] + OOM)
    assert verdict is not None and verdict.moment == "backward"


def test_a_forward_pass_whose_callers_are_cut_off_may_be_any_part() -> None:
    verdict = death(BACKWARD[BACKWARD.rindex("  File") :] + OOM)
    assert verdict is not None and verdict.moment is None


@pytest.mark.parametrize(
    ("frame", "moment"),
    [
        ("│ /opt/venv/lib/torch/_tensor.py:396 in backward                    │", "backward"),
        ("/opt/venv/lib/transformers/trainer.py in evaluate(self, dataset)", "eval"),
        ("File ~/venv/lib/transformers/trainer.py:2241, in Trainer.compute_loss(self)", "forward"),
        (r'  File "C:\env\lib\site-packages\torch\optim\adamw.py", line 161, in step', "optimizer"),
        ('  File "/x/core/lr_scheduler.py", line 68, in step', None),
    ],
)
def test_frames_are_read_in_the_styles_of_other_tools(frame: str, moment: Moment | None) -> None:
    verdict = death(f"{HEAD}{frame}\n{OOM}\n")
    assert verdict is not None and verdict.moment == moment


@pytest.mark.parametrize(
    "prefix",
    [
        "[rank0]: ",
        "[rank 1]:",
        "[default0]:",
        "rank3: ",
        "[1,0]<stderr>: ",
        "(EngineCore pid=112) ",
        "(RayTrainWorker pid=18422, ip=10.88.2.6) ",
        "2022-10-24 15:03:50.918 ",
        "2026-04-19T12:05:27.169Z ",
        "14446.4s\t511\t",
        "0: [rank0]: ",
        "(EngineCore pid=207) ERROR 04-19 10:05:27 [core.py:1132] ",
        "\x1b[31m",
    ],
)
def test_prefixes_of_launchers_and_terminals_do_not_hide_the_error(prefix: str) -> None:
    lines = (HEAD + BACKWARD + OOM).splitlines()
    verdict = death("\n".join(prefix + line for line in lines) + "\n")
    assert verdict is not None and verdict.kind == "cuda"
    assert (verdict.moment, verdict.held_bytes) == ("backward", int(12.99 * GIB))


def test_progress_bars_on_the_same_line_do_not_hide_the_error() -> None:
    log = f"\r{BAR}{HEAD}{STEP}Steps:   0%|▏  | 2/2500 [00:09<3:18:12, 4.76s/it]{OOM}\n\r{BAR}\n"
    verdict = death(log)
    assert verdict is not None and verdict.moment == "optimizer"


def test_an_error_written_into_another_threads_traceback_counts() -> None:
    log = (
        f'{HEAD}  File "/x/loader.py", line 10, in _wo{OOM}\n  File "/x/loader.py", line 11, in f\n'
    )
    verdict = death(log)
    assert verdict is not None and verdict.asked_bytes == int(1.95 * GIB)


def test_of_processes_that_are_told_apart_the_one_that_ran_out_explains_the_end() -> None:
    mine = [f"[rank0]: {line}" for line in (HEAD + FORWARD + OOM).splitlines()]
    other = [f"[rank1]: {line}" for line in (HEAD + STEP).splitlines()]
    other.append("[rank1]: RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:5678")
    mixed = [line for pair in zip(mine, [*other, *[""] * len(mine)], strict=False) for line in pair]
    launcher = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\n"
    verdict = death("\n".join(mixed) + "\n" + HEAD + launcher)
    assert verdict is not None and verdict.moment == "forward"


def test_what_a_launcher_says_afterwards_does_not_override_the_error() -> None:
    log = f"{HEAD}{FORWARD}{OOM}\n{HEAD}BrokenPipeError: [Errno 32] Broken pipe\n"
    assert death(log) is not None


def test_errors_while_cleaning_up_do_not_override_the_error() -> None:
    log = (
        f"{HEAD}{FORWARD}{OOM}\nException ignored in: <function Run.__del__ at 0x7f1>\n{HEAD}"
        '  File "/x/wandb.py", line 3, in __del__\nAttributeError: no attribute\n'
    )
    verdict = death(log)
    assert verdict is not None and verdict.moment == "forward"


def test_an_error_that_was_raised_from_this_one_keeps_it_the_reason() -> None:
    log = (
        f"{HEAD}{LOAD}{OOM}\n\nThe above exception was the direct cause of the following exception:"
        f'\n\n{HEAD}  File "/x/a.py", line 1, in f\nRuntimeError: the model cannot be loaded\n'
    )
    verdict = death(log)
    assert verdict is not None and verdict.moment == "load"


def test_an_error_after_a_handled_one_is_the_reason() -> None:
    log = f"{HEAD}{FORWARD}{OOM}\nretrying with batch 1\n{HEAD}ValueError: bad row\n"
    assert death(log) is None
    handled = (
        f"{HEAD}{FORWARD}{OOM}\n\nDuring handling of the above exception, another exception "
        f"occurred:\n\n{HEAD}KeyError: 'labels'\n"
    )
    assert death(handled) is None


def test_a_crash_long_after_a_handled_one_is_not_explained_by_it() -> None:
    assert death(f"{HEAD}{FORWARD}{OOM}\n" + "{'loss': 1.2}\n" * 40, -signal.SIGSEGV) is None


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "What does torch.OutOfMemoryError: CUDA out of memory mean?"}',
        "### User: I get RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB",
        "sample 3: Error out of memory at line 380 in file ops.cu is printed by bitsandbytes",
        "MemoryError is raised where Python finds no memory",
        "the words 'std::bad_alloc' and CUDA error: out of memory in a text",
        "    raise MemoryError('too large')",
        "UserWarning: CUDA out of memory. Tried to allocate 2 GiB was caught, going on",
        "torch.OutOfMemo",
    ],
)
def test_text_that_talks_of_memory_explains_no_death(line: str) -> None:
    assert death(f"step 1\n{line}\n") is None
    assert death(f"{HEAD}{line}\n", -signal.SIGABRT) is None


def test_an_abort_in_cpp_is_read_behind_its_long_stack() -> None:
    log = (
        "terminate called after throwing an instance of 'c10::OutOfMemoryError'\n"
        "  what():  CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity "
        "of 23.65 GiB of which 10.00 MiB is free.\n"
        "Exception raised from malloc at ../c10/cuda/CUDACachingAllocator.cpp:1137 (most recent "
        "call first):\n"
        + "".join(
            f"frame #{n}: <unknown function> + 0x{n:x} (0x7f in libc10.so)\n" for n in range(60)
        )
        + "\nFatal Python error: Aborted\n\nThread 0x00007f (most recent call first):\n"
        + '  File "/usr/lib/python3.12/threading.py", line 355 in wait\n' * 30
    )
    verdict = death(log, -signal.SIGABRT)
    assert verdict is not None and verdict.kind == "cuda"
    assert (verdict.asked_bytes, verdict.free_bytes) == (512 * MIB, 10 * MIB)


def test_nccl_says_the_reason_in_a_warning() -> None:
    log = (
        "ng30903:3063028:3066152 [3] include/alloc.h:178 NCCL WARN Cuda failure 'out of memory'\n"
        "ng30903:3063028:3066152 [3] include/alloc.h:185 NCCL WARN Failed to CUDA calloc 6291456 "
        f"bytes\n{HEAD}{FORWARD}torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/"
        "distributed/c10d/ProcessGroupNCCL.cpp:1333, unhandled cuda error, NCCL version 2.18.6\n"
    )
    verdict = death(log)
    assert verdict is not None and verdict.asked_by == "NCCL"
    assert (
        death(log.replace("WARN Cuda failure 'out of memory'", "INFO").replace("WARN F", "INFO F"))
        is None
    )


@pytest.mark.parametrize(
    ("line", "kind", "source", "asked"),
    [
        # bitsandbytes 0.39 to 0.50
        ("Error out of memory at line 88 in file D:\\a\\bnb\\csrc\\ops.cu", "cuda", "bitsandbytes", None),
        (
            "Error out of memory at line 351 in file /home/dev/bitsandbytes/csrc/pythonInterface.c",
            "cpu-allocator",
            "bitsandbytes' paged optimizer",
            None,
        ),
        # flash-attn 2.7
        (
            "CUDA error (/build/flash-attention/csrc/flash_attn/src/flash_fwd_launch_template.h:90): "
            "out of memory",
            "cuda",
            "flash-attn",
            None,
        ),
        # safetensors and tokenizers, Rust 1.70
        ("memory allocation of 1073741824 bytes failed", "cpu-allocator", "", GIB),
        ("  what():  std::bad_alloc", "cpu-allocator", "", None),
    ],
)  # fmt: skip
def test_last_words_that_libraries_print_without_an_exception_count(
    line: str, kind: str, source: str, asked: int | None
) -> None:
    verdict = death(f"{BAR}\n{line}\n", -signal.SIGABRT)
    assert verdict is not None
    assert (verdict.kind, verdict.asked_by, verdict.asked_bytes) == (kind, source, asked)
    assert death(f"{line}\n{HEAD}ValueError: bad row\n") is None


def test_a_log_in_another_language_keeps_what_is_known() -> None:
    log = f"学習を開始します\n{BAR}\n例外が発生しました:\n{HEAD}{BACKWARD}{OOM}\n学習が中断されました\n"
    verdict = death(log)
    assert verdict is not None
    assert (verdict.moment, verdict.free_bytes) == ("backward", int(1.58 * GIB))


def test_a_log_cut_at_its_beginning_never_tells_another_story() -> None:
    log = HEAD + BACKWARD + OOM
    for start in range(len(log) + 1):
        verdict = death(log[start:])
        if verdict is not None:
            assert verdict.kind == "cuda", log[start:]
            assert verdict.moment in ("backward", None), log[start:]
            assert verdict.asked_bytes in (int(1.95 * GIB), None), log[start:]


@given(
    st.lists(
        st.sampled_from([HEAD, BAR, OOM, FORWARD, BACKWARD, "[rank1]: ", "\r", "\n", "Error", "x"])
    )
)
def test_no_mixture_breaks_the_reader(pieces: list[str]) -> None:
    death("".join(pieces), -signal.SIGABRT)


def test_the_outermost_frame_that_tells_decides() -> None:
    recomputed = [("trainer.py", "training_step"), ("_tensor.py", "backward"), ("m.py", "forward")]
    assert moment_of(recomputed) == "backward"
    assert moment_of([("m.py", "forward")]) == "forward"
    assert moment_of([("a.py", "main")]) is None
