"""A trial that dies of memory for real, what is said about it, and the fix that lets it finish."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.wire import Wire
from tests.e2e.place import COMMAND, Place, until

PROFILE = """
[profile]
name = "tight"
[model]
model_name_or_path = "demo"
[method]
finetuning_type = "full"
[data]
dataset = "demo"
cutoff_len = 128
val_size = 16
[train]
per_device_train_batch_size = 256
per_device_eval_batch_size = 8
gradient_accumulation_steps = 1
max_steps = 2
precision = "fp32"
[memory]
limit_gib = 1.6
on_oom = "{on_oom}"
[resources]
devices = "cpu"
[search]
strategy = "grid"
budget = 1.0
[search.space]
learning_rate = [3e-4]
"""

pytestmark = pytest.mark.xdist_group("heavy")


def write(place: Place, on_oom: str) -> None:
    (place.folder / "tight.toml").write_text(PROFILE.format(on_oom=on_oom))


def the_trial(place: Place) -> dict[str, Any]:
    (trial,) = place.json("trials", "study")
    return dict(trial)


def report(place: Place) -> dict[str, Any]:
    file = Path(place.folder / "study" / "trials" / "0001" / "report.json")
    return dict(json.loads(file.read_text()))


def check_the_reading(trial: dict[str, Any]) -> None:
    """What is said about the first attempt: what ran out, and in which part of the run."""
    first = trial["attempts"][0]
    assert first["ending"] == "oom"
    assert "memory limit of 1.6 GiB" in first["reason"]
    assert "in the forward pass" in first["reason"] or "in the backward pass" in first["reason"]


def check_the_mended_run(trial: dict[str, Any]) -> None:
    """The last attempt finished, and every update learnt from as many rows as was asked for."""
    assert trial["status"] == "completed"
    assert trial["step"] == 2
    settings = {"per_device_train_batch_size": 256, "gradient_accumulation_steps": 1}
    settings |= trial["overrides"]
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    assert batch == 256
    assert trial["overrides"]


def test_over_night_the_first_fix_is_applied_and_the_trial_finishes(place: Place) -> None:
    write(place, "apply")
    out = place.must("run", "tight.toml", "--headless", "--study", "study")
    assert "out of memory: The trial reached its memory limit of 1.6 GiB" in out
    assert "suggested: " in out
    trial = the_trial(place)
    check_the_reading(trial)
    check_the_mended_run(trial)


def test_a_key_applies_the_first_fix_that_is_proposed(place: Place) -> None:
    write(place, "ask")
    ran = place.run("run", "tight.toml", "--headless", "--study", "study")
    assert "waits for its fix: tunedeck retry" in ran.stdout, ran.stdout + ran.stderr
    waiting = the_trial(place)
    check_the_reading(waiting)
    assert waiting["status"] == "oom"
    first = waiting["suggestion"]["changes"]
    assert len(waiting["suggestion"]["fixes"]) > 1
    assert report(place)["moment"] in ("forward", "backward")

    with Wire(
        [*COMMAND, "attach", "study"], columns=120, rows=36, env=place.env, cwd=place.folder
    ) as wire:
        wire.wait_for("OOM")
        wire.send("f")
        wire.wait_for("Try trial 1 again")
        wire.send("1")
        until(lambda: the_trial(place)["overrides"] == first, "the key applies the first fix")
        until(lambda: the_trial(place)["status"] == "completed", "the mended trial ends")
        wire.wait_for("completed")
    check_the_mended_run(the_trial(place))
