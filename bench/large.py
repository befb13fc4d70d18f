"""A study as it looks after a long night: thousands of trials with all their points. Nothing in it ran."""

import math
import random
from pathlib import Path

from core.profile import from_document, save
from core.study.events import (
    JOURNAL_VERSION,
    AnyEvent,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    Warned,
    encode,
)
from core.study.journal import seal
from core.study.metrics import Point, encode_point
from core.study.store import StudyFolder
from core.values import Scalar

START = 1_760_000_000.0


def make_large_study(path: Path, trials: int, points: int) -> Path:
    """Write a finished study of `trials` trials with `points` logged points each."""
    folder = StudyFolder(path)
    path.mkdir(parents=True)
    profile = from_document(
        {
            "model": {"model_name_or_path": "demo"},
            "data": {"dataset": "demo"},
            "search": {
                "trials": trials,
                "space": {"learning_rate": {"low": 1e-5, "high": 1e-2, "scale": "log"}, "lora_rank": [8, 16, 32]},
            },
        }
    )  # fmt: skip
    save(profile, folder.profile)
    chance = random.Random(0)
    with folder.journal.open("wb") as journal:
        journal.write(seal(encode(created(trials))))
        for number in range(1, trials + 1):
            rate = float(f"{10 ** chance.uniform(-5, -2):.3g}")
            best = 1.2 + abs(math.log10(rate) + 3.5) * 0.4 + chance.uniform(0, 0.05)
            for event in trial_events(number, rate, chance.choice([8, 16, 32]), best, points):
                journal.write(seal(encode(event)))
            write_points(folder.trial(number).metrics, chance, best, points)
        journal.write(seal(encode(StudyChanged(t=START, status="finished", reason="a bench"))))
    return path


def created(trials: int) -> StudyCreated:
    return StudyCreated(
        t=START, version=JOURNAL_VERSION, name="large", tunedeck="bench", rank_by="eval_loss", planned=trials
    )  # fmt: skip


def trial_events(number: int, rate: float, rank: int, best: float, points: int) -> list[AnyEvent]:
    settings: dict[str, Scalar] = {"learning_rate": rate, "lora_rank": rank}
    return [
        TrialAdded(t=START, trial=number, settings=settings),
        TrialStarting(t=START, trial=number, attempt=1, device="cpu"),
        TrialEnded(
            t=START + 60, trial=number, attempt=1, ending="completed", step=points, total_steps=points,
            loss=best, eval_loss=best + 0.1, peak_memory=8 << 30, seconds=60,
        ),
    ]  # fmt: skip


def write_points(file: Path, chance: random.Random, best: float, points: int) -> None:
    file.parent.mkdir(parents=True)
    lines = []
    for step in range(1, points + 1):
        loss = best + 3 * math.exp(-step / 80) + chance.gauss(0, 0.05)
        point = Point(
            t=START + step / 10, step=step, loss=loss, grad_norm=1.0, lr=1e-4, tokens=step * 4096, tokens_per_s=9000.0
        )  # fmt: skip
        lines.append(encode_point(point))
    file.write_bytes(b"".join(lines))


def touch(path: Path, number: int) -> None:
    """Let one more thing happen to the study."""
    with StudyFolder(path).journal.open("ab") as journal:
        journal.write(seal(encode(Warned(t=START + number, text=f"note {number}"))))
        again = trial_events(number, 1e-4, 8, 2.0 + number / 100, 500)[-1]
        journal.write(seal(encode(again)))
