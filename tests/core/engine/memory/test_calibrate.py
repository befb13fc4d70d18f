from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.engine.endings import Facts, Outcome, classify
from core.engine.memory.calibrate import learn, measurement
from core.memory.calibration import load
from core.memory.forecast import GIB
from core.study.files import RunInfo, TrialForecast, WorkerReport
from core.study.metrics import Point
from core.study.state import Attempt, Trial

RUN = RunInfo(
    1, 10, 50, 5.0, 100, 10, 0, 1, 2, "bf16", "NVIDIA H100", {"torch": "2.8.0+cu128"}, 9.0
)
FORECAST = TrialForecast(
    attempt=1, shape="s", tier="proof", device="NVIDIA H100", allocated=17 * GIB, reserved=18 * GIB,
    needed=17 * GIB, context=GIB, capacity=70 * GIB, guard=0.08, parts={"weights": 17 * GIB},
    moments={"backward": 17 * GIB}, peak="backward",
)  # fmt: skip
REPORT = WorkerReport(
    1, "completed", "done", step=10, loss=1.0, peak_memory=16 * GIB, peak_reserved=19 * GIB,
    moments={"backward": 16 * GIB}, context_bytes=GIB // 2,
)  # fmt: skip


def facts(device: Any = "cuda", **more: Any) -> Facts:
    given: dict[str, Any] = {"report": REPORT, "run": RUN, "forecast": FORECAST, **more}
    points = [Point(t=1.0, step=10, attempt=1, loss=1.0)]
    trial = Trial(1, {}, status="running", attempts=(Attempt(1, device),))
    return Facts(
        trial=trial, attempt=1, exit=None, points=points, log_tail="", limit_gib=None, checkpoint=None, **given
    )  # fmt: skip


def ended(given: Facts) -> Outcome:
    return classify(given, 9.0)


def test_what_a_trial_needed_is_kept_beside_its_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    given = facts()
    assert learn(given, ended(given))
    (kept,) = load()
    assert (kept.gpu, kept.torch, kept.tier) == ("NVIDIA H100", "2.8.0+cu128", "proof")
    assert (kept.forecast_allocated, kept.allocated) == (17 * GIB, 16 * GIB)
    assert (kept.reserved, kept.context) == (19 * GIB, GIB // 2)
    assert kept.moments == {"backward": 16 * GIB}


def test_the_ending_carries_forecast_and_measurement() -> None:
    event = ended(facts()).event
    assert (event.forecast, event.peak_memory, event.proven) == (17 * GIB, 16 * GIB, True)
    assert event.peak_reserved == 19 * GIB


@pytest.mark.parametrize(
    "given",
    [
        {"device": "cpu"},
        {"forecast": None},
        {"run": None},
        {"report": msgspec.structs.replace(REPORT, step=1)},
        {"report": msgspec.structs.replace(REPORT, peak_reserved=None)},
        {"report": WorkerReport(1, "failed", "train", step=5, error_type="torch.OutOfMemoryError", error="", peak_memory=1, peak_reserved=1)},
    ],
)  # fmt: skip
def test_without_a_whole_training_on_a_gpu_nothing_is_learnt(given: dict[str, Any]) -> None:
    made = facts(**given)
    assert measurement(made, ended(made)) is None


def out_of_memory(**more: Any) -> WorkerReport:
    return msgspec.structs.replace(
        REPORT, peak_reserved=69 * GIB, outcome="failed", phase="train", step=0, error_type="torch.OutOfMemoryError",
        error="CUDA out of memory. Tried to allocate 2.00 GiB.", moment="backward", **more,
    )  # fmt: skip


class TestOutOfMemoryAlthoughItWasToFit:
    def test_the_ending_says_so(self) -> None:
        outcome = ended(facts(report=out_of_memory()))
        assert (outcome.event.ending, outcome.missed) == ("oom", True)
        assert outcome.event.reason.endswith("A dry run had shown that it fits (17.0 of 70.0 GiB).")

    @pytest.mark.parametrize("run", [RUN, None])
    def test_it_is_kept_as_a_forecast_that_was_wrong(self, run: RunInfo | None) -> None:
        given = facts(report=out_of_memory(), run=run)
        kept = measurement(given, ended(given))
        assert kept is not None
        assert (kept.gpu, kept.missed) == ("NVIDIA H100", True)

    @pytest.mark.parametrize(
        "forecast",
        [
            msgspec.structs.replace(FORECAST, tier="estimate"),
            msgspec.structs.replace(FORECAST, capacity=17 * GIB),
            None,
        ],
    )
    def test_what_promised_nothing_was_not_wrong(self, forecast: TrialForecast | None) -> None:
        given = facts(report=out_of_memory(), forecast=forecast)
        outcome = ended(given)
        assert not outcome.missed
        assert "dry run" not in outcome.event.reason
        assert measurement(given, outcome) is None

    def test_what_wanted_less_than_was_forecast_found_less_than_there_was_to_be(self) -> None:
        early = msgspec.structs.replace(out_of_memory(), peak_reserved=3 * GIB, peak_memory=3 * GIB)
        assert not ended(facts(report=early)).missed

    def test_a_neighbours_memory_is_no_fault_of_the_forecast(self) -> None:
        error = (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.00 GiB "
            "is free. Process 4242 has 60.00 GiB memory in use. Including non-PyTorch memory, this process has "
            "18.00 GiB memory in use. Of the allocated memory 17.00 GiB is allocated by PyTorch, and 500.00 MiB is "
            "reserved by PyTorch but unallocated."
        )
        outcome = ended(facts(report=msgspec.structs.replace(out_of_memory(), error=error)))
        assert (outcome.neighbour, outcome.missed) == (True, False)
