"""A source of data that touches neither disk nor socket nor driver, and notes what it is asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.devices.gpu import GpuProcess, GpuReading, GpuSnapshot
from core.devices.host import HostSnapshot
from core.doctor import Finding
from core.engine.messages import Reply, Request
from core.study.events import (
    AnyEvent,
    FixSuggested,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarted,
    TrialStarting,
    Warned,
)
from core.study.files import ProcessRecord, RunInfo, TrialForecast
from core.study.metrics import Point
from core.study.state import StudyState, apply
from tests.tui.fake_data import FakePreview
from tests.tui.fake_memory import FakeDesk
from tests.tui.fake_range import FakeWatch
from tui.curve import Curve, CurveBuilder
from tui.snapshot import LogTail, StudyReading, StudySummary, summarise
from tui.source import DeviceReading, SourceError, StudyFeed, Wanted

NOW = 1_800_000_000.0
GPU_UUID = "GPU-11111111-2222-3333-4444-555555555555"
FOLDER = Path("/studies/sft-night")
RANGE_FOLDER = Path("/studies/sft-night-lr-range")
STEPS = 120
PROFILE = {
    "learning_rate": 1e-4,
    "lora_rank": 8,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
}
SPACE = {
    "learning_rate": {"low": 1e-5, "high": 3e-3, "scale": "log"},
    "lora_rank": [8, 16, 32, 64],
}


def points(
    best: float, steps: int, *, until: int | None = None, diverges: bool = False
) -> list[Point]:
    """The metrics of a trial that comes down to `best`, or explodes after two thirds of its way."""
    end = steps if until is None else until
    found = []
    for step in range(5, end + 1, 5):
        loss = best + 1.4 * 0.97**step + 0.03 * ((step * 7) % 5 - 2)
        if diverges and step > steps * 0.4:
            loss = best + 0.02 * 1.12 ** (step - steps * 0.4)
        if diverges and step >= end:
            loss = float("nan")
        evaluated = step % 40 == 0 and not diverges
        found.append(
            Point(
                t=NOW - (end - step) * 0.5,
                step=step,
                loss=loss,
                eval_loss=best + 0.06 + 1.2 * 0.97**step if evaluated else None,
                grad_norm=0.81,
                lr=2e-4 * (1 - step / steps),
                tokens=step * 4096,
                tokens_per_s=5312.0,
                mem_allocated=9 * 2**30,
                mem_reserved=int((11.3 + 0.2 * (step > 40)) * 2**30),
                mem_peak=int(11.2 * 2**30),
            )
        )
    return found


def _ended(trial: int, ending: str, loss: float | None, **more: Any) -> TrialEnded:
    defaults: dict[str, Any] = {
        "attempt": 1,
        "step": STEPS,
        "total_steps": STEPS,
        "eval_loss": None if loss is None else loss + 0.06,
        "peak_memory": int(11.2 * 2**30),
        "seconds": 64.0,
    }
    return TrialEnded(t=NOW - 300, trial=trial, ending=ending, loss=loss, **{**defaults, **more})  # type: ignore[arg-type]


def _start(trial: int, attempt: int = 1, *, ago: float = 400) -> list[AnyEvent]:
    shim = ProcessRecord(pid=4000 + trial, started=1, boot_id="boot")
    return [
        TrialStarting(t=NOW - ago, trial=trial, attempt=attempt, device="cuda", gpus=(GPU_UUID,)),
        TrialStarted(t=NOW - ago, trial=trial, attempt=attempt, shim=shim),
    ]


SETTINGS = (
    {"learning_rate": 1e-4, "lora_rank": 8},
    {"learning_rate": 3e-4, "lora_rank": 16},
    {"learning_rate": 3e-3, "lora_rank": 8},
    {"learning_rate": 1e-4, "lora_rank": 64},
    {"learning_rate": 2e-4, "lora_rank": 32},
    {"learning_rate": 5e-5, "lora_rank": 16},
    {"learning_rate": 6e-4, "lora_rank": 8},
    {"learning_rate": 1.5e-4, "lora_rank": 16},
)


def events() -> list[AnyEvent]:
    """A study in the middle of its work: every kind of ending, two live trials, two that wait."""
    log: list[AnyEvent] = [
        StudyCreated(
            t=NOW - 3600,
            version=1,
            name="sft-night",
            tunedeck="0.1.0",
            rank_by="eval_loss",
            planned=8,
        )
    ]
    log += [TrialAdded(t=NOW - 3599, trial=n, settings=s) for n, s in enumerate(SETTINGS, 1)]
    log += [*_start(1), _ended(1, "completed", 1.912)]
    log += [*_start(2), _ended(2, "completed", 1.834)]
    diverged = "the loss rose to 4.2 times its best and became NaN at step 80"
    log += [*_start(3), _ended(3, "diverged", None, step=80, reason=diverged)]
    log += [
        *_start(4),
        _ended(4, "oom", None, step=0, reason="CUDA out of memory: 23.1 of 23.6 GiB were in use"),
        FixSuggested(
            t=NOW - 290,
            trial=4,
            attempt=1,
            changes={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
            text="halve the batch from 8 to 4 and accumulate 4 steps: still 16 rows per update",
        ),
        Warned(t=NOW - 289, text="GPU 0 was busy with another user's process for 40 s", trial=4),
    ]
    log += [*_start(5, ago=60), *_start(6, ago=40)]
    return log


def curves() -> dict[int, list[Point]]:
    """The metrics of that study."""
    return {
        1: points(1.9, STEPS),
        2: points(1.82, STEPS),
        3: points(1.9, STEPS, until=80, diverges=True),
        5: points(1.86, STEPS, until=85),
        6: points(2.0, STEPS, until=40),
    }


@dataclass
class FakeFeed:
    """A study in memory. `opened` lists the trials whose metrics were read, as often as they were."""

    source: "FakeSource"
    folder: Path = FOLDER
    state: StudyState = field(default_factory=StudyState)
    metrics: dict[int, list[Point]] = field(default_factory=dict)
    logs: dict[int, tuple[str, ...]] = field(default_factory=dict)
    forecasts: dict[int, TrialForecast] = field(default_factory=dict)
    findings: dict[int, Finding] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=lambda: dict(SPACE))
    engine: Any = "running"
    problem: str = ""
    opened: list[int] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    _kept: dict[int, tuple[Any, Curve]] = field(default_factory=dict)
    _trials: tuple[int, tuple[Any, ...]] = (-1, ())

    def tell(self, *log: AnyEvent) -> None:
        """Let something happen in the study."""
        for event in log:
            apply(self.state, event)

    def train(self, trial: int, added: Iterable[Point]) -> None:
        """Let a trial log points."""
        self.metrics.setdefault(trial, []).extend(added)

    def read(self, wanted: Wanted) -> StudyReading:
        self.wanted.append(wanted)
        state = self.state
        if self._trials[0] != state.version:
            self._trials = (state.version, tuple(state.trials.values()))
        numbers = [t.number for t in state.live()]
        drawn = () if wanted.memory is None else (wanted.memory,)
        numbers += [n for n in (*wanted.whole, *drawn, *wanted.sparks) if n not in numbers]
        return StudyReading(
            folder=self.folder,
            name=state.name,
            status=state.status,
            reason=state.reason,
            rank_by=state.rank_by,
            planned=state.planned,
            created=state.created,
            updated=state.updated,
            trials=self._trials[1],
            engine=self.engine,
            notices=tuple(state.warnings),
            curves={n: self._curve(n, wanted) for n in numbers if n in self.metrics},
            profile=PROFILE,
            log=None if wanted.log is None else LogTail(wanted.log, self.logs.get(wanted.log, ())),
            problem=self.problem,
            direction=state.direction,
            strategy=state.strategy,
            stopping=state.stopping,
            to_come=state.to_come(),
            search_on=state.search_on,
            choice=state.choice,
            decisions=tuple(state.decisions),
            space=self.space,
            results=wanted.results,
        )

    def _curve(self, number: int, wanted: Wanted) -> Curve:
        whole, memory = number in wanted.whole, number == wanted.memory
        key = (len(self.metrics[number]), whole, memory, wanted.measure)
        if number not in self._kept or self._kept[number][0] != key:
            self.opened.append(number)
            builder = CurveBuilder()
            builder.add(self.metrics[number])
            forecast = self.forecasts.get(number)
            curve = builder.digest(
                run_info(), whole=whole, forecast=forecast, memory=memory, measure=wanted.measure
            )
            curve = replace(curve, finding=self.findings.get(number) if whole else None)
            self._kept[number] = (key, curve)
        return self._kept[number][1]


def trial_forecast(**changes: Any) -> TrialForecast:
    """Of a trial on the GPU: 11.0 GiB of tensors where 11.2 are measured."""
    base: dict[str, Any] = {
        "attempt": 1,
        "shape": "a",
        "tier": "proof",
        "device": "NVIDIA RTX 4090",
        "allocated": 11 * 2**30,
        "reserved": int(11.8 * 2**30),
        "needed": int(11.4 * 2**30),
        "context": 2**29,
        "capacity": int(23.2 * 2**30),
        "guard": 0.03,
        "parts": {"weights": 4 * 2**30, "activations": 7 * 2**30},
        "moments": {"backward": 11 * 2**30},
        "peak": "backward",
    }
    return TrialForecast(**{**base, **changes})


def run_info() -> RunInfo:
    return RunInfo(
        attempt=1,
        total_steps=STEPS,
        full_steps=1200,
        steps_per_epoch=400.0,
        train_rows=6400,
        eval_rows=320,
        dropped_rows=3,
        trainable_parameters=4_194_304,
        parameters=1_100_048_384,
        precision="bf16",
        device="NVIDIA RTX 4090",
        versions={"torch": "2.13.0"},
        startup_seconds=6.1,
    )


def gpu(**changes: Any) -> GpuSnapshot:
    base = GpuSnapshot(
        index=0,
        uuid=GPU_UUID,
        name="NVIDIA RTX 4090",
        memory_total=24 * 2**30,
        memory_used=int(13.4 * 2**30),
        utilization=87,
        power_watts=312.0,
        power_limit_watts=450.0,
        temperature_c=66,
        processes=(
            GpuProcess(5005, int(11.2 * 2**30), "python -m worker"),
            GpuProcess(812, 2 * 2**30, "python serve.py"),
        ),
        mig=False,
    )
    return replace(base, **changes)


HOST = HostSnapshot(
    cpu_percent=34.0,
    cores=16,
    ram_total=64 * 2**30,
    ram_used=21 * 2**30,
    ram_limit=None,
    ram_limit_used=None,
    swap_total=0,
    swap_used=0,
    load1=4.2,
)


@dataclass
class FakeSource:
    """Two studies, one of which is the feed; everything that changes something is noted in `asked`."""

    asked: list[Any] = field(default_factory=list)
    clock: float = NOW
    reading: GpuReading = field(default_factory=lambda: GpuReading((gpu(),)))
    feeds: dict[Path, FakeFeed] = field(default_factory=dict)
    refuse: str = ""
    desk: FakeDesk = field(default_factory=FakeDesk)
    watch: FakeWatch = field(default_factory=FakeWatch)
    reply: Callable[[Request], Reply] = lambda request: Reply(True, f"{request.command} done")

    def __post_init__(self) -> None:
        feed = FakeFeed(self, metrics=curves())
        feed.tell(*events())
        feed.forecasts = {5: trial_forecast()}
        feed.logs = {5: ("loading the model", "step 80 of 120", "step 85 of 120")}
        self.feeds[FOLDER] = feed
        old = FakeFeed(self, folder=Path("/studies/first-try"), engine="idle")
        old.tell(
            StudyCreated(
                t=NOW - 90_000,
                version=1,
                name="first-try",
                tunedeck="0.1.0",
                rank_by="loss",
                planned=2,
            ),
            TrialAdded(t=NOW - 90_000, trial=1, settings={"learning_rate": 1e-4}),
            *_start(1, ago=89_000),
            _ended(1, "completed", 2.31),
            StudyChanged(t=NOW - 88_000, status="finished"),
        )
        self.feeds[old.folder] = old

    @property
    def feed(self) -> FakeFeed:
        return self.feeds[FOLDER]

    def _note(self, *what: Any) -> None:
        self.asked.append(what if len(what) > 1 else what[0])
        if self.refuse:
            raise SourceError(self.refuse)

    def now(self) -> float:
        return self.clock

    def studies(self) -> list[Path]:
        return list(self.feeds)

    def summary(self, folder: Path) -> StudySummary:
        if folder not in self.feeds:
            return StudySummary(folder, folder.name, "cannot be read", problem="it is gone")
        return summarise(self.feeds[folder].read(Wanted()))

    def open(self, folder: Path) -> StudyFeed:
        if folder not in self.feeds:
            raise SourceError(f"{folder} holds no study (no journal.jsonl in it)")
        return self.feeds[folder]

    def create(self, profile: Any) -> Path:
        self._note("create", profile)
        return FOLDER

    def create_range_test(self, profile: Any, test: Any) -> Path:
        self._note("range test", profile, test)
        return RANGE_FOLDER

    def range_test(self, folder: Path) -> Any:
        return self.watch

    def past_time(self, profile: Any) -> Any:
        return None

    def preview(self, asked: Any) -> Any:
        return FakePreview()

    def demo_profile(self) -> Any:
        return "the demo's profile"

    def delete(self, folder: Path) -> None:
        self._note("delete", folder)
        del self.feeds[folder]

    def start_engine(self, folder: Path) -> None:
        self._note("start", folder)
        self.feeds[folder].engine = "running"

    def send(self, folder: Path, request: Request) -> Reply:
        self._note(request)
        return self.reply(request)

    def profile_text(self, folder: Path, trial: int) -> str:
        return f"# trial {trial}\n[train]\nlearning_rate = 0.0003\n"

    def save_profile(self, folder: Path, trial: int, path: Path) -> None:
        self._note("save", trial, path)

    def devices(self) -> DeviceReading:
        return DeviceReading(self.reading, HOST)

    def memory(self) -> FakeDesk:
        return self.desk
