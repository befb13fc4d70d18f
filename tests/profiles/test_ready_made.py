"""Every profile that tunedeck ships trains: its own method and settings, on the model and the data of the demo."""

from pathlib import Path

import bitsandbytes  # noqa: F401  (before any trial: one that is not quantised hides it from peft)
import pytest

from core.params import Range
from core.profile import Profile, load, ready_made, save
from core.search.samplers import plan
from core.study.files import (
    METRICS_FILE,
    RUN_FILE,
    TRIAL_FILE,
    RunInfo,
    TrialTask,
    read_record,
)
from core.study.metrics import read_points
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.worker import train

PARAMETERS_OF = {
    # Billions of parameters, and of those the ones of the embeddings and the output head (config.json and the model card).
    "Qwen/Qwen2.5-7B-Instruct": (7.615, 1.090),
    "Qwen/Qwen2.5-3B-Instruct": (3.086, 0.311),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (0.135, 0.028),
}


def room(profile: Profile) -> float:
    """GB of the GPU that the profile's notes name."""
    words = profile.profile.notes.replace(".", " ").split()
    return float(words[words.index("GB") - 1])


def state_gb(profile: Profile) -> float:
    """GB of weights, gradients and AdamW's states on a GPU, as the worker holds them in mixed precision.

    Frozen weights are bf16 (2 bytes) or 4 bits with double-quantised scales (4.127 bits, QLoRA's paper; embeddings
    stay bf16); weights that train take 16 bytes: fp32 weight, gradient and two states.
    """
    whole, words = PARAMETERS_OF[profile.model.model_name_or_path]
    method = profile.method
    if method.finetuning_type == "full":
        return 16 * whole
    if profile.model.quantization_bit == 4:
        return 2 * words + (whole - words) * 4.127 / 8
    if method.finetuning_type == "freeze":
        # Qwen2.5-7B has 28 layers and SmolLM2-135M 30; both hold what is left next to the embeddings.
        layer = (whole - words) / (28 if whole > 1 else 30)
        trained = layer * method.freeze_trainable_layers
        return 2 * (whole - trained) + 16 * trained
    return 2 * whole


@pytest.mark.parametrize("path", ready_made(), ids=lambda p: p.stem)
def test_a_ready_made_profile_trains(path: Path, tmp_path: Path) -> None:
    shipped = load(path)
    first = plan(shipped)[0]
    profile = shipped.with_changes(
        {
            **first.settings,
            "model.model_name_or_path": "demo",
            "data.dataset": "demo",
            "data.max_samples": 40,
            "train.max_steps": 2,
        }
    ).as_training()
    save(profile, tmp_path / TRIAL_FILE)
    task = TrialTask(1, 1, "full", 1.0, "cpu", threads=1)
    report = train(tmp_path, task, Requests(), Stopwatch())
    assert report.outcome == "completed", report.error
    assert report.step == 2 and report.loss is not None and report.eval_loss is not None
    run = read_record(tmp_path / RUN_FILE, RunInfo)
    assert run is not None
    full = shipped.method.finetuning_type == "full"
    assert (run.trainable_parameters == run.parameters) == full
    rates = [p.lr for p in read_points(tmp_path / METRICS_FILE) if p.lr is not None]
    assert max(rates) == pytest.approx(profile.train.learning_rate)


@pytest.mark.parametrize("path", ready_made(), ids=lambda p: p.stem)
def test_weights_and_optimizer_leave_room_on_the_gpu_that_is_named(path: Path) -> None:
    profile = load(path)
    # The logits of a batch in bf16, in fp32, and their gradient: 10 bytes for each of its tokens and words.
    tokens = profile.train.per_device_train_batch_size * profile.data.cutoff_len
    vocabulary = 152_064 if "Qwen" in profile.model.model_name_or_path else 49_152
    assert state_gb(profile) + 10e-9 * tokens * vocabulary < 0.9 * room(profile)


@pytest.mark.parametrize(
    ("name", "gb", "said"),
    [
        ("qlora-7b-12gb", 5.5, "5.5 GB"),
        ("lora-7b-24gb", 15.2, "15 GB"),
        ("full-3b-80gb", 49.4, "49 GB"),
        ("freeze-7b-24gb", 18.5, "15 GB"),
    ],
)
def test_the_notes_sums_are_right(name: str, gb: float, said: str) -> None:
    profile = next(load(p) for p in ready_made() if p.stem == name)
    assert state_gb(profile) == pytest.approx(gb, rel=0.02)
    assert said in profile.profile.notes


@pytest.mark.parametrize("path", ready_made(), ids=lambda p: p.stem)
def test_the_first_rates_to_try_are_such_as_the_method_bears(path: Path) -> None:
    profile = load(path)
    entry = profile.search.space["learning_rate"]
    rates = [entry.low, entry.high] if isinstance(entry, Range) else [float(v) for v in entry]
    low, high = {"full": (2e-6, 1e-4), "freeze": (1e-5, 1e-4), "lora": (3e-5, 1e-3)}[
        profile.method.finetuning_type
    ]
    assert low <= min(rates) and max(rates) <= high
