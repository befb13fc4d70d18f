"""What a forecast looks like against devices."""

from dataclasses import replace

import msgspec
import pytest

from core.memory.forecast import Target
from core.params import Range, SearchTable
from core.profile import Profile, load, resolve
from tests.tui.fake_memory import GIB, forecast
from tui.memory_view import (
    Device,
    MemoryView,
    gib,
    grouped,
    in_order,
    largest_trials,
    memory_line,
)


def device(
    label: str, free: float, *, name: str = "NVIDIA A100", busy: bool = False, guard: float = 0.08
) -> Device:
    target = Target(kind="cuda", name=name, total=80 * GIB, free=int(free * GIB))
    return Device(label, target, guard, busy)


def profile(space: dict[str, object] | None = None) -> Profile:
    found = load(resolve("lora-small")).as_training()
    return replace(found, search=SearchTable.model_validate({"space": space or {}}))


def test_the_parts_of_the_bar_sum_to_what_is_needed() -> None:
    line = memory_line(forecast(4, needed=1.1), device("GPU 0", 79))
    assert sum(size for _, size in line.segments) == line.total
    assert [part for part, _ in line.segments] == [
        "CUDA", "weights", "adapters", "gradients", "optimizer", "activations", "logits", "gaps",
    ]  # fmt: skip


def test_on_the_cpu_the_process_itself_is_a_part() -> None:
    cpu = Device("CPU", Target(kind="cpu", name="the CPU", total=64 * GIB, free=40 * GIB))
    line = memory_line(forecast(), cpu)
    assert line.segments[0] == ("process", GIB // 2)
    assert line.name == ""


@pytest.mark.parametrize(
    ("free", "verdict", "ruling"),
    [
        (40.0, "fits", "fits"),
        (13.5, "tight", "too close, 0.5 GiB left"),
        (13.0, "tight", "too close, 0 GiB left"),
        (12.98, "over", "0.05 GiB too much"),
        (10.0, "over", "3.0 GiB too much"),
    ],
)
def test_the_verdict_keeps_the_guard_band(free: float, verdict: str, ruling: str) -> None:
    line = memory_line(forecast(4), device("GPU 0", free))
    assert (line.verdict, line.ruling.replace("0.0 GiB", "0 GiB")) == (verdict, ruling)
    assert line.numbers == f"13.0 of {free:.1f} GiB"


def test_a_limit_counts_besides_what_cuda_takes() -> None:
    found = device("GPU 0", 79)
    limited = replace(found, target=msgspec.structs.replace(found.target, limit=12 * GIB))
    line = memory_line(forecast(4), limited)
    assert line.verdict == "over"
    assert line.room == 12 * GIB + GIB // 2


def test_a_proof_is_told_from_an_estimate() -> None:
    assert memory_line(forecast(), device("GPU 0", 79)).source == "estimate"
    assert memory_line(forecast(proven=True), device("GPU 0", 79)).source == "proven"


def test_what_dominates_and_when_it_peaks_is_named() -> None:
    line = memory_line(forecast(8), device("GPU 0", 79))
    assert line.why == "activations 43%"
    assert line.when == "peak in the backward pass"
    later = msgspec.structs.replace(forecast(8), peak_step=2, peak="eval")
    assert memory_line(later, device("GPU 0", 79)).when == "peak while evaluating, step 2"


def test_the_tightest_device_that_may_be_used_comes_first() -> None:
    lines = [
        memory_line(forecast(4), device(label, free, busy=busy))
        for label, free, busy in (
            ("roomy", 79, False),
            ("taken", 4, True),
            ("tight", 14, False),
            ("shared", 30, True),
        )
    ]
    assert [line.label for line in in_order(lines)] == ["tight", "roomy", "shared", "taken"]
    assert MemoryView(in_order(lines)).counts == in_order(lines)[0]


def test_gpus_that_are_alike_share_a_line_and_the_fullest_speaks_for_them() -> None:
    four = [device(f"GPU {n}", 79 - n * 0.05) for n in range(4)]
    (one,) = grouped(four)
    assert one.label == "GPU 0-3"
    assert one.target == four[3].target
    apart = grouped([*four, device("GPU 6", 20), device("GPU 7", 79, name="NVIDIA T4")])
    assert [d.label for d in apart] == ["GPU 0-3", "GPU 6", "GPU 7"]
    assert [d.label for d in grouped([four[0], four[2]])] == ["GPU 0,2"]


def test_a_search_is_judged_by_its_largest_trial() -> None:
    searched = profile(
        {
            "per_device_train_batch_size": [1, 8, 2],
            "lora_rank": Range(low=8, high=64).model_dump(exclude_none=True),
            "learning_rate": [1e-4, 2e-4],
            "lr_scheduler_type": ["linear", "cosine"],
            "gradient_checkpointing": [True, False],
        }
    )
    trials = largest_trials(searched)
    assert len(trials) == 2
    assert {t.train.gradient_checkpointing for t in trials} == {True, False}
    assert {t.train.per_device_train_batch_size for t in trials} == {8}
    assert {t.method.lora_rank for t in trials} == {64}
    assert all(isinstance(t.method.lora_rank, int) and not t.search.space for t in trials)


def test_without_a_search_it_is_the_profile() -> None:
    assert largest_trials(profile()) == (profile(),)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0"), (GIB // 20, "0.05"), (int(17.24 * GIB), "17.2"), (140 * GIB, "140")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert gib(size) == text
