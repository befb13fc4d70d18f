"""Checks of training: methods and precisions, pause and resume, the divergence guard, speed."""

import statistics

from core.engine.messages import Request
from core.study.metrics import Point
from core.study.state import Trial
from core.values import Scalar
from scripts.gpu.place import CheckFailedError, Place, Study, require
from scripts.gpu.profiles import large, small
from scripts.gpu.report import Figures

LEAST_FALL = 0.03
"""The share by which the loss must fall at least: the means of the first and the last losses compared."""
ENDS = 5
"""So many losses make a mean."""
SAME_LOSS = 0.02
"""Nats per token by which a resumed run may differ from an unpaused one on a GPU, whose sums have no fixed order.
Another order of the rows would show: the losses of two batches differ by more than ten times that."""
SAME_LOSS_CPU = 1e-4

LORA: dict[str, Scalar] = {"finetuning_type": "lora", "learning_rate": 3e-3}
FREEZE: dict[str, Scalar] = {"finetuning_type": "freeze", "learning_rate": 1e-3}


def variants(on_gpu: bool) -> dict[str, dict[str, Scalar]]:
    """What is trained beside full fine-tuning in the precision that `auto` means: name → changes."""
    everywhere: dict[str, dict[str, Scalar]] = {
        "lora": LORA,
        "freeze": FREEZE,
        "qlora 4-bit": {**LORA, "quantization_bit": 4},
        "qlora 8-bit": {**LORA, "quantization_bit": 8},
        "full pure_bf16": {"precision": "pure_bf16"},
        "lora pure_bf16": {**LORA, "precision": "pure_bf16"},
    }
    cuda: dict[str, dict[str, Scalar]] = {
        "full fp16": {"precision": "fp16"},
        "lora fp16": {**LORA, "precision": "fp16"},
        "freeze fp16": {**FREEZE, "precision": "fp16"},
        "qlora 4-bit fp16": {**LORA, "quantization_bit": 4, "precision": "fp16"},
        "lora checkpointing fused": {
            **LORA, "gradient_checkpointing": True, "optim": "adamw_torch_fused",
        },
    }  # fmt: skip
    return {**everywhere, **cuda} if on_gpu else everywhere


def methods(place: Place) -> Figures:
    """Every method and precision ends completed, with a loss that falls."""
    study = place.study("methods", small(1e-3, place.pick(40, 30), seed=1))
    names = {1: "full"}
    for name, changes in variants(place.on_gpu).items():
        number = study.ask(Request("add", changes=changes))
        require(number is not None, f"no trial was made for {name}")
        names[number or 0] = name
    study.finish()
    figures: Figures = {}
    wrong: list[str] = []
    for number, name in names.items():
        try:
            figures |= {f"{name}, {k}": v for k, v in _trained(place, study, number).items()}
        except CheckFailedError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise CheckFailedError("; ".join(wrong))
    return figures


def fall(losses: list[float]) -> tuple[float, float]:
    """The means of the first and the last ENDS losses.

    Raises:
        CheckFailedError: the loss did not fall by LEAST_FALL.
    """
    require(len(losses) >= 2 * ENDS, f"only {len(losses)} losses were logged")
    first, last = statistics.fmean(losses[:ENDS]), statistics.fmean(losses[-ENDS:])
    require(last <= first * (1 - LEAST_FALL), f"the loss went from {first:.3f} to {last:.3f}")
    return first, last


def _trained(place: Place, study: Study, number: int) -> Figures:
    trial = study.trial(number)
    require(trial.status == "completed", f"{trial.status} ({trial.reason})")
    first, last = fall([p.loss for p in study.points(number) if p.loss is not None])
    run = study.run(number)
    asked = trial.changes.get("precision", _automatic(place))
    require(run.precision == asked, f"trained in {run.precision}, not in {asked}")
    require(place.on_gpu == (run.device != "CPU"), f"ran on {run.device}")
    return {"loss": f"{first:.2f} to {last:.2f} in {run.precision}"}


def _automatic(place: Place) -> str:
    if not place.on_gpu:
        return "fp32"
    return "bf16" if place.facts["torch"]["bf16"] else "fp16"


def pause_resume(place: Place) -> Figures:
    """A pause frees the GPU, and a resumed run has the losses of one that was not paused."""
    profile = small(1e-3, place.pick(300, 60))
    # Dropout makes the generators' state matter: a resume that lost it would show.
    profile["method"] = {"finetuning_type": "lora", "lora_dropout": 0.1}
    whole = place.study("whole", profile)
    whole.finish()
    place.wait_until_free()
    paused = place.study("paused", profile)
    paused.wait(lambda state: paused.step() >= place.pick(30, 10), "it had trained for a while")
    training = place.used()
    paused.ask(Request("pause", trial=1))
    paused.wait(lambda state: state.trials[1].status == "paused", "it was paused")
    seconds = place.wait_until_free()
    at, held = paused.step(), place.used()
    require(not place.on_gpu or held < training, f"{held} bytes are still in use after the pause")
    paused.ask(Request("resume", trial=1))
    paused.finish()
    require(_endings(paused.trial()) == ["paused", "completed"], f"{_endings(paused.trial())}")
    apart = difference(whole.points(), paused.points())
    tolerance = SAME_LOSS if place.on_gpu else SAME_LOSS_CPU
    require(apart <= tolerance, f"the losses differ by {apart:.4f}, more than {tolerance} nats")
    figures: Figures = {
        "paused at step": at,
        "largest difference of a loss, nats": round(apart, 6),
        "tolerance, nats": tolerance,
    }
    memory: Figures = {
        "in use while it trained, MiB": training >> 20,
        "in use when paused, MiB": held >> 20,
        "seconds until the GPU was free": round(seconds, 2),
    }
    return figures | memory if place.on_gpu else figures


def difference(one: list[Point], other: list[Point]) -> float:
    """The largest difference of two runs' losses at a step.

    Raises:
        CheckFailedError: they did not log the same steps, each of them once.
    """
    steps = [p.step for p in one], [p.step for p in other]
    require(bool(one), "nothing was logged")
    require(steps[0] == steps[1], f"{len(one)} and {len(other)} losses, not of the same steps")
    return max(abs((a.loss or 0.0) - (b.loss or 0.0)) for a, b in zip(one, other, strict=True))


def guard(place: Place) -> Figures:
    """A rate far too high is stopped early, with a reason."""
    steps = place.pick(400, 120)
    study = place.study("guard", small(1.0, steps))
    study.finish()
    trial = study.trial()
    require(trial.status == "diverged", f"it ended {trial.status} ({trial.reason})")
    require("loss" in trial.reason or "gradient" in trial.reason, f"the reason is {trial.reason!r}")
    require(trial.step < steps, "it was stopped only at its end")
    return {"stopped at step": trial.step, "of": steps, "reason": trial.reason}


def speed(place: Place) -> Figures:
    """How fast a trial starts and trains (figures only: they hold for this machine)."""
    figures: Figures = {}
    cutoff, steps = place.pick(512, 128), place.pick(40, 12)
    for method in ("lora", "full"):
        study = place.study(f"speed-{method}", large(place, method, steps, 8, cutoff))
        study.finish()
        trial, run = study.trial(), study.run()
        require(trial.status == "completed", f"{method} ended {trial.status} ({trial.reason})")
        # The first steps choose kernels and fill caches.
        rates = [p.tokens_per_s for p in study.points()[ENDS:] if p.tokens_per_s]
        require(bool(rates), f"{method} logged no speed")
        figures |= {
            f"{method}, million parameters": round(run.parameters / 1e6, 1),
            f"{method}, tokens/s": round(statistics.median(rates)),
            f"{method}, seconds to the first step": run.startup_seconds,
            f"{method}, seconds in all": round(trial.seconds, 2),
            f"{method}, peak MiB": (trial.peak_memory or 0) >> 20,
        }
        place.wait_until_free()
    return figures


def _endings(trial: Trial) -> list[str]:
    return [a.ending or "none" for a in trial.attempts]
