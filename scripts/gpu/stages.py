"""Checks of the stages: a short LoRA run of each, its measured peak beside the estimate, and the speed of two models.

Every run is the real worker in a process of its own. Estimates are made before their runs.
"""

import statistics
import time
from pathlib import Path

from bench.train.gpu import MODELS, measure
from core.memory.architecture import find_architecture
from core.memory.closed_form import estimate
from core.memory.prover import Prover
from core.profile import Profile, from_document
from core.study.files import OUTPUT
from core.study.metrics import read_points
from core.study.store import TrialFolder
from scripts.gpu.forecasts import Case, Ran, run, target
from scripts.gpu.place import (
    GIB,
    CheckFailedError,
    Place,
    SkippedError,
    require,
    visible_environment,
)
from scripts.gpu.report import Figures

DATA = {
    "pt": "demo-text", "sft": "demo", "rm": "demo-pairs", "dpo": "demo-pairs", "kto": "demo-tags", "ppo": "demo",
}  # fmt: skip
"""What each stage trains on."""
WATCHED = {"pt": "loss", "sft": "loss", "rm": "loss", "dpo": "loss", "kto": "loss", "ppo": "reward"}
"""What is told of each: its first and last values, means of ENDS."""
ENDS = 3
FAR = 0.25
"""The share by which an estimate may miss the measured peak of a GPU: beyond that it helps nobody to pick a batch."""


def profile_of(place: Place, stage: str) -> Profile:
    """A LoRA run of `stage` on the model of `material.py`."""
    return from_document(
        {
            "profile": {"name": stage},
            "model": {"model_name_or_path": str(place.material / "model")},
            "method": {"stage": stage, "finetuning_type": "lora"},
            "alignment": {"reward_model": str(_reward_case(place) / OUTPUT)} if stage == "ppo" else {},
            "generation": {"max_new_tokens": place.pick(64, 8)},
            "data": {"dataset": DATA[stage], "cutoff_len": place.pick(512, 128), "val_size": 0, "max_samples": 64},
            "train": {
                "max_steps": place.pick(24, 8),
                "per_device_train_batch_size": place.pick(8, 4),
                "gradient_accumulation_steps": 1,
                "learning_rate": 1e-3,
                "warmup_ratio": 0.0,
                "logging_steps": 1,
            },
        }
    )  # fmt: skip


def _reward_case(place: Place) -> Path:
    return place.folder / "reward"


def stage(place: Place, name: str) -> Figures:
    """A stage trains with LoRA, and its peak is what was estimated.

    Raises:
        CheckFailedError: it does not, or the estimate is far off.
    """
    profile = profile_of(place, name)
    if name == "ppo":
        scores = run(place, Case("reward", profile_of(place, "rm")), keep=True)
        require(scores.survived, f"the reward model to check with did not train: {scores.ending}")
    onto = target(place, profile)
    with Prover() as prover:
        lengths = prover.lengths(profile)
    expected = estimate(profile, find_architecture(profile), onto, lengths)
    ran = run(place, Case(name, profile), keep=True)
    require(ran.survived and ran.report is not None, f"it did not train: {ran.ending}")
    folder = TrialFolder(place.folder / name)
    require(any((folder.path / OUTPUT).glob("*.safetensors")), "nothing was saved")
    figures = _learnt(folder, name)
    # On the CPU the whole process is what can be measured.
    said = expected.allocated if place.on_gpu else expected.total
    return figures | _compared(said, ran, place)


def _learnt(folder: TrialFolder, name: str) -> Figures:
    points = read_points(folder.metrics)
    if WATCHED[name] == "loss":
        values = [p.loss for p in points if p.loss is not None]
    else:
        values = [p.more[WATCHED[name]] for p in points if p.more and WATCHED[name] in p.more]
    require(
        len(values) >= 2 * ENDS, f"only {len(values)} values of the {WATCHED[name]} were logged"
    )
    first, last = statistics.fmean(values[:ENDS]), statistics.fmean(values[-ENDS:])
    # A reward is told and not judged: so few rounds show no more than a direction by chance.
    require(name == "ppo" or last < first, f"the loss went from {first:.3f} to {last:.3f}")
    return {WATCHED[name]: f"{first:.3f} to {last:.3f}"}


def _compared(said: int, ran: Ran, place: Place) -> Figures:
    measured = (ran.report.peak_memory if ran.report else None) or 0
    require(measured > 0, "the run did not tell its peak")
    error = said / measured - 1
    require(
        not place.on_gpu or abs(error) <= FAR,
        f"{said / GIB:.2f} GiB were estimated and {measured / GIB:.2f} GiB measured ({error:+.1%})",
    )
    return {
        "estimated, GiB": round(said / GIB, 3),
        "measured peak, GiB": round(measured / GIB, 3),
        "error of the estimate": round(error, 4),
        "tokens/s": round(ran.tokens_per_s or 0.0),
    }


def speed(place: Place, name: str) -> Figures:
    """Tokens a second and the share of the GPU's peak for one of bench.train.gpu.MODELS (figures only).

    Raises:
        CheckFailedError: it did not train, or not in time.
    """
    if not place.on_gpu:
        raise SkippedError("it needs a GPU")
    model = next(m for m in MODELS if m.name == name)
    seconds = place.deadline - time.monotonic()
    try:
        found = measure(place.folder, model, visible_environment(place.uuid), seconds)
    except (RuntimeError, OSError) as error:
        raise CheckFailedError(str(error)) from None
    known = found.utilisation is not None
    return {
        "parameters": found.parameters,
        "tokens/s": round(found.tokens_per_s),
        "MFU": round(found.utilisation or 0.0, 4) if known else "unknown: the GPU's peak is not",
        "peak, GiB": round((found.peak_memory or 0) / GIB, 2),
    }
