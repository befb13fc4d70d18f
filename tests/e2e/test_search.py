"""Searches as they run for real: the engine, its workers, trials that wait at rungs, second runs, a range test."""

import json
import math
import os
import signal
import tomllib
from itertools import pairwise
from typing import Any

import pytest

from core.engine.address import read_info
from core.study.state import StudyState, Trial
from core.study.store import StudyFolder, StudyReader
from tests.e2e.place import Place, until

pytestmark = pytest.mark.xdist_group("heavy")

PROFILE = """
[profile]
name = "search"
[model]
model_name_or_path = "demo"
[method]
finetuning_type = "full"
[data]
dataset = "demo"
cutoff_len = 48
max_samples = 200
val_size = 8
[train]
per_device_train_batch_size = 4
gradient_accumulation_steps = 1
max_steps = {steps}
eval_steps = {steps}
precision = "fp32"
[resources]
devices = "cpu"
parallel = 2
[search]
{search}
[search.space]
{space}
"""


def write(place: Place, name: str, steps: int, search: str, space: str) -> None:
    text = PROFILE.format(steps=steps, search=search, space=space)
    (place.folder / f"{name}.toml").write_text(text)


def state_of(place: Place, name: str) -> StudyState:
    return StudyReader(place.folder / name).state


def points(place: Place, name: str, trial: int) -> list[dict[str, Any]]:
    """All that a trial's workers wrote, in file order: nothing is left out here, unlike by who reads for people."""
    file = place.folder / name / "trials" / f"{trial:04d}" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def steps_of(place: Place, name: str, trial: int) -> list[int]:
    return [p["step"] for p in points(place, name, trial) if "loss" in p]


HALVING = """strategy = "grid"
stopping = "halving"
portfolio = false
budget = 0.5
first_rung = 0.4
keep_checkpoints = true"""


def test_halving_pauses_trials_and_goes_on_with_the_best_whose_training_can_be_continued(
    place: Place,
) -> None:
    write(place, "halving", 24, HALVING, "learning_rate = [1e-7, 1e-6, 1e-3, 3e-3]")
    place.must("run", "halving.toml", "--detach", "--study", "halving")
    waiting = lambda: state_of(place, "halving").waiting_at_rung()  # noqa: E731
    until(lambda: bool(waiting()), "a trial comes to its rung")
    # Who waits at a rung is in the journal alone; whoever takes the study up decides as the engine would have.
    engine = read_info(StudyFolder(place.folder / "halving"))
    assert engine is not None
    os.kill(engine.process.pid, signal.SIGKILL)
    place.must("attach", "halving", "--headless")
    state = state_of(place, "halving")
    trials = state.trials
    assert [t.status for t in trials.values()] == ["pruned", "pruned", "completed", "completed"]
    assert set(state.decisions[0].kept) == {3, 4} and set(state.decisions[0].dropped) == {1, 2}
    for trial in trials.values():
        rungs = [r.step for r in trial.rungs]
        # The first one at two fifths of 12 updates; whether another one is worth it is the rule's to say.
        assert rungs[0] == 5 and rungs == [math.ceil(12 * r.at - 1e-9) for r in trial.rungs]
        assert all(r.value is not None for r in trial.rungs)
        end = ["completed"] if trial.status == "completed" else []
        assert [a.ending for a in trial.attempts] == [*("rung" for _ in rungs), *end]
        last = 12 if end else rungs[-1]
        steps = steps_of(place, "halving", trial.number)
        assert steps == list(range(1, last + 1)), "every step was trained once"
        tokens = [p["tokens"] for p in points(place, "halving", trial.number) if "loss" in p]
        assert tokens == sorted(set(tokens)) and trial.tokens == tokens[-1]
        kept = place.folder / "halving" / "trials" / f"{trial.number:04d}" / "checkpoints"
        assert [p.name for p in kept.glob("*")] == (["checkpoint-12"] if end else [])
    continue_best(place, trials)


def continue_best(place: Place, trials: dict[int, Trial]) -> None:
    """The winner's full training goes on from its probe."""
    best = place.json("best", "halving")["number"]
    place.must("promote", "halving", str(best), "--continue")
    place.must("attach", "halving", "--headless")
    full = state_of(place, "halving").trials[5]
    assert (full.kind, full.parent, full.status) == ("full", best, "completed"), full.reason
    assert steps_of(place, "halving", 5) == list(range(13, 25)), "it begins where the probe ended"
    assert full.tokens is not None and full.tokens > (trials[best].tokens or math.inf)
    output = place.folder / "halving" / "trials" / "0005" / "output"
    assert (output / "model.safetensors").is_file()


BAYESIAN = """strategy = "bayesian"
stopping = "none"
trials = 4
budget = 1.0
confirm = 2
seed = 3"""


def test_a_bayesian_search_draws_one_by_one_and_confirms_its_best_two(place: Place) -> None:
    write(
        place, "bayesian", 4, BAYESIAN, 'learning_rate = { low = 1e-5, high = 1e-2, scale = "log" }'
    )
    place.must("run", "bayesian.toml", "--headless", "--study", "bayesian")
    trials = list(state_of(place, "bayesian").trials.values())
    assert {t.status for t in trials} == {"completed"}, [t.reason for t in trials]
    searched = [t for t in trials if t.source != "confirm"]
    seconds = [t for t in trials if t.source == "confirm"]
    assert (len(searched), len(seconds)) == (4, 2)
    rates = [t.settings["learning_rate"] for t in searched]
    assert len(set(rates)) == 4 and all(1e-5 <= float(r) <= 1e-2 for r in rates)
    found = sorted(searched, key=lambda t: t.value if t.value is not None else math.inf)
    assert {t.parent for t in seconds} == {t.number for t in found[:2]}
    best = place.json("best", "bayesian")
    again = next(t for t in seconds if t.parent == best["number"])
    first = next(t for t in searched if t.number == best["number"])
    assert again.value != first.value, "another seed gives another result"
    saved = tomllib.loads((place.folder / "bayesian" / "tuned.toml").read_text())
    tuned = saved["tuned"]
    assert (tuned["seeds"], tuned["strategy"]) == (2, "bayesian")
    assert tuned["value"] == pytest.approx(((again.value or 0) + (first.value or 0)) / 2)


def test_a_range_test_finds_rates_that_train(place: Place) -> None:
    write(place, "range", 24, "", "")
    place.must(
        "lr-range", "range.toml", "--low", "1e-5", "--high", "1e3", "--steps", "60",
        "--study", "range", "-o", "searched.toml",
    )  # fmt: skip
    (trial,) = state_of(place, "range").trials.values()
    assert (trial.kind, trial.status) == ("range", "completed"), trial.reason
    read = points(place, "range", 1)
    assert [p["step"] for p in read] == list(range(1, len(read) + 1)) and len(read) < 60
    assert read[0]["lr"] == pytest.approx(1e-5)
    assert all(b["lr"] / a["lr"] == pytest.approx(10 ** (8 / 59)) for a, b in pairwise(read))
    folder = place.folder / "range" / "trials" / "0001"
    assert not (folder / "checkpoints").exists() and not (folder / "output").exists()
    space = tomllib.loads((place.folder / "searched.toml").read_text())["search"]["space"]
    suggested = space["learning_rate"]
    assert 1e-5 <= suggested["low"] < suggested["high"] < read[-1]["lr"]
