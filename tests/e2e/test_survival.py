"""Clients, the engine and a worker are killed; every trial and every metric is found again."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from bench.wire import Wire
from tests.e2e.place import COMMAND, Place, until

PROFILE = """
[profile]
name = "survival"
[model]
model_name_or_path = "demo"
[method]
finetuning_type = "full"
[data]
dataset = "demo"
cutoff_len = 64
val_size = 16
[train]
per_device_train_batch_size = 8
gradient_accumulation_steps = 1
max_steps = 120
eval_steps = 60
precision = "fp32"
save_steps = 10
[resources]
devices = "cpu"
parallel = 2
[search]
strategy = "grid"
budget = 1.0
[search.space]
learning_rate = [3e-4, 1e-3]
"""

pytestmark = pytest.mark.xdist_group("heavy")


def steps(study: Path, trial: int) -> list[int]:
    """The steps whose training loss is in the metrics file, in file order."""
    file = study / "trials" / f"{trial:04d}" / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [p["step"] for p in map(json.loads, lines) if "loss" in p]


def processes(role: str, folder: Path) -> list[psutil.Process]:
    """tunedeck's processes of one role (`_daemon`, `_shim`, `_worker`) for a study."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if role in words and any(str(folder) in w for w in words):
            found.append(process)
    return found


def start(place: Place) -> Path:
    (place.folder / "survival.toml").write_text(PROFILE)
    place.must("run", "survival.toml", "--detach", "--study", "study")
    return place.folder / "study"


def statuses(place: Place) -> dict[int, str]:
    return {t["number"]: t["status"] for t in place.json("trials", "study")}


def test_trials_survive_the_client_the_engine_and_a_worker(place: Place) -> None:
    study = start(place)
    with Wire(
        [*COMMAND, "attach", "study"], columns=120, rows=40, env=place.env, cwd=place.folder
    ) as wire:
        until(lambda: len(steps(study, 1)) > 3 and len(steps(study, 2)) > 3, "both trials train")
        wire.wait_for("running")
        os.kill(wire.process.pid, signal.SIGKILL)

    (engine,) = processes("_daemon", study)
    engine.kill()
    engine.wait(120)
    before = len(steps(study, 1))
    assert len(processes("_worker", study)) == 2, "a killed engine leaves its trials running"
    until(lambda: len(steps(study, 1)) > before, "a trial goes on without the engine")
    assert place.json("status", "study")["engine"] is False

    victim = next(p for p in processes("_worker", study) if "0002" in " ".join(p.cmdline()))
    victim.kill()
    out = place.must("attach", "study", "--headless")
    assert "starting it again" in out

    assert statuses(place) == {1: "completed", 2: "failed"}
    trials = {t["number"]: t for t in place.json("trials", "study")}
    assert len(trials[1]["attempts"]) == 1, "the trial that nobody killed was adopted, not repeated"
    assert "SIGKILL" in trials[2]["reason"], trials[2]["reason"]
    place.must("retry", "study", "2")
    place.must("attach", "study", "--headless")
    assert statuses(place) == {1: "completed", 2: "completed"}
    assert steps(study, 1) == list(range(1, 121)), "every metric of it is there, once"
    assert set(steps(study, 2)) == set(range(1, 121))
    place.must("save", "study", "-o", "tuned.toml")


def test_a_trial_whose_shim_was_killed_is_found_lost_and_tried_again(place: Place) -> None:
    study = start(place)
    until(lambda: len(steps(study, 2)) > 12, "the trial trains past its first checkpoint")
    shim = next(p for p in processes("_shim", study) if "0002" in " ".join(p.cmdline()))
    worker = next(p for p in processes("_worker", study) if "0002" in " ".join(p.cmdline()))
    shim.kill()
    worker.wait(120)
    place.must("attach", "study", "--headless")
    trials = {t["number"]: t for t in place.json("trials", "study")}
    assert [a["ending"] for a in trials[2]["attempts"]] == ["lost", "completed"]
    assert len(trials[1]["attempts"]) == 1
    assert set(steps(study, 2)) == set(range(1, 121))


def test_a_dropped_terminal_ends_the_dashboard_and_nothing_else(place: Place) -> None:
    study = start(place)
    with Wire(
        [*COMMAND, "attach", "study"], columns=80, rows=24, env=place.env, cwd=place.folder
    ) as wire:
        wire.wait_for("running")
        wire.hang_up()
        wire.process.wait(120)
    before = len(steps(study, 1))
    until(lambda: len(steps(study, 1)) > before, "a trial goes on without a terminal")
    with Wire(
        [*COMMAND, "attach", "study"], columns=80, rows=24, env=place.env, cwd=place.folder
    ) as wire:
        wire.wait_for("running")
        wire.send("q")
        wire.process.wait(120)
    place.must("stop", "study")
    until(lambda: set(statuses(place).values()) <= {"stopped", "completed"}, "the study stops")


def test_a_paused_trial_frees_its_place_and_goes_on_where_it_was(place: Place) -> None:
    study = start(place)
    until(lambda: len(steps(study, 1)) > 5, "the trial trains")
    place.must("pause", "study", "1")
    until(lambda: statuses(place)[1] == "paused", "the trial pauses")
    assert not [p for p in processes("_worker", study) if "0001" in " ".join(p.cmdline())]
    reached = steps(study, 1)[-1]
    place.must("resume", "study", "1")
    place.must("attach", "study", "--headless")
    assert statuses(place) == {1: "completed", 2: "completed"}
    assert steps(study, 1) == list(range(1, 121)), f"no step is lost or repeated around {reached}"


def test_a_second_engine_is_refused(place: Place) -> None:
    study = start(place)
    second = place.run("_daemon", str(study), "--foreground")
    assert second.returncode == 1
    assert "already" in second.stdout + second.stderr
    place.must("stop", "study")
