"""Studies that searched: rungs, confirmations, every kind of ending. Fixed numbers, no randomness."""

import math
from typing import Any

from core.study.events import (
    AnyEvent,
    RungDecided,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarted,
    TrialStarting,
)
from core.study.files import ProcessRecord
from core.study.state import StudyState
from core.values import Scalar
from tests.tui.fake import GPU_UUID, NOW, FakeSource

STEPS = 400
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 3e-3, "scale": "log"},
    "lora_rank": [4, 8, 16, 32, 64],
    "lora_dropout": {"low": 0.0, "high": 0.2},
    "lr_scheduler_type": ["linear", "cosine", "constant_with_warmup"],
    "weight_decay": {"low": 0.0, "high": 0.3},
    "per_device_train_batch_size": [4, 8, 16],
}


def point(number: int) -> dict[str, Scalar]:
    """The settings of a trial: spread over the space by multiples of irrational numbers."""
    u = [(number * step) % 1.0 for step in (0.6180339887, 0.7548776662, 0.5698402910, 0.3247179572, 0.8191725134, 0.4655712319)]  # fmt: skip
    return {
        "learning_rate": float(f"{1e-5 * 300 ** u[0]:.2e}"),
        "lora_rank": SPACE["lora_rank"][int(u[1] * 5)],
        "lora_dropout": round(0.2 * u[2], 3),
        "lr_scheduler_type": SPACE["lr_scheduler_type"][int(u[3] * 3)],
        "weight_decay": round(0.3 * u[4], 3),
        "per_device_train_batch_size": SPACE["per_device_train_batch_size"][int(u[5] * 3)],
    }


def loss_at(settings: dict[str, Scalar], share: float) -> float | None:
    """What a trial comes to after a share of its probe; None where it has diverged."""
    rate, rank = float(settings["learning_rate"]), float(settings["lora_rank"])
    if rate > 1.6e-3 or (rate > 1.2e-3 and rank > 16):
        return None
    off = math.log10(rate / 3e-4)
    return 1.81 + 0.09 * off * off + 0.01 * abs(math.log2(rank / 16)) + 0.35 * (1 - share) ** 2


def searched(trials: int = 27, *, direction: str = "min", confirmed: bool = True) -> list[AnyEvent]:
    """A study by halving with rungs at 10 % and 30 %, of which the first two are run again."""
    log: list[AnyEvent] = [
        StudyCreated(
            t=NOW - 9000, version=3, name="lora-search", tunedeck="0.2.0",
            rank_by="eval_loss" if direction == "min" else "eval_accuracy", direction=direction,  # type: ignore[arg-type]
            planned=trials, stopping="halving", choice="random with halving: 27 trials on one GPU",
        )
    ]  # fmt: skip
    settings = {n: point(n) for n in range(1, trials + 1)}
    for n, chosen in settings.items():
        log.append(TrialAdded(t=NOW - 8999, trial=n, settings=chosen, sampled=chosen, until=0.1))
    left = list(settings)
    for rung, (at, until) in enumerate(((0.1, 0.3), (0.3, 1.0)), 1):
        found: dict[int, float] = {}
        for n in left:
            value = loss_at(settings[n], at)
            if value is None:
                log += [*_start(n, rung), _end(n, rung, "diverged", None, int(STEPS * at * 0.6))]
            elif n % 13 == 5 and rung == 1:
                log += [*_start(n, rung), _end(n, rung, "oom", None, 0)]
            else:
                found[n] = value
                log += [
                    *_start(n, rung),
                    _end(n, rung, "rung", _told(value, direction), int(STEPS * at)),
                ]
        order = sorted(found, key=found.__getitem__)
        left = order[: max(2, len(order) // 3)]
        log.append(
            RungDecided(
                t=NOW - 5000, rung=rung, at=at, kept=dict.fromkeys(left, until),
                dropped={n: f"{found[n]:.3f} at {at:.0%}: the worst kept has {found[left[-1]]:.3f}" for n in order[len(left):]},
            )
        )  # fmt: skip
    for n in left:
        value = loss_at(settings[n], 1.0)
        log += [*_start(n, 3), _end(n, 3, "completed", _told(value, direction), STEPS)]
    if confirmed:
        for i, n in enumerate(left[:2], 1):
            log.append(
                TrialAdded(t=NOW - 900, trial=trials + i, settings={**settings[n], "seed": 7}, sampled=settings[n], source="confirm", parent=n)
            )  # fmt: skip
            value = (loss_at(settings[n], 1.0) or 0.0) + 0.003 * i
            log += [
                *_start(trials + i, 1),
                _end(trials + i, 1, "completed", _told(value, direction), STEPS),
            ]
    log.append(StudyChanged(t=NOW - 60, status="finished"))
    return log


def _told(value: float | None, direction: str) -> float | None:
    """As the study's metric has it: an accuracy where a large one is good."""
    return value if value is None or direction == "min" else 2.5 - value


def _start(trial: int, attempt: int) -> list[AnyEvent]:
    shim = ProcessRecord(pid=4000 + trial, started=1, boot_id="boot")
    return [
        TrialStarting(t=NOW - 8000, trial=trial, attempt=attempt, device="cuda", gpus=(GPU_UUID,)),
        TrialStarted(t=NOW - 8000, trial=trial, attempt=attempt, shim=shim),
    ]


def _end(trial: int, attempt: int, ending: Any, value: float | None, step: int) -> TrialEnded:
    return TrialEnded(
        t=NOW - 6000, trial=trial, attempt=attempt, ending=ending, step=step, total_steps=STEPS,
        loss=value, eval_loss=value, value=value, seconds=0.5 * step, peak_memory=11 * 2**30,
    )  # fmt: skip


def source_of(log: list[AnyEvent], space: dict[str, Any] | None = None) -> FakeSource:
    """The dashboard's source with this study open in it."""
    source = FakeSource()
    feed = source.feed
    feed.state, feed.metrics, feed.forecasts = StudyState(), {}, {}
    feed.space = dict(SPACE if space is None else space)
    feed.engine = "idle"
    feed.tell(*log)
    return source
