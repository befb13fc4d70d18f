"""Checks of memory forecasts: what is forecast before a run is held against what the run then measures.

Every run is the real worker in a process of its own, on a model of a well-known shape with random weights, three
updates long. All forecasts are written before the first run.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from core.engine.memory.target import target_from
from core.memory.architecture import find_architecture
from core.memory.fixes import Advice, find_fixes
from core.memory.forecast import GUARD_UNKNOWN, Forecast, Lengths, Target, capacity, fit
from core.memory.oom import Evidence, read_ending
from core.memory.prover import ProofError, Prover
from core.profile import Profile, from_document, save
from core.study.files import (
    METRICS_FILE,
    REPORT_FILE,
    RUN_FILE,
    TASK_FILE,
    TRIAL_FILE,
    RunInfo,
    TrialTask,
    WorkerReport,
    read_record,
    write_record,
)
from core.study.metrics import read_points
from core.values import Scalar
from scripts.gpu.place import (
    GIB,
    ROOT,
    CheckFailedError,
    Place,
    SkippedError,
    program,
    require,
)
from scripts.gpu.report import Figures

STEPS = 3
WITHIN_TWO_PERCENT = 0.95
"""The share of the runs whose allocated peak the forecast has to meet within 2 %."""
LIMITS = (0.94, 0.97, 1.0, 1.03, 1.08)
"""Shares of the forecast capacity that a run is given, to find the smallest that it survives."""
PATIENCE = 150.0
"""Seconds for one run: loading 13 GB of weights from a slow disk is most of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A profile that is forecast and run."""

    name: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run came out."""

    report: WorkerReport | None
    run: RunInfo | None
    tokens_per_s: float | None
    seconds_a_step: float | None
    log: str

    @property
    def survived(self) -> bool:
        return self.report is not None and self.report.outcome == "completed"

    def ran_out(self) -> bool:
        """Whether memory is what ended it."""
        report = self.report
        if report is None or report.outcome != "failed":
            return False
        evidence = Evidence(
            returncode=1,
            worker_error_type=report.error_type,
            worker_error_message=report.error,
            device="cuda",
        )
        return read_ending(evidence) is not None

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.report is None:
            return f"no report: {self.log[-300:]}"
        return self.report.error or self.report.outcome


def profile_of(place: Place, shape: str, **changes: Scalar) -> Profile:
    """A run of `shape` on rows that fill data.cutoff_len, with `changes`."""
    base = from_document(
        {
            "profile": {"name": shape},
            "model": {"model_name_or_path": str(place.material / "shapes" / shape)},
            "data": {
                "dataset": str(place.material / "shapes" / "long.jsonl"),
                "val_size": 0,
            },
            "train": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "learning_rate": 1e-5,
            },
        }
    )
    return base.with_changes(changes)


def cases(place: Place) -> list[Case]:
    """Shapes × methods × checkpointing × lengths."""
    methods: dict[str, dict[str, Scalar]] = {
        "full": {"finetuning_type": "full"},
        "lora": {"lora_rank": 16},
        "qlora": {"lora_rank": 16, "quantization_bit": 4},
    }
    shapes = ("0.5b", "1.1b", "7b") if place.on_gpu else ("tiny",)
    lengths = (512, 4096) if place.on_gpu else (128, 256)
    return [
        Case(
            f"{shape} {method}{' checkpointing' if checkpointing else ''} {length}",
            profile_of(
                place,
                shape,
                cutoff_len=length,
                gradient_checkpointing=checkpointing,
                # More rows where they are short: a step of a small model would measure little.
                per_device_train_batch_size=4 if length == lengths[0] else 1,
                **changes,
            ),
        )
        for shape in shapes
        for method, changes in methods.items()
        for checkpointing in (False, True)
        for length in lengths
    ]


def build(place: Place) -> None:
    """Build the models, once for all checks of this file."""
    folder = place.material / "shapes"
    if not folder.exists():
        names = ("0.5b", "1.1b", "7b", "tiny") if place.on_gpu else ("tiny",)
        program("shapes.py", str(folder), *names, uuid=place.uuid, timeout=PATIENCE)


def target(place: Place, profile: Profile) -> Target:
    """The device that is checked, for a run of `profile`.

    Raises:
        CheckFailedError: the driver does not tell its memory.
    """
    found = target_from(place.gpu() if place.on_gpu else None, profile)
    if found is None:
        raise CheckFailedError("the driver does not tell how much memory the GPU has")
    return found


def lengths(profile: Profile) -> Lengths:
    """The rows fill data.cutoff_len."""
    return Lengths(profile.data.cutoff_len, 0, measured=True)


def forecasts(place: Place) -> Figures:
    """Forecasts that are written first are met by the runs, and what is proven to fit does not run out."""
    build(place)
    chosen = cases(place)
    onto = target(place, chosen[0].profile)
    forecast: dict[str, Forecast] = {}
    longest = Lengths(max(c.profile.data.cutoff_len for c in chosen), 0, measured=True)
    with Prover(processes=8 if place.on_gpu else 2) as prover:
        proofs = prover.prove_all([c.profile for c in chosen], onto, longest)
    for case, proof in zip(chosen, proofs, strict=True):
        if isinstance(proof, ProofError):
            raise CheckFailedError(f"{case.name} cannot be proven: {proof}")
        forecast[case.name] = proof
    written: Figures = {
        "forecasts written, all before the first run": datetime.now(UTC).isoformat(
            timespec="seconds"
        )
    }
    ran = run_all(place, chosen, forecast, onto)
    return written | compared(chosen, forecast, ran, onto)


def compared(
    chosen: Sequence[Case], forecast: dict[str, Forecast], ran: dict[str, Ran], onto: Target
) -> Figures:
    """The figures of all runs.

    Raises:
        CheckFailedError: a run that was proven to fit ran out of memory, or the forecasts miss their mark.
    """
    figures: Figures = {}
    errors: list[float] = []
    reserved_errors: list[float] = []
    wrong: list[str] = []
    for case in chosen:
        expected, run = forecast[case.name], ran[case.name]
        verdict = fit(expected, onto, GUARD_UNKNOWN)
        if run.survived and run.report is not None:
            measured = run.report.peak_memory or 0
            reserved = run.report.peak_reserved or 0
            # On the CPU the whole process is what can be measured.
            said = expected.allocated if onto.kind == "cuda" else expected.total
            error = said / measured - 1
            errors.append(abs(error))
            if reserved:
                reserved_errors.append(abs(expected.reserved / reserved - 1))
            figures[case.name] = (
                f"forecast {said / GIB:.2f}, measured {measured / GIB:.2f} GiB ({error:+.1%}), "
                f"reserved {expected.reserved / GIB:.2f} and {_gib(run.report.peak_reserved)}, "
                f"context {expected.context / GIB:.2f} and {_gib(run.report.context_bytes)}; "
                f"{_moments(expected, run.report)}; {run.seconds_a_step or 0:.3f} s a step"
            )
        else:
            figures[case.name] = f"forecast {expected.total / GIB:.2f} GiB; {run.ending[:120]}"
            if verdict.fits and verdict.proven:
                wrong.append(f"{case.name} was proven to fit: {run.ending}")
            elif not run.ran_out():
                wrong.append(f"{case.name} failed of something else: {run.ending}")
    require(not wrong, "; ".join(wrong))
    require(bool(errors), "no run survived")
    close = sum(e <= 0.02 for e in errors) / len(errors)
    figures |= {
        "runs that survived": len(errors),
        "allocated, mean error": round(statistics.fmean(errors), 4),
        "allocated, worst error": round(max(errors), 4),
        "allocated, share within 2 %": round(close, 3),
    }
    if reserved_errors:
        figures["reserved, mean error"] = round(statistics.fmean(reserved_errors), 4)
        require(close >= WITHIN_TWO_PERCENT, f"only {close:.0%} of the runs are within 2 %")
    return figures


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.2f}"


def _moments(expected: Forecast, report: WorkerReport) -> str:
    """The peaks of each part of the run: forecast and measured, GiB."""
    said = ", ".join(
        f"{moment} {size / GIB:.2f} and {_gib((report.moments or {}).get(moment))}"
        for moment, size in expected.moments.items()
    )
    return said or "no parts"


def smallest(place: Place) -> Figures:
    """The smallest capacity that a run survives is what the replay says, within the guard band."""
    if not place.on_gpu:
        raise SkippedError("what is checked is the CUDA allocator's share")
    build(place)
    figures: Figures = {}
    wrong = []
    for case in (c for c in cases(place) if c.name in _BISECTED):
        onto = target(place, case.profile)
        with Prover() as prover:
            needed = prover.prove(case.profile, onto, lengths(case.profile)).needed
        limited = {
            share: case.profile.with_changes({"limit_gib": share * needed / GIB})
            for share in LIMITS
        }
        runs = {
            share: run(place, Case(f"{case.name} {share}", profile))
            for share, profile in limited.items()
        }
        survived = sorted(share for share, ran in runs.items() if ran.survived)
        figures[case.name] = (
            f"needs {needed / GIB:.2f} GiB by the replay; survived "
            f"{', '.join(f'{s:.2f}' for s in survived) or 'none'} of it"
        )
        if not runs[LIMITS[-1]].survived:
            wrong.append(f"{case.name} ran out with the guard band: {runs[LIMITS[-1]].ending}")
    require(not wrong, "; ".join(wrong))
    return figures


def fixes(place: Place) -> Figures:
    """Every fix that is offered first for a run that really ran out of memory really trains."""
    build(place)
    figures: Figures = {}
    wrong = []
    for case in _too_large(place):
        ran = run(place, case)
        require(ran.ran_out(), f"{case.name} did not run out of memory: {ran.ending}")
        began = time.monotonic()
        advice = _advice(case.profile, target(place, case.profile))
        seconds = time.monotonic() - began
        if not advice.fixes:
            wrong.append(f"{case.name}: nothing was offered ({advice.problem})")
            continue
        first = advice.fixes[0]
        mended = run(place, Case(f"{case.name} mended", case.profile.with_changes(first.changes)))
        figures[case.name] = f"{first.text}: {mended.ending}; found in {seconds:.1f} s"
        if not mended.survived:
            wrong.append(f"{case.name}, {first.text}: {mended.ending}")
    require(not wrong, "; ".join(wrong))
    return figures


def _advice(profile: Profile, onto: Target) -> Advice:
    """What is offered for a run of `profile` that has run out of memory."""
    with Prover(processes=2) as prover:
        return find_fixes(
            profile,
            find_architecture(profile),
            onto,
            lengths(profile),
            lambda wanted: prover.prove_all(list(wanted), onto, lengths(profile)),
            guard=GUARD_UNKNOWN,
            crashed=True,
        )


def slowdowns(place: Place) -> Figures:
    """What each change that saves memory costs in time (figures only: they hold for this machine)."""
    build(place)
    shape, batch = ("1.1b", 8) if place.on_gpu else ("tiny", 4)
    base: dict[str, Scalar] = {
        "cutoff_len": 1024, "per_device_train_batch_size": batch, "max_steps": 8, "lora_rank": 16,
    }  # fmt: skip
    figures: Figures = {}
    for method in ("lora", "full"):
        plain = _speed(place, shape, {**base, "finetuning_type": method})
        figures[f"{method}, tokens/s"] = round(plain)
        for name, changes in _changes(batch, method, place.on_gpu).items():
            rate = _speed(place, shape, {**base, "finetuning_type": method, **changes})
            figures[f"{method}, {name}, time per token"] = round(plain / rate, 3)
    return figures


def _changes(batch: int, method: str, on_gpu: bool) -> dict[str, dict[str, Scalar]]:
    every: dict[str, dict[str, Scalar]] = {
        "batch halved": {
            "per_device_train_batch_size": batch // 2, "gradient_accumulation_steps": 2,
        },
        "batch 1": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch},
        "checkpointing": {"gradient_checkpointing": True},
        "checkpointing every 2nd": {
            "gradient_checkpointing": True, "gradient_checkpointing_every": 2,
        },
        "chunked loss": {"loss_chunk_tokens": 1024},
        "activations offloaded": {"offload_activations": True},
    }  # fmt: skip
    lora: dict[str, dict[str, Scalar]] = {
        "4 bits": {"quantization_bit": 4},
        "8 bits": {"quantization_bit": 8},
    }
    full: dict[str, dict[str, Scalar]] = {
        "optimizer offloaded": {"offload_optimizer": True},
        "adafactor": {"optim": "adafactor"},
    }
    cuda: dict[str, dict[str, Scalar]] = {
        "fused": {"optim": "adamw_torch_fused"},
        "8-bit AdamW": {"optim": "adamw_8bit"},
        "paged 8-bit AdamW": {"optim": "paged_adamw_8bit"},
    }
    own = lora if method == "lora" else {**full, **(cuda if on_gpu else {})}
    return {**every, **own}


def _speed(place: Place, shape: str, changes: dict[str, Scalar]) -> float:
    """Tokens a second.

    Raises:
        CheckFailedError: the run failed.
    """
    ran = run(place, Case("speed", profile_of(place, shape, **changes)))
    require(ran.survived and ran.tokens_per_s is not None, f"{changes}: {ran.ending}")
    return ran.tokens_per_s or 0.0


_BISECTED = (
    "0.5b full 512", "0.5b lora checkpointing 4096", "1.1b qlora 512",
    "1.1b full checkpointing 4096",
)  # fmt: skip


def _too_large(place: Place) -> Iterable[Case]:
    """Runs that do not fit."""
    if not place.on_gpu:
        # On the CPU the limit counts the process itself as well.
        yield Case("tiny full", profile_of(place, "tiny", finetuning_type="full", cutoff_len=2048,
                                           per_device_train_batch_size=16, limit_gib=1.0))  # fmt: skip
        return
    yield Case("7b full 512", profile_of(place, "7b", finetuning_type="full", cutoff_len=512))
    yield Case("0.5b full 4096, limit 16", profile_of(
        place, "0.5b", finetuning_type="full", cutoff_len=4096, per_device_train_batch_size=4,
        limit_gib=16.0))  # fmt: skip
    yield Case("1.1b lora 4096, limit 16", profile_of(
        place, "1.1b", cutoff_len=4096, per_device_train_batch_size=4, limit_gib=16.0))  # fmt: skip


def run_all(
    place: Place, chosen: Sequence[Case], forecast: dict[str, Forecast], onto: Target
) -> dict[str, Ran]:
    """Run all cases, side by side as far as the device has room for what is forecast."""
    waiting = sorted(chosen, key=lambda c: forecast[c.name].total)
    room = capacity(onto, 0) * 0.85
    found: dict[str, Ran] = {}
    while waiting:
        together = [waiting.pop(0)]
        taken = forecast[together[0].name].total
        while waiting and len(together) < 4 and taken + forecast[waiting[0].name].total <= room:
            together.append(waiting.pop(0))
            taken += forecast[together[-1].name].total
        with ThreadPoolExecutor(len(together)) as pool:
            found |= zip(
                (c.name for c in together), pool.map(lambda c: run(place, c), together), strict=True
            )
    return found


def run(place: Place, case: Case, *, keep: bool = False) -> Ran:
    """Train a case in a fresh process, and read what it left; `keep` the weights."""
    folder = place.folder / case.name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (REPORT_FILE, RUN_FILE, METRICS_FILE):
        (folder / stale).unlink(missing_ok=True)
    save(case.profile.as_training(), folder / TRIAL_FILE)
    gpus = (place.uuid,) if place.on_gpu else ()
    kind: Literal["full", "probe"] = "full" if keep else "probe"
    task = TrialTask(1, 1, kind, 1.0, place.device, gpus, save_model=keep)
    write_record(folder / TASK_FILE, task)
    command = [sys.executable, "-P", str(ROOT / "tunedeck.py"), "_worker", str(folder)]
    patience = min(PATIENCE, place.deadline - time.monotonic())
    require(patience > 0, "no time was left")
    log = folder / "log.txt"
    with log.open("wb") as out:
        try:
            subprocess.run(command, stdout=out, stderr=out, timeout=patience, check=False)
        except subprocess.TimeoutExpired:
            raise CheckFailedError(f"{case.name} did not end within {patience:.0f} s") from None
    points = [p for p in read_points(folder / METRICS_FILE) if p.tokens_per_s]
    # The first updates choose kernels and fill caches.
    rates = [p.tokens_per_s for p in points[2:] or points if p.tokens_per_s]
    steps = [after.t - before.t for before, after in pairwise(points)]
    return Ran(
        read_record(folder / REPORT_FILE, WorkerReport),
        read_record(folder / RUN_FILE, RunInfo),
        statistics.median(rates) if rates else None,
        min(steps) if steps else None,
        log.read_text(errors="replace"),
    )
