"""A study by halving while it runs: who waits at a rung, who was dropped, who goes on, who stalls."""

from typing import Any

from core.diagnosis.finding import Finding
from core.study.events import (
    AnyEvent,
    RungDecided,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStalled,
)
from core.study.state import StudyState
from tests.tui.fake import NOW, STEPS, FakeSource, _start, points

RATES = (3e-4, 1e-4, 6e-4, 3e-5, 2e-4, 1e-3, 5e-5, 1.5e-4)
CHOICE = (
    "portfolio: 8 trials are too few to learn from, known-good settings come first; "
    "halving: 8 trials are compared at 10 % of the probe"
)
DECIDED = "rung 1 at 10 %: 3 of 6 go on"
STALLED = "nothing logged for 6 min, where updates take 2 s"
FINDING = Finding(
    kind="oscillating",
    severity="warning",
    text="the loss swings by 0.31 around 1.92 and has not fallen for 40 updates",
    advice="lower learning_rate from 6e-4 to 3e-4",
    changes={"learning_rate": 3e-4},
    step=60,
)


def rung_end(trial: int, value: float, at: float = 0.1) -> TrialEnded:
    """A trial comes to the rung that it was sent to."""
    return TrialEnded(
        t=NOW - 500, trial=trial, attempt=1, ending="rung", step=int(STEPS * at), total_steps=STEPS,
        loss=value + 0.05, eval_loss=value, value=value, seconds=20.0, checkpoint="checkpoints/checkpoint-12",
        reason="waits at 10% of its probe",
    )  # fmt: skip


def events() -> list[AnyEvent]:
    """Trials 1 to 3 went on from the first rung, of which 2 waits at the second and 3 stalls; 4 to 6 were dropped; 7
    has diverged, 8 waits for its start."""
    log: list[AnyEvent] = [
        StudyCreated(
            t=NOW - 3600, version=3, name="halved", tunedeck="0.2.0", rank_by="eval_loss",
            planned=8, strategy="portfolio", stopping="halving", choice=CHOICE,
        )
    ]  # fmt: skip
    for number, rate in enumerate(RATES, 1):
        log.append(
            TrialAdded(
                t=NOW - 3599, trial=number, settings={"learning_rate": rate}, until=0.1,
                sampled={"learning_rate": rate}, source="portfolio" if number < 4 else "search",
            )
        )  # fmt: skip
    for number, value in enumerate((1.91, 1.93, 1.95, 2.21, 2.02, 2.10), 1):
        log += [*_start(number), rung_end(number, value)]
    dropped = {
        n: f"{v} against 1.95 of the last one kept" for n, v in ((4, 2.21), (5, 2.02), (6, 2.1))
    }
    log.append(
        RungDecided(
            t=NOW - 400, rung=1, at=0.1, kept={1: 0.3, 2: 0.3, 3: 0.3}, dropped=dropped, text=DECIDED
        )
    )  # fmt: skip
    for number in (1, 2, 3):
        log += _start(number, 2, ago=90)
    second: Any = {"attempt": 2, "checkpoint": "checkpoints/checkpoint-36"}
    log.append(
        TrialEnded(
            t=NOW - 60, trial=2, ending="rung", step=36, total_steps=STEPS, loss=1.9, eval_loss=1.88,
            value=1.88, seconds=40.0, reason="waits at 30% of its probe", **second,
        )
    )  # fmt: skip
    log.append(TrialStalled(t=NOW - 20, trial=3, attempt=2, text=STALLED))
    log += _start(7)
    log.append(
        TrialEnded(
            t=NOW - 450, trial=7, attempt=1, ending="diverged", step=8, total_steps=STEPS,
            reason="the loss became NaN at step 8",
        )
    )  # fmt: skip
    return log


def source() -> FakeSource:
    """The dashboard's source with this study open in it."""
    made = FakeSource()
    feed = made.feed
    feed.state, feed.forecasts, feed.logs = StudyState(), {}, {}
    feed.metrics = {
        1: points(1.84, STEPS, until=30),
        2: points(1.86, STEPS, until=35),
        3: points(1.9, STEPS, until=25),
        4: points(2.1, STEPS, until=10),
        5: points(1.95, STEPS, until=10),
        6: points(2.0, STEPS, until=10),
    }
    feed.space = {"learning_rate": {"low": 3e-5, "high": 1e-3, "scale": "log"}}
    feed.findings = {1: FINDING}
    feed.tell(*events())
    return made
