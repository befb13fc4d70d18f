"""The dry run against real allocations: python -m bench memory real_cpu

The worker's own trial, Trainer and all, trains a small model on this CPU, and every allocation of its tensors is logged
as the dry run logs those of its fake ones. Both must come to the same peaks in each part of a run, but for the batch
that the data loader has fetched ahead (24 bytes a token) and a few numbers of the Trainer's.
"""

import json
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import torch

from bench.memory.goal import reached
from core.dryrun.lengths import measure
from core.dryrun.prove import prove
from core.dryrun.summary import Peak, peak
from core.dryrun.tracker import Tracker
from core.memory.forecast import Forecast, Target
from core.profile import DEMO_MODEL, Profile, loads, save
from core.study.files import TRIAL_FILE, Moment, TrialTask
from core.study.metrics import MetricsWriter
from core.train.moments import Memory
from core.train.plan import Plan
from core.train.precision import Numbers
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.trial import Loaded, Trial

HOST = Target(kind="cpu", total=64 * 2**30, free=64 * 2**30)
LENGTH = 64
ROWS = 16
MOMENTS: tuple[Moment, ...] = ("forward", "backward", "optimizer", "eval")


@dataclass(frozen=True, slots=True)
class Compared:
    """The same run, real and simulated."""

    name: str
    real: Peak
    forecast: Forecast

    def errors(self) -> dict[str, float]:
        """In per cent of what is real, by the part of the run."""
        return {
            moment: 100 * (self.forecast.moments[moment] / self.real.moments[moment] - 1)
            for moment in MOMENTS
            if moment in self.real.moments
        }


class _Marking(Memory):
    """Tells a tracker which part of the run begins."""

    tracker: Tracker
    updates = 1

    def enter(self, moment: Moment) -> None:
        if moment == "forward" and self.moment == "optimizer":
            self.updates += 1
        super().enter(moment)
        self.tracker.begin(moment, self.updates)


class _Watched(Trial):
    """A trial whose tensors are logged from when its model has been loaded."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tracker = Tracker()

    def _start_libraries(self) -> Numbers:
        numbers = super()._start_libraries()
        self._memory = _Marking("cpu")
        self._memory.tracker = self.tracker
        return numbers

    def _load(self) -> Loaded:
        loaded = super()._load()
        self.tracker.begin("load", 0)
        held = (*loaded.model.parameters(), *loaded.model.buffers())
        self.tracker.adopt((*held, *_scales(loaded.model)), "weights")
        return loaded

    def _make_trainer(self, loaded: Loaded, plan: Plan, writer: MetricsWriter | None) -> Any:
        made = super()._make_trainer(loaded, plan, writer)
        self.tracker.__enter__()
        return made


def _scales(model: Any) -> list[Any]:
    """What bitsandbytes keeps beside its packed weights, which no operation shows."""
    states = [getattr(weight, "quant_state", None) for weight in model.parameters()]
    held = [s for s in states if s is not None]
    held += [s.state2 for s in held if s.state2 is not None]
    found = [tensor for s in held for tensor in (s.absmax, s.code, getattr(s, "offset", None))]
    return [tensor for tensor in found if tensor is not None]


def compare(name: str, profile: Profile, folder: Path) -> Compared:
    """Train `profile` for real in `folder`, and simulate it."""
    # A trial hides what it does not need itself (core.train.startup), and what has been imported stays.
    import datasets  # noqa: F401

    folder.mkdir(parents=True)
    save(profile, folder / TRIAL_FILE)
    task = TrialTask(trial=1, attempt=1, kind="full", budget=1.0, device="cpu", threads=1)
    trial = _Watched(folder, task, profile, Requests(), Stopwatch())
    if sys.modules.get("bitsandbytes", sys) is None:
        # An earlier trial hid it; the next may need it.
        del sys.modules["bitsandbytes"]
    try:
        with redirect_stdout(StringIO()):
            trial.run()
    finally:
        if trial.tracker.old_dispatch_mode_flags:
            trial.tracker.__exit__(None, None, None)
    real = peak(trial.tracker)
    return Compared(name, real, prove(profile, HOST, measure(profile)))


def write_rows(file: Path, stage: str = "sft") -> None:
    """Rows for `stage` that all make batches of the same width."""
    rows = (row_of(stage, n) for n in range(ROWS))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def row_of(stage: str, number: int) -> dict[str, Any]:
    """A row whose answer is longer than LENGTH tokens, and so cut off; a pair's worse one is shorter, and padded."""
    said, other = f"{number} " + "hello " * 200, "good bye"
    match stage:
        case "rm" | "dpo":
            return {"instruction": "Say it", "chosen": said, "rejected": other}
        case "kto":
            return {"instruction": "Say it", "output": said, "kto_tag": number % 2 == 0}
        case _:
            return {"instruction": "Say it", "output": said}


def base(data: Path, model: Path = DEMO_MODEL) -> Profile:
    """What all runs have in common."""
    text = (
        f'[model]\nmodel_name_or_path = "{model}"\n[data]\ndataset = "{data}"\n'
        f"cutoff_len = {LENGTH}\nval_size = 4\n"
        "[train]\nmax_steps = 2\nper_device_train_batch_size = 2\ngradient_accumulation_steps = 2\n"
    )
    return loads(text)


METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"method.use_dora": True},
    "freeze": {"method.finetuning_type": "freeze"},
    "full": {"method.finetuning_type": "full"},
}
PRECISIONS = ("fp32", "bf16", "pure_bf16")
OTHERS: dict[str, dict[str, Any]] = {
    "full, chunked loss": {"method.finetuning_type": "full", "train.loss_chunk_tokens": 32},
    "full, no accumulation": {
        "method.finetuning_type": "full",
        "train.gradient_accumulation_steps": 1,
    },
    "full, fused": {"method.finetuning_type": "full", "train.optim": "adamw_torch_fused"},
    "full, adafactor": {"method.finetuning_type": "full", "train.optim": "adafactor"},
    "lora, eager": {"model.attn": "eager"},
    "lora, every second layer": {
        "train.gradient_checkpointing": True,
        "train.gradient_checkpointing_every": 2,
    },
    "lora, noise": {"train.neftune_noise_alpha": 5.0},
    "lora, dropout": {"method.lora_dropout": 0.1},
}
LOSSES: dict[str, dict[str, Any]] = {
    "rm": {"method.stage": "rm"},
    **{
        f"dpo {loss}": {"method.stage": "dpo", "alignment.pref_loss": loss}
        for loss in ("sigmoid", "ipo", "hinge", "orpo", "simpo")
    },
    "dpo ftx": {"method.stage": "dpo", "alignment.pref_ftx": 0.5},
    "dpo smoothed": {"method.stage": "dpo", "alignment.dpo_label_smoothing": 0.1},
    "kto": {"method.stage": "kto"},
}
"""The stages whose answers somebody has judged, with every loss that they have."""
JUDGED = ("rm", "dpo sigmoid", "dpo simpo", "kto")
"""Those that are tried with every method."""


def runs() -> dict[str, dict[str, Any]]:
    """What is compared: its changes of the base profile, by its name."""
    made = {
        f"{method}, {precision}{', checkpointing' if checkpointing else ''}": {
            **changes,
            "train.precision": precision,
            "train.gradient_checkpointing": checkpointing,
        }
        for (method, changes), precision, checkpointing in product(
            METHODS.items(), PRECISIONS, (False, True)
        )
    }
    return {**made, **OTHERS, **judged()}


def judged() -> dict[str, dict[str, Any]]:
    """The same of stages rm, dpo and kto."""
    freely = {"lora": {}, "lora, 4 bits": {"model.quantization_bit": 4}, **METHODS}
    made: dict[str, dict[str, Any]] = {}
    for loss, changes in LOSSES.items():
        made |= {f"{loss}, lora": changes}
        if loss not in JUDGED:
            continue
        for method, more in freely.items():
            made[f"{loss}, {method}"] = changes | more
            made[f"{loss}, {method}, bf16, checkpointing"] = {
                **changes, **more, "train.precision": "bf16", "train.gradient_checkpointing": True,
            }  # fmt: skip
    return made


def main(arguments: list[str]) -> int:
    """Print the errors of each run; the names of some of them may be given. 1 where the goal is missed."""
    torch.set_num_threads(1)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        data = {stage: Path(folder) / f"{stage}.jsonl" for stage in ("sft", "rm", "dpo", "kto")}
        for stage, file in data.items():
            write_rows(file, stage)
        for number, (name, changes) in enumerate(runs().items()):
            if arguments and name not in arguments:
                continue
            stage = str(changes.get("method.stage", "sft"))
            profile = base(data[stage]).with_changes(changes)
            found = compare(name, profile, Path(folder) / str(number))
            errors = found.errors()
            worst = max(worst, *(abs(e) for e in errors.values()))
            real = found.real.size / 2**20
            said = "  ".join(f"{moment} {error:+.3f} %" for moment, error in errors.items())
            print(f"{name:<36}{real:8.2f} MiB  {said}", flush=True)
    print(f"worst {worst:.3f} %")
    return 0 if reached("worst error of any moment", worst, 1.0, "%") else 1
