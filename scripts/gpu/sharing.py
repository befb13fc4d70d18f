"""Checks of one trial on two GPUs: that it trains as one GPU does, and that each GPU holds what it is to hold."""

import os
from typing import Any

from core.devices.gpu import visible
from core.devices.lease import busy_reason
from core.engine.messages import Request
from core.values import Scalar
from scripts.gpu.place import Place, SkippedError, Study, require
from scripts.gpu.profiles import Document, large, small
from scripts.gpu.report import Figures
from scripts.gpu.training import LORA, SAME_LOSS, difference

SHARDINGS = ("ddp", "zero1", "fsdp")
STEPS = 40
BATCH = 8
CUTOFF = 512


def sharing(place: Place) -> Figures:
    """Two GPUs make the updates that one makes; shares of a model take less memory than copies; a pause is exact."""
    both = [place.uuid, other_gpu(place)]
    figures: Figures = {}
    for method, changes in (("full", {}), ("lora", LORA)):
        alone = _finished(place, f"{method}-one", _small(changes))
        for sharding in SHARDINGS:
            shared = _finished(place, f"{method}-{sharding}", _small(changes, _two(both, sharding)))
            apart = difference(alone.points(), shared.points())
            require(apart <= SAME_LOSS, f"{method}, {sharding}: losses differ by {apart:.4f} nats")
            require(shared.trial().attempts[-1].gpus == tuple(both), f"{sharding} ran elsewhere")
            figures[f"{method}, {sharding}, largest difference of a loss, nats"] = round(apart, 6)
    return figures | _memory(place, both) | _paused(place, both)


def other_gpu(place: Place) -> str:
    """The UUID of a second GPU that nobody computes on.

    Raises:
        SkippedError: there is none.
    """
    given = visible(place.reader.read().gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    others = [gpu for gpu in given if gpu.uuid != place.uuid]
    if not others:
        raise SkippedError("not checked: one GPU")
    free = [gpu.uuid for gpu in others if busy_reason(gpu) is None]
    if not free:
        raise SkippedError("not checked: no second GPU is free")
    return free[0]


def _memory(place: Place, both: list[str]) -> Figures:
    """Peaks and speeds of full fine-tuning; what is shared has to show."""
    figures: Figures = {}
    peaks: dict[str, int] = {}
    for sharding in SHARDINGS:
        document = large(place, "full", STEPS // 2, BATCH // 2, CUTOFF)
        document["resources"] = _two(both, sharding)
        study = _finished(place, f"memory-{sharding}", document)
        peaks[sharding] = study.trial().peak_memory or 0
        rates = [p.tokens_per_s for p in study.points()[5:] if p.tokens_per_s]
        figures |= {
            f"{sharding}, peak MiB of the fullest GPU": peaks[sharding] >> 20,
            f"{sharding}, tokens/s": round(sum(rates) / len(rates)) if rates else 0,
        }
    require(peaks["zero1"] < peaks["ddp"], "sharing the optimizer's states saved no memory")
    require(peaks["fsdp"] < peaks["zero1"], "sharing weights and gradients saved no memory")
    return figures


def _paused(place: Place, both: list[str]) -> Figures:
    """A pause of a sharded trial frees both GPUs and leaves no trace in the losses."""
    document = _small(LORA, _two(both, "fsdp"))
    document["method"]["lora_dropout"] = 0.1
    document["train"]["max_steps"] = 10 * STEPS
    whole = _finished(place, "pause-whole", document)
    paused = place.study("pause", document)
    paused.wait(lambda state: paused.step() >= STEPS, "it had trained for a while")
    paused.ask(Request("pause", trial=1))
    paused.wait(lambda state: state.trials[1].status == "paused", "it was paused")
    at = paused.step()
    paused.ask(Request("resume", trial=1))
    paused.finish()
    apart = difference(whole.points(), paused.points())
    require(apart <= SAME_LOSS, f"after a pause the losses differ by {apart:.4f} nats")
    return {"paused at step": at, "difference after the pause, nats": round(apart, 6)}


def _small(changes: dict[str, Scalar], resources: dict[str, Any] | None = None) -> Document:
    """The demo's model with one effective batch, whether one GPU makes it or two."""
    gpus = resources["gpus_per_trial"] if resources else 1
    document = small(1e-3, STEPS)
    document["train"]["gradient_accumulation_steps"] = 4 // gpus
    rate = changes.get("learning_rate", 1e-3)
    document["search"]["space"] = {"learning_rate": [rate]}
    document["method"] = {"finetuning_type": changes.get("finetuning_type", "full")}
    return {**document, "resources": resources} if resources else document


def _two(both: list[str], sharding: str) -> dict[str, Any]:
    return {"devices": both, "parallel": 1, "gpus_per_trial": len(both), "sharding": sharding}


def _finished(place: Place, name: str, document: Document) -> Study:
    study = place.study(name, document)
    study.finish()
    trial = study.trial()
    require(trial.status == "completed", f"{name} ended {trial.status} ({trial.reason})")
    place.wait_until_free()
    return study
