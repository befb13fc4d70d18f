"""Checks on a machine with an NVIDIA GPU what tunedeck claims about CUDA: `python scripts/gpu_check.py -o FILE`.

Everything goes through the real product: studies with a daemon, a shim and workers, on the demo's model and on a
Llama of 0.2 billion random weights that is built on the spot, so that no hub is needed. One run takes less than ten
minutes and prints a table; FILE gets the same as JSON, and is written anew after every check, so that a run that is
cut off leaves what it has found. A check that fails stops no other; its logs' ends stand beside it. All files are
in a temporary folder that goes when the run ends. The packages may be installed, or lie in a folder that PYTHONPATH
names; tunedeck itself need not be installed. One GPU is used, the first that nobody else computes on, and a second
one, where there is one, for the check of trials that have two. The exit code is 0 when nothing failed, 1 when a check
did, 2 when there is nothing to check on. The checks are CHECKS, below, with `--memory` MEMORY_CHECKS and with
`--stages` STAGE_CHECKS, which take ten minutes of their own; FILE keeps what it says of the others. Some can be named
with `--only`. No CUDA context lives in this process: it would be a foreign one to the studies.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core.devices.gpu import GpuReader, GpuSnapshot, NvmlReader, visible
from core.devices.lease import busy_reason
from core.version import VERSION
from scripts.gpu import forecasts, leases, memory, sharing, stages, training
from scripts.gpu.place import (
    CheckFailedError,
    Place,
    SkippedError,
    clean_up,
    evidence,
    gather_facts,
    program,
)
from scripts.gpu.report import Figures, Report, Result, headline, read, table, write

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers",
            "nvidia-ml-py")  # fmt: skip
WITHIN = 570.0
"""Seconds for a run: a little less than the ten minutes that a lent machine often gives a command."""
BUILD_TIME = 150.0
LEAST_TIME = 15.0
"""Seconds that must be left for a check to begin: less would be a failure of the clock."""


@dataclass(frozen=True, slots=True)
class Check:
    """One claim and the function that checks it. `seconds` is the most that it may take."""

    name: str
    claim: str
    run: Callable[[Place], Figures]
    seconds: float
    needs_gpu: bool = False


CHECKS = (
    Check("nvml", "NVML's reading is whole and agrees with PyTorch and nvidia-smi", leases.nvml, 60, True),
    Check("methods", "every method and precision trains, with a falling loss", training.methods, 240),
    Check("oom-limit", "a memory limit reached is read, mended and retried", memory.oom_limit, 150),
    Check("oom-device", "a full GPU is read as such and given back", memory.oom_device, 90),
    Check("limit", "memory.limit_gib is obeyed", memory.limit, 90),
    Check("lease", "a worker sees its GPU alone, which is free before it is leased again", leases.lease, 90),
    Check("foreign", "a GPU that others use is waited for, in words", leases.foreign, 90, True),
    Check("two-studies", "two studies take turns on one GPU", leases.two_studies, 120),
    Check("pause-resume", "a pause frees the GPU; a resume goes on exactly", training.pause_resume, 120),
    Check("killed-worker", "a killed worker frees the GPU and is classed", leases.killed_worker, 60),
    Check("guard", "a run that diverges is stopped early", training.guard, 60),
    Check("speed", "a trial's start and speed (figures only)", training.speed, 90),
    Check("two-gpus", "two GPUs train one trial as one GPU does", sharing.sharing, 300, True),
)  # fmt: skip

MEMORY_CHECKS = (
    Check("forecasts", "memory is forecast before the run, and what is proven to fit does not run out",
          forecasts.forecasts, 480),
    Check("smallest", "the smallest capacity that a run survives is the replay's", forecasts.smallest,
          240, True),
    Check("fixes", "every fix offered first for a real out-of-memory ending trains", forecasts.fixes, 240),
    Check("slowdowns", "what saving memory costs in time (figures only)", forecasts.slowdowns, 240),
)  # fmt: skip

STAGE_CHECKS = (
    *(
        Check(f"stage-{name}", f"{name} trains with LoRA; the peak on a GPU is within 25 % of the estimate",
              partial(stages.stage, name=name), 80 if name == "ppo" else 45)
        for name in stages.DATA
    ),
    Check("speed-0.5B", "tokens/s and MFU of a 0.5B-shaped model (figures only)",
          partial(stages.speed, name="0.5B"), 70, True),
    Check("speed-7B", "tokens/s and MFU of a 7B-shaped model (figures only)",
          partial(stages.speed, name="7B"), 190, True),
)  # fmt: skip

EVERY_CHECK = (*CHECKS, *MEMORY_CHECKS, *STAGE_CHECKS)


class NothingToCheckError(Exception):
    """There is no GPU that could be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run: what is checked, where, and until when (of time.monotonic())."""

    folder: Path
    output: Path
    device: Literal["cuda", "cpu"]
    gpu: GpuSnapshot | None
    reader: GpuReader
    facts: dict[str, Any]
    began: float
    until: float
    kept: tuple[Result, ...] = ()
    """Of an earlier run."""


def choose_gpu(reader: GpuReader, cuda_visible: str | None) -> GpuSnapshot:
    """The first GPU that the user was given and that nobody computes on.

    Raises:
        NothingToCheckError: there is none.
    """
    reading = reader.read()
    given = visible(reading.gpus, cuda_visible)
    if not given:
        left_out = f"CUDA_VISIBLE_DEVICES={cuda_visible} leaves none of the GPUs here."
        why = left_out if reading.gpus else reading.problem or "There is no NVIDIA GPU here."
        raise NothingToCheckError(f"Nothing was checked, for want of a GPU: {why}")
    busy = {gpu.index: busy_reason(gpu) for gpu in given}
    for gpu in given:
        if busy[gpu.index] is None:
            return gpu
    reasons = "; ".join(f"GPU {index}: {reason}" for index, reason in busy.items())
    raise NothingToCheckError(f"Nothing was checked, as no GPU is free: {reasons}")


def run_check(check: Check, place: Place) -> Result:
    """Make one check; whatever it raises becomes its result. Its studies are ended."""
    began = time.monotonic()
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    reason, figures, logs = "", Figures(), tuple[str, ...]()
    try:
        if check.needs_gpu and not place.on_gpu:
            raise SkippedError("it needs a GPU")
        place.folder.mkdir(parents=True)
        place.wait_until_free()
        figures = check.run(place)
    except SkippedError as error:
        outcome, reason = "skipped", str(error)
    except Exception as error:
        known = isinstance(error, CheckFailedError)
        outcome, reason = "failed", str(error) if known else f"{type(error).__name__}: {error}"
        logs = evidence(place.folder)
    finally:
        clean_up(place.folder)
    shutil.rmtree(place.folder, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    return Result(check.name, check.claim, outcome, seconds, reason, figures, logs)


def run_all(session: Session, checks: Sequence[Check]) -> Report:
    """Make the checks one after the other, and write the report after each."""
    results: list[Result] = []
    problem = build(session) if any(c.run is not leases.nvml for c in checks) else ""
    for check in checks:
        left = session.until - time.monotonic()
        if problem and check.run is not leases.nvml:
            result = Result(check.name, check.claim, "failed", 0.0, problem)
        elif left < LEAST_TIME:
            result = Result(check.name, check.claim, "skipped", 0.0, "no time was left for it")
        else:
            result = run_check(check, _place(session, check, min(left, check.seconds)))
        results.append(result)
        print(headline(result), flush=True)
        write(report(session, results), session.output)
    return report(session, results)


def build(session: Session) -> str:
    """Build the model and the rows; returns what went wrong, empty where nothing did."""
    size, rows = ("large", "1024") if session.device == "cuda" else ("small", "64")
    try:
        program("material.py", str(session.folder), size, rows, uuid="", timeout=BUILD_TIME)
    except CheckFailedError as error:
        return f"the model to check with could not be built: {error}"
    return ""


def _place(session: Session, check: Check, seconds: float) -> Place:
    return Place(
        folder=session.folder / check.name,
        device=session.device,
        uuid=session.gpu.uuid if session.gpu else "",
        reader=session.reader,
        material=session.folder,
        facts=session.facts,
        deadline=time.monotonic() + seconds,
    )


def names_of(checks: Sequence[Check]) -> list[str]:
    """What they are called."""
    return [check.name for check in checks]


def kept(output: Path, gpu: str, checks: Sequence[Check]) -> tuple[Result, ...]:
    """What an earlier report in `output` says of the same kind of GPU and of other checks than `checks`."""
    try:
        earlier = read(output)
    except (OSError, ValueError):
        return ()
    if earlier.gpu != gpu:
        return ()
    made = names_of(checks)
    return tuple(r for r in earlier.results if r.name not in made)


def report(session: Session, results: Sequence[Result]) -> Report:
    """What has been found so far, with what is kept of earlier runs."""
    gpu = session.gpu
    total = gpu.memory_total if gpu else None
    return Report(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=session.device,
        gpu=gpu.name if gpu else "CPU",
        uuid=gpu.uuid if gpu else "",
        memory_gib=round(total / 2**30, 2) if total is not None else None,
        driver=session.facts.get("driver", ""),
        versions=versions(session.facts),
        seconds=round(time.monotonic() - session.began, 1),
        results=(*session.kept, *results),
    )


def versions(facts: dict[str, Any]) -> dict[str, str]:
    """What the checks ran with; a package that is not installed is left out."""
    found = {"tunedeck": VERSION, "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cuda = facts.get("torch", {}).get("cuda")
    return {**found, "cuda": cuda} if cuda else found


def main(argv: list[str] | None = None) -> int:
    """Make the checks; returns the exit code."""
    options = _options(argv)
    began = time.monotonic()
    reader = NvmlReader()
    gpu, facts = None, dict[str, Any]()
    if options.device == "cuda":
        try:
            gpu = choose_gpu(reader, os.environ.get("CUDA_VISIBLE_DEVICES"))
            facts = gather_facts(gpu.uuid)
            if not facts["torch"]["available"]:
                raise NothingToCheckError(f"Nothing was checked: PyTorch cannot use {gpu.name}.")
        except (NothingToCheckError, CheckFailedError) as error:
            print(error, file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(
        prefix="tunedeck-gpu-check-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        _keep_to(folder)
        until = began + options.within
        group = MEMORY_CHECKS if options.memory else STAGE_CHECKS if options.stages else CHECKS
        chosen = [c for c in EVERY_CHECK if c.name in (options.only or names_of(group))]
        session = Session(
            folder,
            options.output,
            options.device,
            gpu,
            reader,
            facts,
            began,
            until,
            kept(options.output, gpu.name if gpu else "CPU", chosen),
        )
        found = run_all(session, chosen)
    print("\n" + table(found))
    return 1 if found.failed else 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Leave by an exception, so that what was started is ended."""
    raise SystemExit(1)


def _keep_to(folder: Path) -> None:
    """Let this process and all below it keep their files in `folder`, and reach for no hub."""
    os.environ["TUNEDECK_STUDIES"] = str(folder)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    os.environ["TUNEDECK_LEASE_DIR"] = str(folder / "leases")
    # PyTorch and Triton keep compiled kernels in the home folder or beside other temporary files.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    os.environ["HF_HUB_OFFLINE"] = "1"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check on a GPU what tunedeck claims about CUDA.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names_of(EVERY_CHECK),
        help="make these checks alone",
    )
    parser.add_argument(
        "--memory", action="store_true", help="make the checks of memory forecasts instead"
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="make the checks of every stage and the speeds instead",
    )
    parser.add_argument(
        "--within", type=float, default=WITHIN, help="seconds for all of it (default %(default)s)"
    )
    # Tries the checks themselves, as far as they make sense there.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.output.parent.is_dir():
        parser.error(f"the folder {options.output.parent} does not exist")
    return options


if __name__ == "__main__":
    sys.exit(main())
