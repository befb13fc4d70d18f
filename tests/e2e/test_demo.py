"""The demo as a newcomer meets it, and a data set that is wrong, through the real command."""

import re
import tomllib

import pytest

from bench.wire import Wire
from core.rows.first import ROWS as FIRST
from tests.e2e.place import COMMAND, Place

pytestmark = pytest.mark.xdist_group("heavy")


def test_the_demo_shows_a_search_a_stop_an_out_of_memory_its_fix_and_the_winner(
    place: Place,
) -> None:
    out = place.must("demo", "--headless")
    assert "stopping: loss rose to" in out
    assert "out of memory: The trial reached its memory limit of 1.6 GiB" in out
    assert "trial 5: looking for a fix that fits" in out
    assert re.search(
        r"suggested: per-device batch 256 → \d+, .* the effective batch stays 256", out
    )
    assert "Best: trial" in out

    folder = place.folder / "studies" / "demo"
    trials = {t["number"]: t for t in place.json("trials", "demo")}
    endings = sorted(t["status"] for t in trials.values())
    assert endings == ["completed"] * 4 + ["diverged"]
    mended = next(t for t in trials.values() if len(t["attempts"]) > 1)
    assert mended["attempts"][0]["ending"] == "oom"
    assert mended["overrides"]["gradient_accumulation_steps"] > 1
    best = place.json("best", "demo")
    tuned = tomllib.loads((folder / "tuned.toml").read_text())
    assert tuned["train"]["learning_rate"] == best["settings"]["learning_rate"]
    assert tuned["tuned"]["value"] == pytest.approx(best["eval_loss"])

    with Wire(
        [*COMMAND, "attach", "demo"], columns=120, rows=36, env=place.env, cwd=place.folder
    ) as wire:
        wire.wait_for("5/5")
        wire.send("5")
        wire.wait_for("best against the field")


def test_a_wrong_data_row_is_named_and_nothing_else_is_burnt(place: Place) -> None:
    (place.folder / "rows.jsonl").write_text(
        # Beyond the rows that are looked at before anything starts.
        '{"instruction": "a", "input": "", "output": "b"}\n' * FIRST
        + '{"instruction": "a", "answer": "b"}\n'
    )
    (place.folder / "p.toml").write_text(
        '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "rows.jsonl"\nval_size = 0.0\n'
        '[resources]\ndevices = "cpu"\n[search]\nstrategy = "grid"\n'
        "[search.space]\nlearning_rate = [1e-5, 2e-5, 3e-5, 4e-5]\n"
    )
    ran = place.run("run", "p.toml", "--headless", "--study", "s")
    assert ran.returncode == 1
    assert f"row {FIRST + 1}" in ran.stdout
    assert "output" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    started = [t for t in place.json("trials", "s") if t["attempts"]]
    assert len(started) < 4, "the same mistake is not made with every setting"
