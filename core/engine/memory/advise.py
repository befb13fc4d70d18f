"""The adviser: a process that looks into the memory of one trial for the daemon, by dry runs, without torch in it.

It starts the dry runs (`core.memory.prover`), which hold torch, and ends with the daemon.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from core.engine.memory.jobs import (
    RESULT_FILE,
    Found,
    Job,
    Result,
    keep_lengths,
    known_lengths,
    rows,
    too_large,
)
from core.engine.memory.row_bounds import bound_of_files
from core.memory.architecture import Architecture, ArchitectureError, find_architecture
from core.memory.fixes import Fix, find_fixes, fit_batch
from core.memory.forecast import GUARD_UNKNOWN, Forecast, Lengths
from core.memory.prover import ProofError, Prover
from core.profile import Profile, ProfileError, loads
from core.study.events import FixOption
from core.study.files import read_record, write_record

NICE = 10
"""A trial that trains on the CPU goes first."""
PROCESSES = 2
"""Dry runs at once when many candidates are to be proven. Each holds 0.6 GB."""
_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Do the job in the file `argv[0]` for the process `argv[1]`, and leave the result beside it."""
    file = Path(argv[0])
    _end_with(int(argv[1]))
    os.nice(NICE)
    job = read_record(file, Job)
    if job is None:
        sys.stderr.write(f"{file} holds no job\n")
        return 1
    write_record(file.with_name(RESULT_FILE), advise(job))
    return 0


def advise(job: Job) -> Result:
    """Find out what is asked; a reason where that is not possible."""
    try:
        profile = loads(job.profile)
        architecture = find_architecture(profile)
    except (ProfileError, ArchitectureError) as error:
        return _nothing(job, str(error))
    try:
        with Prover(PROCESSES if _spare(job) else 1) as prover:
            return _look(job, profile, architecture, prover)
    except ProofError as error:
        if job.about != "fit":
            return _nothing(job, str(error))
        return _estimated(job, profile, architecture, str(error))


def _spare(job: Job) -> bool:
    """Whether there are cores for several dry runs: trials on the CPU use them all."""
    return job.target.kind == "cuda" and job.about != "start" and len(os.sched_getaffinity(0)) > 1


def _look(job: Job, profile: Profile, architecture: Architecture, prover: Prover) -> Result:
    lengths = _lengths(Path(job.lengths), profile, prover)

    def prove(candidates: Sequence[Profile]) -> Sequence[Forecast | ProofError]:
        return prover.prove_all(candidates, job.target, lengths)

    if job.about == "fit":
        found = fit_batch(profile, architecture, job.target, lengths, prove, guard=job.guard)
        return _fitted(job, found, "")
    forecast = None
    if job.about == "start":
        forecast = prover.prove(profile, job.target, lengths)
        if not (job.fixes and too_large(forecast, job.target)):
            return Result(about=job.about, shape=job.shape, forecast=forecast)
    advice = find_fixes(
        profile,
        architecture,
        job.target,
        lengths,
        prove,
        guard=job.guard,
        crashed=job.about == "fix",
    )
    if job.about == "fix" and (advice.reproduced is False or (advice.problem and not advice.fixes)):
        # A method that does not see the crash cannot be trusted with its remedy.
        return _nothing(job, advice.problem or "the dry run does not show the crash")
    sure = f" Estimates, not proven: {advice.problem}" if advice.problem else ""
    return Result(
        about=job.about,
        shape=job.shape,
        forecast=forecast,
        summary=advice.summary + sure,
        fixes=tuple(Found(_option(fix), fix.forecast) for fix in advice.fixes),
    )


def _estimated(job: Job, profile: Profile, architecture: Architecture, why: str) -> Result:
    """The batch by the closed form, where no dry run is possible."""
    lengths = known_lengths(Path(job.lengths), rows(profile)) or bound_of_files(profile)
    guard = max(job.guard, GUARD_UNKNOWN)
    found = fit_batch(profile, architecture, job.target, lengths, None, guard=guard)
    return _fitted(job, found, why)


def _fitted(job: Job, fix: Fix | None, why: str) -> Result:
    if fix is None:
        return _nothing(job, why or f"no batch fits {job.target.name}")
    found = (Found(_option(fix), fix.forecast),)
    return Result(about=job.about, shape=job.shape, summary=why, fixes=found)


def _nothing(job: Job, why: str) -> Result:
    return Result(about=job.about, shape=job.shape, problem=why)


def _lengths(file: Path, profile: Profile, prover: Prover) -> Lengths:
    """The lengths of the profile's rows, measured where that has not been done.

    Raises:
        ProofError: they cannot be measured. The longest that rows may be says nothing about whether they fit.
    """
    lengths = known_lengths(file, rows(profile))
    if lengths is None:
        lengths = prover.lengths(profile)
        if not lengths.measured:
            raise ProofError("the rows of the data could not be measured")
        keep_lengths(file, rows(profile), lengths)
    return lengths


def _option(fix: Fix) -> FixOption:
    return FixOption(
        changes=fix.changes,
        text=fix.text,
        needed=fix.forecast.total,
        headroom=fix.headroom,
        slowdown=fix.slowdown,
        source=fix.source,
        numerics=fix.numerics,
        effect=fix.effect,
        proven=fix.proven,
    )


def _end_with(parent: int) -> None:
    """End when the daemon does, however it ends: nobody would read the result."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
