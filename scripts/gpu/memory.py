"""Checks of memory: what runs out is told apart and mended, and a limit is obeyed."""

import re

from core.study.files import WorkerReport
from core.study.state import Attempt, Trial
from scripts.gpu.place import GIB, Place, SkippedError, Study, require
from scripts.gpu.profiles import Document, large
from scripts.gpu.report import Figures

CONTEXT = 1 * GIB
"""What a process takes of a GPU beside its allocator: CUDA's context, kernels, cuBLAS's workspaces."""
HELD_SHARE = 0.4
"""Of the limit: a trial that ran into it held this much at least."""
_ASKED = re.compile(r"it asked for [\d.]+ (bytes|[KMGT]iB) more")


def oom_limit(place: Place) -> Figures:
    """A trial over its limit ends oom with numbers, and completes with the fix that is applied."""
    profile = _too_large(place, "full")
    study = place.study("oom-limit", profile)
    study.finish()
    trial = study.trial()
    first, last = trial.attempts[0], trial.attempts[-1]
    require(first.ending == "oom", f"the first attempt ended {first.ending} ({first.reason})")
    require("memory limit" in first.reason, f"the reason names no limit: {first.reason!r}")
    _has_numbers(first)
    require(trial.status == "completed", f"{_story(trial)}")
    changes = trial.overrides
    batch, steps = changes["per_device_train_batch_size"], changes["gradient_accumulation_steps"]
    asked = profile["train"]["per_device_train_batch_size"]
    require(
        int(batch) * int(steps) == asked,
        f"the effective batch became {batch} × {steps}, not {asked}",
    )
    require(last.ending == "completed", f"the last attempt ended {last.ending}")
    return {
        "limit, GiB": _limit_gib(place),
        "attempts": len(trial.attempts),
        "batch": f"{asked} × 1 → {batch} × {steps}",
        "message": first.reason,
        "fix": trial.fixes[0],
        "peak of the attempt that completed, MiB": (study.report().peak_memory or 0) >> 20,
    }


def oom_device(place: Place) -> Figures:
    """A batch that no GPU holds ends oom, with the GPU's numbers and a fix to choose; the GPU is free again."""
    if not place.on_gpu:
        raise SkippedError("without a limit it would fill the machine's main memory")
    profile = large(place, "full", 5, 1024, 2048)
    profile["memory"] = {"on_oom": "ask"}
    study = place.study("oom-device", profile)
    study.finish()
    trial = study.trial()
    require(trial.status == "oom", f"it ended {trial.status} ({trial.reason})")
    require("The GPU's memory is full" in trial.reason, f"the reason is {trial.reason!r}")
    _has_numbers(trial.attempts[0])
    suggestion = trial.suggestion
    if suggestion is None:
        require(False, "no fix was suggested")
        return {}
    seconds = place.wait_until_free()
    return {
        "message": trial.reason,
        "fix": suggestion.text,
        "peak in use, MiB": _most_used(study) >> 20,
        "seconds until the GPU was free": round(seconds, 2),
    }


def limit(place: Place) -> Figures:
    """A trial that is pushed against its limit never takes more of the GPU than the limit and a CUDA context."""
    if not place.on_gpu:
        raise SkippedError("what is checked is the CUDA allocator's share")
    profile = _too_large(place, "lora")
    profile["memory"]["on_oom"] = "skip"
    before = place.used()
    study = place.study("limit", profile)
    study.finish()
    trial, report, most = study.trial(), study.report(), _limit_gib(place) * GIB
    require(trial.status == "oom", f"it ended {trial.status} ({trial.reason}): it was not pushed")
    reserved, used = _reserved(report), _most_used(study) - before
    require(reserved <= most, f"it reserved {reserved} bytes, more than the limit of {most}")
    require(reserved >= HELD_SHARE * most, f"it reserved {reserved} bytes only: not pushed")
    require(
        used <= most + CONTEXT,
        f"NVML saw {used} bytes taken: more than the limit of {most} and {CONTEXT} for the context",
    )
    return {
        "limit, MiB": most >> 20,
        "most reserved by the allocator, MiB": reserved >> 20,
        "most taken as NVML tells, MiB": used >> 20,
        "allowed for the context, MiB": CONTEXT >> 20,
    }


def _too_large(place: Place, method: str) -> Document:
    """A batch that does not fit the limit; a smaller one does."""
    profile = large(place, method, 5, place.pick(32, 64), 512)
    profile["memory"] = {"limit_gib": float(_limit_gib(place)), "on_oom": "apply"}
    return profile


def _limit_gib(place: Place) -> int:
    return place.pick(8, 1)


def _has_numbers(attempt: Attempt) -> None:
    require(bool(_ASKED.search(attempt.reason)), f"no size was read: {attempt.reason!r}")


def _reserved(report: WorkerReport) -> int:
    require(report.peak_reserved is not None, "the report does not say what was reserved")
    return report.peak_reserved or 0


def _most_used(study: Study) -> int:
    return max((used for _, used in study.usage), default=0)


def _story(trial: Trial) -> str:
    return "; ".join(f"attempt {a.number} {a.ending}: {a.reason}" for a in trial.attempts)
