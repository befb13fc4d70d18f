"""A worker: one process that trains one trial and says how it ended.

Started as `tunedeck _worker TRIAL_DIR`. It reads `trial.toml` and `task.json` there and writes `metrics.jsonl`,
`run.json`, `report.json`, `checkpoints/`, `output/` and `tb/`; what it prints is the log. However it ends, short of
being killed, it leaves a report.
"""

import contextlib
import gc
import logging
import os
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec

from core.profile import Profile, ProfileError, load
from core.study.files import (
    REPORT_FILE,
    TASK_FILE,
    TRIAL_FILE,
    TrialTask,
    WorkerReport,
    read_record,
    write_record,
)
from core.train import limits
from core.train.distributed.crew import Crew, become_member, is_lost, send
from core.train.distributed.ranks import Place
from core.train.errors import UsageError, first_line
from core.train.signals import Interrupted, Requests
from core.train.startup import Stopwatch

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def main(argv: list[str]) -> int:
    """Train the trial in the folder `argv[0]`; 0 completed, paused or stopped, 1 failed, 2 the input is wrong."""
    # Imports make objects by the hundred thousand and free next to none: looking for garbage among them costs a fifth
    # of the start. The trial switches it on again before it trains.
    gc.disable()
    if argv[:1] == ["--unpack"]:
        return _unpack(Path(argv[1]), Path(argv[2]))
    watch = Stopwatch()
    requests = Requests()
    requests.listen()
    if len(argv) not in (1, 2):
        print("usage: tunedeck _worker TRIAL_DIR [RANK]", flush=True)
        return EXIT_USAGE
    place = msgspec.json.decode(argv[1], type=Place) if len(argv) == 2 else None
    if place is not None:
        become_member(place)
    folder = _here(Path(argv[0]))
    task = read_record(folder / TASK_FILE, TrialTask)
    if task is None:
        print(f"{folder / TASK_FILE} is not there or cannot be read", flush=True)
        return EXIT_USAGE
    if place is not None:
        train_along(folder, task, requests, watch, place)
    # One of an earlier attempt must not be taken for this one's, should this one be killed.
    (folder / REPORT_FILE).unlink(missing_ok=True)
    if task.processes == 1:
        return _end(folder, train(folder, task, requests, watch))
    crew = Crew(folder, task.processes, partial(_end_for, folder, task))
    report = train(folder, task, requests, watch, crew.place)
    if is_lost(report):
        crew.await_cause()
    return _end(folder, crew.end(report))


def train_along(
    folder: Path, task: TrialTask, requests: Requests, watch: Stopwatch, place: Place
) -> NoReturn:
    """Be one of the ranks that rank 0 has started: train with it and tell it how that ended."""
    report = train(folder, task, requests, watch, place)
    send(place, report)
    # Nothing here is worth an orderly shutdown, and rank 0 waits.
    os._exit(EXIT_OK)


def _end_for(folder: Path, task: TrialTask, index: int, report: WorkerReport) -> NoReturn:
    """End the trial for another rank that failed; rank 0 itself may be waiting for it in the middle of anything."""
    limits.lift_cap()
    print(f"the process of GPU {index + 1} of {task.processes} failed", flush=True)
    from core.train.checkpoints import drop_torn

    drop_torn(folder)
    os._exit(_end(folder, msgspec.structs.replace(report, attempt=task.attempt)))


def _here(folder: Path) -> Path:
    """The trial's folder: as "here" where it is that, so that a study may be moved while it trains."""
    return Path() if folder.exists() and folder.samefile(Path()) else folder.resolve()


def train(
    folder: Path,
    task: TrialTask,
    requests: Requests,
    watch: Stopwatch,
    place: Place | None = None,
) -> WorkerReport:
    """Run the trial; every ending becomes a report. `place` says which rank this is, where several train together."""
    try:
        profile = load(folder / TRIAL_FILE)
    except ProfileError as error:
        return WorkerReport(
            task.attempt,
            "failed",
            "start",
            error_type=_name(error),
            error=str(error),
            usage_error=True,
        )
    rank = place.index if place else 0
    _prepare_process(task, rank)
    from core.train.trial import Trial

    trial = Trial(folder, task, profile, requests, watch, place)
    try:
        report = trial.run()
        trial.leave()
        return report
    except Interrupted as interrupted:
        limits.lift_cap()
        checkpoint = task.resume_from if interrupted.outcome == "paused" else None
        return trial.report(interrupted.outcome, checkpoint=checkpoint)
    except UsageError as error:
        limits.lift_cap()
        return trial.report("failed", error=str(error), error_type=_name(error), usage_error=True)
    except Exception as error:
        limits.lift_cap()
        # What another rank prints as standard output is not read. A full disk takes no log, and must not hide the
        # reason.
        with contextlib.suppress(OSError):
            traceback.print_exc(file=sys.stderr if rank else sys.stdout)
        # The frames hold the tensors that memory has to be found for.
        traceback.clear_frames(error.__traceback__)
        trial.release()
        return trial.report(
            "failed",
            error=_sentence(error, profile),
            error_type=_name(error),
            out_of_memory=limits.is_out_of_memory(error),
        )


def _unpack(file: Path, folder: Path) -> int:
    """Make a model folder of a .gguf file; the last line of stderr says why it cannot be done."""
    # The cap is the trial's, which is waiting and holds next to nothing meanwhile.
    limits.lift_cap()
    # Progress bars would stand in the same line as the reason.
    os.environ["TQDM_DISABLE"] = "1"
    from core.train.model.gguf import convert

    try:
        convert(file, folder)
    except Exception as error:
        print(first_line(error), file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _prepare_process(task: TrialTask, rank: int) -> None:
    """Settings that libraries read once, when they are imported."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if task.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        # Each rank has one GPU: with several in sight the Trainer would spread each batch over all of them.
        visible = task.gpus or tuple(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(","))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[rank]
    if task.processes > 1:
        # Ranks are processes of one machine: nothing of what they say to each other leaves it.
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    threads = task.threads
    if threads is None and task.processes > 1:
        threads = max(1, len(os.sched_getaffinity(0)) // task.processes)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    # What libraries warn their callers of is no news to who reads a training log.
    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _sentence(error: Exception, profile: Profile) -> str:
    """What went wrong, in words that say what to do where that is known."""
    message = first_line(error)
    if limits.is_disk_full(error):
        return f"the disk is full: {message}. Free space and start the trial again"
    if limits.is_out_of_memory(error):
        # As the allocator says it: the engine reads how much was asked for and how much there was.
        return message
    return f"{type(error).__name__}: {message}"


def _name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )


def _end(folder: Path, report: WorkerReport) -> int:
    """Write the report and say the ending."""
    said: str = report.outcome
    if report.error:
        said = f"{report.outcome} ({report.phase}): {report.error}"
    elif report.step:
        said = f"{report.outcome} at step {report.step}"
    code = EXIT_OK
    if report.outcome == "failed":
        code = EXIT_USAGE if report.usage_error else EXIT_FAILED
    try:
        write_record(folder / REPORT_FILE, report)
    except OSError as error:
        said += f"; the report cannot be written: {error}"
        code = EXIT_FAILED
    with contextlib.suppress(OSError):
        print(said, flush=True)
    return code
