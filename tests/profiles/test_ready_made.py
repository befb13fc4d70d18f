"""Every profile that tunedeck ships trains: its own method and settings, on the model and the data of the demo."""

from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401  (before any trial: one that is not quantised hides it from peft)
import datasets  # noqa: F401  (the same: one whose stage does not need it hides it from transformers)
import pytest

from core.memory.estimate.stages import needs_of
from core.params import Range
from core.profile import Profile, load, ready_made, resolve, save
from core.search.metric import resolve as resolve_metric
from core.search.metric import value_of
from core.search.samplers import plan
from core.study.files import (
    METRICS_FILE,
    OUTPUT,
    RUN_FILE,
    TRIAL_FILE,
    RunInfo,
    TrialTask,
    WorkerReport,
    read_record,
)
from core.study.metrics import read_points
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.worker import train

BEARS = {
    "learn": {"full": (2e-6, 1e-4), "freeze": (1e-5, 1e-4), "lora": (3e-5, 1e-3)},
    "score": {"full": (2e-6, 5e-5), "freeze": (1e-5, 1e-4), "lora": (2e-5, 5e-4)},
    "prefer": {"full": (1e-7, 2e-6), "freeze": (2e-7, 5e-6), "lora": (5e-7, 5e-5)},
    "ppo": {"full": (1e-6, 2e-5), "freeze": (1e-6, 2e-5), "lora": (1e-6, 2e-5)},
}
"""The rates that stages and methods bear."""

PARAMETERS_OF = {
    # Billions of parameters, and of those the ones of the embeddings and the output head (config.json and the model card).
    "Qwen/Qwen2.5-7B-Instruct": (7.615, 1.090),
    "Qwen/Qwen2.5-3B-Instruct": (3.086, 0.311),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (0.135, 0.028),
    "HuggingFaceTB/SmolLM2-135M": (0.135, 0.028),
}


SINGLE = [path for path in ready_made() if not path.stem.startswith("recipe-")]


def room(profile: Profile) -> float:
    """GB of the GPU that the profile's notes name."""
    words = profile.profile.notes.replace(".", " ").split()
    return float(words[words.index("GB") - 1])


def state_gb(profile: Profile) -> float:
    """GB of all models, gradients and AdamW's states on a GPU: the one that trains, and what it is held to."""
    whole, _ = PARAMETERS_OF[profile.model.model_name_or_path]
    needs = needs_of(profile)
    return own_gb(profile) + 2 * whole * (needs.references + needs.rewards)


def own_gb(profile: Profile) -> float:
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


def on_the_demo(shipped: Profile) -> dict[str, Any]:
    """Changes that make a shipped profile a run of seconds; its data are the demo's own for its stage."""
    first = plan(shipped)[0]
    changes = {
        **first.settings,
        "model.model_name_or_path": "demo",
        "data.max_samples": 40,
        "data.cutoff_len": 64 if shipped.method.stage == "pt" else 256,
        "train.max_steps": 2,
        "train.per_device_train_batch_size": 2,
        "train.gradient_accumulation_steps": 2,
    }
    if shipped.method.stage == "ppo":
        changes["generation.max_new_tokens"] = 8
    return changes


def run_here(profile: Profile, folder: Path, *, keep: bool = False) -> WorkerReport:
    save(profile, folder / TRIAL_FILE)
    task = TrialTask(1, 1, "full", 1.0, "cpu", threads=1, save_model=keep)
    return train(folder, task, Requests(), Stopwatch())


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the profiles of stage ppo need: a reward model, trained as the profile of stage rm says."""
    folder = tmp_path_factory.mktemp("reward")
    shipped = load(resolve("rm-lora-small"))
    report = run_here(shipped.with_changes(on_the_demo(shipped)).as_training(), folder, keep=True)
    assert report.outcome == "completed", report.error
    return str(folder / OUTPUT)


@pytest.mark.parametrize("path", SINGLE, ids=lambda p: p.stem)
def test_a_ready_made_profile_trains(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shipped = load(path)
    changes = on_the_demo(shipped)
    if shipped.method.stage == "ppo":
        changes["alignment.reward_model"] = request.getfixturevalue("reward_model")
    profile = shipped.with_changes(changes).as_training()
    report = run_here(profile, tmp_path)
    assert report.outcome == "completed", report.error
    assert report.step == 2 and report.loss is not None
    run = read_record(tmp_path / RUN_FILE, RunInfo)
    assert run is not None
    full = shipped.method.finetuning_type == "full"
    assert (run.trainable_parameters == run.parameters) == full
    points = read_points(tmp_path / METRICS_FILE)
    rates = [p.lr for p in points if p.lr is not None]
    assert max(rates) == pytest.approx(profile.train.learning_rate)
    metric = resolve_metric(profile.rank_by(), stage=profile.method.stage)
    assert value_of(points, metric) is not None


@pytest.mark.parametrize("path", SINGLE, ids=lambda p: p.stem)
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


@pytest.mark.parametrize("path", SINGLE, ids=lambda p: p.stem)
def test_the_first_rates_to_try_are_such_as_the_method_bears(path: Path) -> None:
    profile = load(path)
    entry = profile.search.space["learning_rate"]
    rates = [entry.low, entry.high] if isinstance(entry, Range) else [float(v) for v in entry]
    stage = profile.method.stage
    kind = {"pt": "learn", "sft": "learn", "rm": "score", "ppo": "ppo"}.get(stage, "prefer")
    low, high = BEARS[kind][profile.method.finetuning_type]
    assert low <= min(rates) and max(rates) <= high
