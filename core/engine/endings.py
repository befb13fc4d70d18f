"""How an attempt ended: what its files say, classed and put into words."""

import math
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.devices.process import boot_id
from core.memory.forecast import GIB, GUARD_CALIBRATED
from core.memory.oom import Evidence, OomKind, OomVerdict, read_ending
from core.profile import Profile
from core.search.metric import find, noise_of, value_of
from core.search.smoothing import smooth
from core.study.events import Ending, TrialEnded
from core.study.files import (
    CHECKPOINTS,
    ExitRecord,
    RunInfo,
    TrialForecast,
    WorkerReport,
    is_whole,
    read_record,
)
from core.study.metrics import Point, read_points
from core.study.state import Trial, finite, max_or_none
from core.study.store import TrialFolder

LOG_TAIL = 16_384
"""Bytes of a log's end that are read for a worker's last words."""

_DISK_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (28|122)\b"
    r"|PytorchStreamWriter failed writing|file write failed"
)
_PHASES = {
    "start": "while starting",
    "load": "while loading the model",
    "data": "while reading the data",
    "eval": "while evaluating",
    "save": "while saving",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known of an attempt after its end."""

    trial: Trial
    attempt: int
    exit: ExitRecord | None
    report: WorkerReport | None
    run: RunInfo | None
    points: list[Point]
    log_tail: str
    limit_gib: float | None
    checkpoint: str | None
    """The newest whole checkpoint in the trial's folder, relative to it."""
    forecast: TrialForecast | None = None
    """What the attempt was forecast to need."""
    restarted: bool = False
    """Whether the machine was restarted since the attempt began."""
    rank_by: str = "loss"
    """The metric that its study ranks by."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A classed ending."""

    event: TrialEnded
    trained: bool
    """Whether the attempt came as far as its first training step."""
    disk_full: bool = False
    evaluating: bool = False
    """Whether it ended in an evaluation."""
    memory: OomKind | None = None
    """What ran out, where memory did."""
    neighbour: bool = False
    """Whether it was another program's memory that was in the way."""
    missed: bool = False
    """Whether it ran out of its GPU's memory although a dry run had shown that it fits."""


def gather(folder: TrialFolder, trial: Trial, profile: Profile) -> Facts:
    """Read what an attempt that has ended left behind. What is missing or torn is None."""
    attempt = trial.attempt.number if trial.attempt else trial.next_attempt
    exit_record = read_record(folder.exit, ExitRecord)
    report = read_record(folder.report, WorkerReport)
    run = read_record(folder.run, RunInfo)
    forecast = read_record(folder.forecast, TrialForecast)
    shim = trial.attempt.shim if trial.attempt else None
    return Facts(
        trial=trial,
        attempt=attempt,
        exit=exit_record if exit_record and exit_record.attempt == attempt else None,
        report=report if report and report.attempt == attempt else None,
        run=run if run and run.attempt == attempt else None,
        points=read_points(folder.metrics),
        log_tail=_tail(folder.log),
        limit_gib=profile.memory.limit_gib,
        checkpoint=last_checkpoint(folder),
        forecast=forecast if forecast and forecast.attempt == attempt else None,
        restarted=shim is not None and shim.boot_id not in ("", boot_id()),
        rank_by=profile.rank_by(),
    )


def classify(facts: Facts, now: float) -> Outcome:
    """Class an ending; `now` is in seconds since the epoch."""
    verdict = read_ending(_evidence(facts))
    ending, reason = _ending(facts, verdict)
    report, run = facts.report, facts.run
    own = [p for p in facts.points if p.attempt == facts.attempt]
    losses = smooth(p.loss for p in facts.points)
    evals = [p.eval_loss for p in facts.points if p.eval_loss is not None]
    # On the CPU a forecast is an estimate of the model's part of a process that is mostly libraries.
    forecast = facts.forecast if _on_gpu(facts) else None
    missed = verdict is not None and ending == "oom" and _missed(forecast, verdict, report)
    if forecast is not None and missed:
        sizes = f"{forecast.needed / GIB:.1f} of {forecast.capacity / GIB:.1f} GiB"
        reason += f" A dry run had shown that it fits ({sizes})."
    metric = find(facts.rank_by)
    trained = bool(own) or run is not None or (report is not None and report.step > 0)
    event = TrialEnded(
        t=now,
        trial=facts.trial.number,
        attempt=facts.attempt,
        ending=ending,
        reason=reason,
        step=max([p.step for p in facts.points[-1:]] + [report.step if report else 0]),
        total_steps=run.total_steps if run else 0,
        loss=finite(losses[-1]) if losses else None,
        eval_loss=finite(evals[-1]) if evals else None,
        value=value_of(facts.points, metric),
        noise=noise_of(facts.points, metric, run.eval_rows if run else None),
        tokens=max_or_none(*(p.tokens for p in facts.points)),
        peak_memory=_peak(facts, own),
        peak_reserved=report.peak_reserved if report else None,
        forecast=forecast.allocated if forecast else None,
        proven=forecast is not None and forecast.tier == "proof",
        checkpoint=_checkpoint(facts, ending),
        seconds=_seconds(facts, own),
        usage_error=report is not None and report.usage_error and ending == "failed",
    )
    return Outcome(
        event,
        trained=trained,
        disk_full=ending in ("failed", "lost") and _disk_full(facts),
        evaluating=report is not None and report.phase == "eval",
        memory=verdict.kind if verdict is not None and ending == "oom" else None,
        neighbour=verdict is not None and ending == "oom" and verdict.whose == "others",
        missed=missed,
    )


def last_checkpoint(folder: TrialFolder) -> str | None:
    """The newest whole checkpoint of a trial, relative to its folder; None where there is none."""
    found: list[tuple[int, Path]] = []
    for path in folder.checkpoints.glob("checkpoint-*"):
        number = path.name.rpartition("-")[2]
        if number.isdecimal():
            found.append((int(number), path))
    newest = (path for _, path in sorted(found, reverse=True))
    return next((f"{CHECKPOINTS}/{path.name}" for path in newest if is_whole(path)), None)


def _ending(facts: Facts, verdict: OomVerdict | None) -> tuple[Ending, str]:
    report, exit_record, trial = facts.report, facts.exit, facts.trial
    if report is not None and report.outcome == "completed":
        return _completed(facts)
    if report is not None and report.outcome == "rung":
        return _at_rung(facts)
    if report is not None and report.outcome == "paused":
        return "paused", trial.asked_reason
    if exit_record is not None and exit_record.problem is not None:
        return "failed", exit_record.problem
    if report is not None and report.outcome == "stopped":
        return _stopped(facts)
    if exit_record is None and report is None:
        return _lost(facts)
    if verdict is not None:
        return "oom", verdict.message
    if report is not None and report.outcome == "failed":
        return "failed", _failure(report)
    if trial.asked is not None or (exit_record and exit_record.requested):
        return _stopped(facts)
    return "failed", _death(facts)


def _completed(facts: Facts) -> tuple[Ending, str]:
    # A range test goes up to where it diverges; that is what it is for.
    broken = None if facts.trial.kind == "range" else _divergence(facts)
    return ("completed", "") if broken is None else ("diverged", broken)


def _at_rung(facts: Facts) -> tuple[Ending, str]:
    broken = _divergence(facts)
    if broken is not None:
        return "diverged", broken
    if facts.trial.asked == "stop":
        return _stopped(facts)
    return "rung", facts.trial.waits


def _divergence(facts: Facts) -> str | None:
    """Why an attempt that ended by itself has diverged all the same; None where it has not."""
    if facts.trial.asked_by == "guard":
        return facts.trial.asked_reason
    for point in reversed(facts.points):
        if point.loss is not None:
            if not math.isfinite(point.loss):
                return f"its loss is {_name(point.loss)} at step {point.step}"
            break
    for point in reversed(facts.points):
        if point.eval_loss is not None:
            if not math.isfinite(point.eval_loss):
                return f"its evaluation loss is {_name(point.eval_loss)} at step {point.step}"
            break
    return None


def _stopped(facts: Facts) -> tuple[Ending, str]:
    trial = facts.trial
    if trial.asked_by == "guard":
        return "diverged", trial.asked_reason
    if trial.asked == "pause":
        # It ended before it could save anything: it starts again from where this attempt began.
        return "paused", trial.asked_reason
    if trial.asked == "stop":
        killed = facts.exit is not None and facts.exit.requested == "kill"
        late = "it did not end by itself and was killed" if killed else ""
        return "stopped", "; ".join(part for part in (trial.asked_reason, late) if part)
    return "lost", "it was ended from outside of tunedeck (a shutdown of the machine?)"


def _lost(facts: Facts) -> tuple[Ending, str]:
    if facts.trial.asked == "stop":
        return _stopped(facts)
    if facts.restarted:
        return "lost", "the machine was restarted"
    return "lost", "its processes are gone without a word (killed from outside?)"


def _failure(report: WorkerReport) -> str:
    what = report.error or report.error_type or "the worker failed without saying why"
    if report.usage_error:
        return what
    kind = (report.error_type or "").rpartition(".")[2]
    named = f"{kind}: {what}" if kind and kind not in what else what
    phase = _PHASES.get(report.phase)
    return f"{named} ({phase})" if phase else named


def _death(facts: Facts) -> str:
    exit_record = facts.exit
    if exit_record is not None and exit_record.signal is not None:
        try:
            name = signal.Signals(exit_record.signal).name
        except ValueError:
            name = "unknown"
        if exit_record.signal == signal.SIGKILL:
            return f"the worker was killed from outside of tunedeck (signal 9, {name})"
        return f"the worker crashed (signal {exit_record.signal}, {name}); its log may say more"
    code = exit_record.returncode if exit_record else None
    lines = [line.strip() for line in facts.log_tail.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith("--- attempt")), "")
    return f"the worker ended with code {code}" + (f": {last[:300]}" if last else "")


def _evidence(facts: Facts) -> Evidence:
    exit_record, report = facts.exit, facts.report
    failed = report if report is not None and report.outcome == "failed" else None
    return Evidence(
        returncode=exit_record.returncode if exit_record else None,
        signal=exit_record.signal if exit_record else None,
        worker_error_type=failed.error_type if failed else None,
        worker_error_message=failed.error if failed else None,
        log_tail=facts.log_tail,
        oom_kills_before=exit_record.oom_kills_before if exit_record else None,
        oom_kills_after=exit_record.oom_kills_after if exit_record else None,
        limit_gib=facts.limit_gib,
        device=facts.trial.attempt.device if facts.trial.attempt else "cpu",
        moment=failed.moment if failed else None,
        phase=report.phase if report else None,
        held_bytes=report.peak_memory if report else None,
    )


def _disk_full(facts: Facts) -> bool:
    report = facts.report
    if report is not None and report.error:
        return bool(_DISK_FULL.search(report.error))
    if facts.exit is not None and facts.exit.problem:
        return bool(_DISK_FULL.search(facts.exit.problem))
    lines = facts.log_tail.splitlines()[-15:]
    return any(_DISK_FULL.search(line) for line in lines)


def _checkpoint(facts: Facts, ending: Ending) -> str | None:
    if facts.report is not None and facts.report.checkpoint is not None:
        return facts.report.checkpoint
    # One that has come to its end has nothing to go on from, unless it says that it kept something.
    return None if ending == "completed" else facts.checkpoint


def _peak(facts: Facts, own: Iterable[Point]) -> int | None:
    peak = max_or_none(
        facts.report.peak_memory if facts.report else None, *(p.mem_peak for p in own)
    )
    if facts.trial.attempt is not None and not _on_gpu(facts) and facts.exit is not None:
        return max_or_none(peak, facts.exit.max_rss)
    return peak


def _missed(
    forecast: TrialForecast | None, verdict: OomVerdict, report: WorkerReport | None
) -> bool:
    """Whether an attempt that ran out of memory wanted more than a dry run had shown, where that fitted.

    A dry run that filled the device to the brim promised nothing. An attempt that wanted less than its forecast found
    less than there was to be: others held the rest.
    """
    if forecast is None or forecast.tier != "proof" or verdict.whose == "others":
        return False
    held = max_or_none(report.peak_reserved if report else None, verdict.held_bytes)
    wanted = (held or 0) + (verdict.asked_bytes or 0)
    fitted = forecast.needed * (1 + GUARD_CALIBRATED) <= forecast.capacity
    return fitted and wanted > forecast.needed


def _on_gpu(facts: Facts) -> bool:
    return facts.trial.attempt is not None and facts.trial.attempt.device == "cuda"


def _seconds(facts: Facts, own: list[Point]) -> float:
    if facts.exit is not None:
        return max(0.0, facts.exit.ended - facts.exit.started)
    started = facts.trial.attempt.started if facts.trial.attempt else None
    return max(0.0, own[-1].t - started) if own and started is not None else 0.0


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _name(value: float) -> str:
    return "not a number (NaN)" if math.isnan(value) else "infinite"
