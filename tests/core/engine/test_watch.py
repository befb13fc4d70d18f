import math
import time
from pathlib import Path
from typing import Any

from core.engine.watch import Watch
from core.params import TrainTable
from core.study.files import RunInfo, TrialForecast, TrialTask, write_record
from core.study.metrics import MetricsWriter, Point
from core.study.store import TrialFolder


def write(folder: Path, losses: list[float], attempt: int = 1, first: int = 1, **more: Any) -> None:
    writer = MetricsWriter(folder / "metrics.jsonl")
    for step, loss in enumerate(losses, first):
        writer.write(Point(t=1.0, step=step, attempt=attempt, loss=loss, **more))
    writer.close()


def watch(
    folder: Path,
    attempt: int = 1,
    guarded: bool = True,
    resumed: bool = False,
    precision: str = "fp32",
    stage: str = "sft",
    kl_target: float | None = None,
    **train: Any,
) -> Watch:
    run = RunInfo(attempt, 20, 100, 10.0, 1, 1, 0, 1, 1, precision, "CPU", {}, 0.1)
    write_record(folder / "run.json", run)
    return Watch(
        TrialFolder(folder), attempt, TrainTable(**train), guarded=guarded, resumed=resumed,
        stage=stage, kl_target=kl_target,
    )  # fmt: skip


def test_a_loss_that_is_no_number_stops_and_is_told_once(tmp_path: Path) -> None:
    made = watch(tmp_path)
    assert made.poll() == []
    assert not made.started
    write(tmp_path, [2.0, 1.9, math.nan])
    (verdict,) = made.poll()
    assert (verdict.action, verdict.step) == ("stop", 3)
    assert made.started
    assert made.poll() == []


def test_a_spike_that_the_last_daemon_warned_of_is_not_told_again(tmp_path: Path) -> None:
    losses = [2.0, 2.1, 1.9, 2.0, 2.05, 1.95] * 3 + [9.0]
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step, loss in enumerate(losses, 1):
        writer.write(Point(t=time.time() - 60, step=step, loss=loss))
    made = watch(tmp_path)
    assert made.poll() == []
    for step, loss in enumerate([2.0, 2.1, 1.9, 2.0, 2.05, 9.0], 20):
        writer.write(Point(t=time.time(), step=step, loss=loss))
    writer.close()
    assert [(v.action, v.step) for v in made.poll()] == [("warn", 25)]


def test_without_the_guard_nothing_is_said(tmp_path: Path) -> None:
    made = watch(tmp_path, guarded=False)
    write(tmp_path, [2.0, math.nan])
    assert made.poll() == []
    assert made.started


def test_what_an_earlier_attempt_logged_stops_nobody(tmp_path: Path) -> None:
    write(tmp_path, [2.0, math.nan])
    made = watch(tmp_path, attempt=2)
    write(tmp_path, [2.0, 1.9], attempt=2)
    assert made.poll() == []
    assert made.started


def test_an_attempt_that_goes_on_is_compared_with_what_came_before(tmp_path: Path) -> None:
    write(tmp_path, [2.0] * 8)
    write(tmp_path, [12.0] * 8, attempt=2, first=9)
    resumed = watch(tmp_path, attempt=2, resumed=True).poll()
    assert [v.action for v in resumed if v.action == "stop"]
    assert [v for v in watch(tmp_path, attempt=2).poll() if v.action == "stop"] == []


def test_steps_that_a_resumed_attempt_repeats_count_once(tmp_path: Path) -> None:
    write(tmp_path, [2.0, 2.0, 2.0, 2.0, math.nan])
    write(tmp_path, [2.0, 1.9, 1.8], attempt=2, first=5)
    assert watch(tmp_path, attempt=2, resumed=True).poll() == []


def test_fp16_may_overflow_now_and_then(tmp_path: Path) -> None:
    write(tmp_path, [2.0], grad_norm=math.inf)
    assert watch(tmp_path, precision="fp16").poll() == []
    assert [v.action for v in watch(tmp_path, precision="bf16").poll()] == ["stop"]


def test_an_evaluation_alone_is_nothing_for_the_guard(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(Point(t=1.0, step=1, eval_loss=math.nan))
    writer.close()
    assert watch(tmp_path).poll() == []


def forecast(folder: Path, capacity: int, attempt: int = 1, context: int = 0) -> None:
    made = TrialForecast(
        attempt=attempt,
        shape="",
        tier="proof",
        device="GPU",
        allocated=1,
        reserved=1,
        needed=1,
        context=context,
        capacity=capacity,
        guard=0.03,
        parts={},
        moments={},
        peak="backward",
    )
    write_record(folder / "forecast.json", made)


def grow(folder: Path, held: list[int], t: float | None = None, **more: Any) -> None:
    writer = MetricsWriter(folder / "metrics.jsonl")
    for step, size in enumerate(held, 1):
        at = time.time() if t is None else t
        writer.write(Point(t=at, step=step, loss=2.0, mem_peak=size, **more))
    writer.close()


def test_memory_that_creeps_towards_its_forecasts_capacity_is_warned_of_once(
    tmp_path: Path,
) -> None:
    forecast(tmp_path, 1000)
    made = watch(tmp_path, guarded=False)
    grow(tmp_path, [500, 500, 500, 600, 930, 950], mem_reserved=0)
    (verdict,) = made.poll()
    assert (verdict.action, verdict.step) == ("warn", 5)
    assert "930 bytes at step 5" in verdict.reason and "500 bytes at step 1" in verdict.reason
    grow(tmp_path, [999])
    assert made.poll() == []


def test_what_the_allocator_reserved_counts_as_well(tmp_path: Path) -> None:
    forecast(tmp_path, 1000)
    made = watch(tmp_path, guarded=False)
    grow(tmp_path, [300] * 3, mem_reserved=500)
    grow(tmp_path, [300] * 2, mem_reserved=940)
    assert [v.action for v in made.poll()] == ["warn"]


def test_on_the_cpu_the_process_itself_is_left_out(tmp_path: Path) -> None:
    forecast(tmp_path, 1000, context=400)
    made = watch(tmp_path, guarded=False)
    grow(tmp_path, [900, 900, 900, 1310])
    assert made.poll() == []
    grow(tmp_path, [1330])
    assert [v.action for v in made.poll()] == ["warn"]


def test_without_a_forecast_of_this_attempt_memory_is_not_warned_of(tmp_path: Path) -> None:
    grow(tmp_path, [500, 500, 500, 990])
    assert watch(tmp_path, guarded=False).poll() == []
    forecast(tmp_path, 1000, attempt=2)
    assert watch(tmp_path, guarded=False).poll() == []


def test_a_new_daemon_does_not_repeat_what_the_last_one_warned_of(tmp_path: Path) -> None:
    forecast(tmp_path, 1000)
    grow(tmp_path, [500, 500, 500, 950], t=time.time() - 60)
    made = watch(tmp_path, guarded=False)
    assert made.poll() == []
    grow(tmp_path, [960])
    assert made.poll() == []


def test_a_trial_that_waits_at_a_rung_goes_on_with_all_its_earlier_points(tmp_path: Path) -> None:
    write(tmp_path, [2.0] * 4)
    write(tmp_path, [2.0] * 4, attempt=2, first=5)
    write(tmp_path, [12.0] * 8, attempt=3, first=9)
    said = watch(tmp_path, attempt=3, resumed=True).poll()
    assert [v.action for v in said if v.action == "stop"]


def test_of_ppo_the_distance_from_the_reference_is_watched_and_not_the_loss(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step, (loss, kl) in enumerate([(0.0, 1.0), (9.0, 70.0), (0.0, 80.0), (-1.0, 90.0)], 1):
        writer.write(Point(t=1.0, step=step, loss=loss, grad_norm=1.0, more={"kl": kl}))
    writer.close()
    (said,) = watch(tmp_path, stage="ppo", kl_target=6.0).poll()
    assert (said.action, said.step) == ("stop", 4) and "ppo_target" in said.reason
    assert watch(tmp_path, stage="ppo").poll() == []


def test_a_range_test_is_left_to_diverge(tmp_path: Path) -> None:
    task = TrialTask(trial=1, attempt=1, kind="range", budget=1.0, device="cpu")
    write_record(tmp_path / "task.json", task)
    write(tmp_path, [2.0, math.nan])
    assert watch(tmp_path).poll() == []


def test_a_rise_in_the_warm_up_of_the_full_trainings_schedule_is_waited_out(tmp_path: Path) -> None:
    write(tmp_path, [2.0] * 6 + [4.2] * 8 + [2.0])
    assert "stop" in [v.action for v in watch(tmp_path, warmup_ratio=0.15).poll()]
    task = TrialTask(trial=1, attempt=1, kind="probe", budget=0.2, device="cpu", schedule="full")
    write_record(tmp_path / "task.json", task)
    assert [v for v in watch(tmp_path, warmup_ratio=0.15).poll() if v.action == "stop"] == []


def test_the_warm_up_is_as_long_as_the_worker_says(tmp_path: Path) -> None:
    write(tmp_path, [2.0] * 6 + [4.2] * 8 + [2.0])
    made = watch(tmp_path, warmup_steps=2)
    run = RunInfo(1, 20, 100, 10.0, 1, 1, 0, 1, 1, "fp32", "CPU", {}, 0.1, warmup_steps=16)
    write_record(tmp_path / "run.json", run)
    assert [v for v in made.poll() if v.action == "stop"] == []


def test_silence_is_told_once_and_its_end_once(tmp_path: Path) -> None:
    write(tmp_path, [2.0, 2.0])
    made = watch(tmp_path)
    made.poll()
    said = [text for n in range(400) if (text := made.stalled(float(n))) is not None]
    assert len(said) == 1 and "since step 2" in said[0]
    write(tmp_path, [2.0], first=3)
    made.poll()
    assert [made.stalled(400.0), made.stalled(401.0)] == ["", None]


def test_a_trial_that_saves_its_pause_is_not_called_stalled(tmp_path: Path) -> None:
    made = watch(tmp_path)
    made.asked_at = 0.0
    assert [made.stalled(float(n)) for n in range(0, 3000, 10)] == [None] * 300


def test_settings_that_were_changed_by_hand_are_told_once_as_the_attempt_goes_on(
    tmp_path: Path,
) -> None:
    changed = {
        "train.weight_decay": "train.weight_decay 0.01 → 0.5",
        "train.optim": 'train.optim "adamw_torch" → "adamw_8bit"',
    }
    run = RunInfo(2, 20, 100, 10.0, 1, 1, 0, 1, 1, "fp32", "CPU", {}, 0.1, changed=changed)
    write_record(tmp_path / "run.json", run)
    # A memory fix is what the study itself has decided, and has told.
    made = Watch(
        TrialFolder(tmp_path), 2, TrainTable(), guarded=True, resumed=True, decided={"train.optim"}
    )
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step in (9, 10):
        writer.write(Point(t=time.time() + 60, step=step, attempt=2, loss=2.0))
    writer.close()
    (said,) = made.poll()
    assert (said.action, said.step) == ("warn", 9)
    assert "train.weight_decay 0.01 → 0.5" in said.reason and "optim" not in said.reason
    assert made.poll() == []
