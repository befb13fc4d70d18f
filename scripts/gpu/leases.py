"""Checks of devices: what NVML tells, who gets which GPU, and that it is given back."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from core.devices.gpu import GpuSnapshot
from core.devices.lease import USED_FLOOR_BYTES
from core.study.files import ExitRecord, read_record
from core.study.state import Trial
from core.study.store import StudyFolder
from scripts.gpu.place import GIB, ROOT, Place, Study, require
from scripts.gpu.profiles import small
from scripts.gpu.report import Figures

FOREIGN = 2 * GIB
HELD_BACK = 5.0
"""Seconds for which a study must go on waiting for a GPU that is in use."""
FIELDS = ("memory_total", "memory_used", "utilization", "power_watts", "power_limit_watts",
          "temperature_c")  # fmt: skip
"""Of a GpuSnapshot: what a driver for servers tells."""
WARMTH = 15
"""Degrees by which a GPU may warm up or cool down between two readings."""
SLACK = 0.05
"""The share by which two tools' readings of a GPU's memory may differ."""


def nvml(place: Place) -> Figures:
    """Every field of a GPU is read, and agrees with PyTorch, nvidia-smi and `tunedeck gpus`."""
    gpu = place.gpu()
    compared = agreement(gpu, place.facts)
    listed = [g["uuid"] for g in _shown()["gpus"]]
    require(listed == [g.uuid for g in place.reader.read().gpus], f"tunedeck gpus lists {listed}")
    return {
        "memory, MiB": (gpu.memory_total or 0) >> 20,
        "in use, MiB": (gpu.memory_used or 0) >> 20,
        "power, W": round(gpu.power_watts or 0.0, 1),
        "power limit, W": gpu.power_limit_watts or 0.0,
        "temperature, °C": gpu.temperature_c or 0,
        "processes": len(gpu.processes),
        "compared with": ", ".join(compared),
    }


def agreement(gpu: GpuSnapshot, facts: Mapping[str, Any]) -> list[str]:
    """Whom NVML's reading was compared with; `facts` are those of `facts.py`.

    Raises:
        CheckFailedError: a field is missing, or somebody tells something else.
    """
    missing = [name for name in FIELDS if getattr(gpu, name) is None]
    require(not missing, f"NVML tells no {', '.join(missing)}")
    torch, total = facts["torch"], float(gpu.memory_total or 0)
    require(gpu.name == torch["name"], f"NVML calls it {gpu.name}, PyTorch {torch['name']}")
    require(torch["uuid"] in ("GPU-", gpu.uuid), f"PyTorch's UUID is {torch['uuid']}")
    require(torch["count"] == 1, f"PyTorch sees {torch['count']} GPUs where it was given one")
    require(
        abs(total - torch["total"]) <= SLACK * total,
        f"NVML sees {total:.0f} bytes, PyTorch {torch['total']}",
    )
    row = next((row for row in facts["smi"] if row["uuid"] == gpu.uuid), None)
    if row is None:
        return ["PyTorch"]
    require(row["name"] == gpu.name, f"nvidia-smi calls it {row['name']}")
    size, heat = _number(row["memory.total"]), _number(row["temperature.gpu"])
    require(
        size is None or abs(size * 2**20 - total) <= SLACK * total, f"nvidia-smi sees {size} MiB"
    )
    require(
        heat is None or abs(heat - (gpu.temperature_c or 0)) <= WARMTH,
        f"NVML tells {gpu.temperature_c} °C, nvidia-smi {heat}",
    )
    return ["PyTorch", "nvidia-smi"]


def _number(text: str) -> float | None:
    """A number of nvidia-smi's, None where it says [N/A]."""
    try:
        return float(text)
    except ValueError:
        return None


def _shown() -> Any:
    """What `tunedeck gpus --json` prints."""
    ran = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tunedeck.py"), "gpus", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    require(ran.returncode == 0, f"tunedeck gpus failed: {ran.stderr.strip()[-500:]}")
    return json.loads(ran.stdout)


def lease(place: Place) -> Figures:
    """A worker sees exactly the GPU that it was leased, whose memory falls before the next trial gets it."""
    profile = small(1e-3, place.pick(150, 30))
    profile["search"]["space"] = {"learning_rate": [1e-3, 5e-4]}
    study = place.study("lease", profile)
    study.wait(lambda state: study.step() > 0, "the first trial trains")
    worker = study.worker()
    environment = worker.environ()
    seen = environment.get("CUDA_VISIBLE_DEVICES")
    leased = ",".join(study.trial().attempts[0].gpus)
    require(seen == leased == place.uuid, f"leased {leased!r}, the worker sees {seen!r}")
    study.finish()
    require(_all_completed(study), _said(study))
    if not place.on_gpu:
        return {"CUDA_VISIBLE_DEVICES": seen or "(empty)"}
    order = environment.get("CUDA_DEVICE_ORDER")
    require(order == "PCI_BUS_ID", f"CUDA_DEVICE_ORDER is {order}")
    first, second = study.trial(1).attempts[0], study.trial(2).attempts[0]
    began, ended = second.started or 0.0, first.ended or 0.0
    between = [used for t, used in study.usage if ended <= t <= began]
    training = max(used for t, used in study.usage if t <= ended)
    require(bool(between), "the GPU was leased again without a reading between")
    require(
        between[-1] < USED_FLOOR_BYTES,
        f"{between[-1] >> 20} MiB were in use when the GPU was leased again",
    )
    return {
        "CUDA_VISIBLE_DEVICES": seen or "",
        "in use while training, MiB": training >> 20,
        "in use when leased again, MiB": between[-1] >> 20,
        "seconds from one trial to the next": round(began - ended, 2),
    }


def foreign(place: Place) -> Figures:
    """A study waits, and says for what, while somebody else's process is on the GPU; it starts when that ends."""
    with place.foreign(FOREIGN):
        study = place.study("foreign", small(1e-3, 30))
        study.wait(lambda state: bool(state.reason), "it says that it waits")
        reason = study.state.reason
        require(reason.startswith("waiting for a free GPU"), f"it says {reason!r}")
        until = time.monotonic() + HELD_BACK
        place.wait(
            lambda: study.look() is not None and time.monotonic() > until, "it had waited enough"
        )
        require(not study.trial().attempts, "a trial was started beside the foreign process")
        taken = place.used()
    gone = time.time()
    study.finish()
    require(_all_completed(study), _said(study))
    began = study.trial().attempts[0].started or 0.0
    return {
        "reason": reason,
        "in use, MiB": taken >> 20,
        "seconds from its end to the start": round(began - gone, 2),
    }


def two_studies(place: Place) -> Figures:
    """Two studies on one GPU take turns: no two trials are on it at once."""
    profile = small(1e-3, place.pick(60, 20))
    profile["search"]["space"] = {"learning_rate": [1e-3, 5e-4]}
    studies = [place.study(name, profile) for name in ("one", "other")]
    reasons: set[str] = set()

    def over() -> bool:
        reasons.update(s.look().reason for s in studies)
        return all(s.state.status != "running" for s in studies)

    place.wait(over, "both studies were finished")
    for study in studies:
        require(study.state.status == "finished" and _all_completed(study), _said(study))
    turns = [t for s in studies for t in spans(s)]
    require(len(turns) == 4, f"{len(turns)} workers were seen to end, not 4")
    if place.on_gpu:
        clash = overlap(turns)
        require(clash is None, f"two trials were on the GPU at once for {clash or 0.0:.1f} s")
        told = any("another study uses it" in reason for reason in reasons)
        return {"trials": len(turns), "said that another study uses it": told}
    return {"trials": len(turns)}


def spans(study: Study) -> list[tuple[float, float]]:
    """When the workers of the study's trials lived, as their shims saw it, seconds since the epoch."""
    folder = StudyFolder(study.folder)
    exits = [read_record(folder.trial(n).exit, ExitRecord) for n in study.state.trials]
    return [(e.started, e.ended) for e in exits if e is not None]


def overlap(turns: list[tuple[float, float]]) -> float | None:
    """The longest time for which one turn lasts into the next; None where none does."""
    ordered = sorted(turns)
    clashes = [a[1] - b[0] for a, b in pairwise(ordered) if a[1] > b[0]]
    return max(clashes, default=None)


def killed_worker(place: Place) -> Figures:
    """A worker that is killed frees the GPU, and its ending is classed."""
    study = place.study("killed", small(1e-3, place.pick(3000, 400)))
    study.wait(lambda state: study.step() >= 5, "it trains")
    training = place.used()
    study.worker().send_signal(signal.SIGKILL)
    study.wait(lambda state: state.trials[1].ended, "its end was noticed")
    trial = study.trial()
    require(trial.status == "failed", f"it ended {trial.status} ({trial.reason})")
    require("SIGKILL" in trial.reason, f"the reason is {trial.reason!r}")
    seconds = place.wait_until_free()
    figures: Figures = {"reason": trial.reason, "killed at step": trial.step}
    if not place.on_gpu:
        return figures
    return figures | {
        "in use while training, MiB": training >> 20,
        "in use afterwards, MiB": place.used() >> 20,
        "seconds until the GPU was free": round(seconds, 2),
    }


def _all_completed(study: Study) -> bool:
    return all(t.status == "completed" for t in study.state.trials.values())


def _said(study: Study) -> str:
    return "; ".join(_line(t) for t in study.state.trials.values())


def _line(trial: Trial) -> str:
    return f"trial {trial.number} is {trial.status} ({trial.reason})"
