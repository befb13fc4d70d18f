"""A real model through several stages, as its users take it: sft, dpo on the result, one model of both, and a talk."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.place import COMMAND, Place
from tests.e2e.test_real_model import DATA, smollm2

SFT = """
[profile]
name = "sft"
[model]
model_name_or_path = "{model}"
[method]
stage = "sft"
lora_rank = 4
[data]
dataset = "{data}"
cutoff_len = 48
max_samples = 20
val_size = 0
[train]
per_device_train_batch_size = 2
gradient_accumulation_steps = 1
max_steps = 3
learning_rate = 1e-3
lr_scheduler_type = "constant"
warmup_ratio = 0.0
[resources]
devices = "cpu"
"""
DPO = """
[profile]
name = "dpo"
[model]
model_name_or_path = "{model}"
[method]
stage = "dpo"
lora_rank = 4
[alignment]
pref_beta = 0.1
[data]
dataset = "{data}"
cutoff_len = 48
val_size = 0
[train]
per_device_train_batch_size = 1
gradient_accumulation_steps = 1
max_steps = 3
learning_rate = 5e-4
lr_scheduler_type = "constant"
warmup_ratio = 0.0
[generation]
max_new_tokens = 8
[resources]
devices = "cpu"
"""


@pytest.mark.xdist_group("heavy")
def test_a_model_goes_from_sft_through_dpo_to_an_export_that_answers(place: Place) -> None:
    (place.folder / "sft.toml").write_text(SFT.format(model=smollm2(), data=DATA))
    place.must("train", "sft.toml", "--headless", "--study", "sft")
    # In fp32: a CPU computes the checks several times as fast as in the fp16 of the file.
    place.must("export", "sft", "-o", "after-sft", "--dtype", "fp32")

    (place.folder / "dpo.toml").write_text(DPO.format(model="after-sft", data=_pairs(place.folder)))
    place.must("train", "dpo.toml", "--headless", "--study", "dpo")
    points = [
        json.loads(line)
        for line in (place.folder / "dpo/trials/0001/metrics.jsonl").read_text().splitlines()
    ]
    losses = [point["loss"] for point in points if "loss" in point]
    assert losses[0] == pytest.approx(0.6931, abs=0.02), "policy and reference begin as one"
    assert losses[-1] < losses[0]

    told = place.json("export", "dpo", "-o", "tuned", "--dtype", "fp32")
    assert told["kind"] == "model" and all(c["error"] <= c["tolerance"] for c in told["checks"])
    card = (place.folder / "tuned" / "README.md").read_text("utf-8")
    assert "preference optimisation (DPO)" in card and str(place.folder) not in card

    said = _talk(place, "dpo", "--temperature", "0")
    assert re.search(r"\w", said)
    assert said == _talk(place, "tuned", "--temperature", "0", "--max-new-tokens", "8"), (
        "the run and the model that was made of it say the same"
    )


def _pairs(folder: Path) -> Path:
    """The answers of the instruction set against a refusal to answer."""
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()[:12]]
    file = folder / "pairs.jsonl"
    pairs = (
        {"instruction": r["instruction"], "chosen": r["output"][:80], "rejected": "I do not know."}
        for r in rows
    )
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    return file


def _talk(place: Place, run: str, *flags: str) -> str:
    ran = subprocess.run(
        [*COMMAND, "chat", run, "--device", "cpu", *flags],
        cwd=place.folder, env=place.env, input="What is the capital of France?\n",
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
