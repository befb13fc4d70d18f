"""Every stage × method that is allowed trains for real, on the shipped model and its data; what it leaves reloads.

Nothing runs twice. On models of two layers that are made in their tests, these learn, reload and answer as well:
dpo with full, freeze, lora and qlora, by each of its five losses (`stages/test_dpo.py`); rm with all four
(`stages/test_reward.py`); kto with all four (`stages/test_kto.py`); ppo with full, lora and freeze, where the right
answer is known (`stages/test_ppo.py`). Here are the rest: pt and sft with all four, ppo with qlora, and one run of each
other stage, so that each logs what its people watch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401  (before any trial: one that is not quantised hides it from peft)
import datasets  # noqa: F401  (the same: one whose stage does not need it hides it from transformers)
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from core.logged import STAGE_LOGS
from core.profile import DEMO_MODEL, from_document, save
from core.search.smoothing import smooth
from core.study.files import METRICS_FILE, OUTPUT, TRIAL_FILE, TrialTask
from core.study.metrics import Point, read_points
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.worker import train

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method.finetuning_type": "full", "train.learning_rate": 1e-3},
    "freeze": {
        "method.finetuning_type": "freeze",
        "method.freeze_trainable_layers": 2,
        "train.learning_rate": 2e-3,
    },
    "lora": {"method.finetuning_type": "lora", "train.learning_rate": 5e-3},
    "qlora": {
        "method.finetuning_type": "lora",
        "model.quantization_bit": 4,
        "train.learning_rate": 5e-3,
    },
}

STAGES: dict[str, dict[str, Any]] = {
    "pt": {"data.dataset": "demo-text", "data.cutoff_len": 32},
    "sft": {"data.dataset": "demo"},
    "rm": {"data.dataset": "demo-pairs"},
    "dpo": {"data.dataset": "demo-pairs", "alignment.pref_beta": 0.3},
    "kto": {"data.dataset": "demo-tags", "alignment.pref_beta": 0.3},
    "ppo": {
        "data.dataset": "demo",
        "generation.max_new_tokens": 6,
        "alignment.ppo_kl_coef": 0.01,
        "alignment.ppo_epochs": 2,
        "train.learning_rate": 1e-2,
        "data.max_samples": 36,
        "train.max_steps": 12,
        "train.eval_steps": 12,
        "train.per_device_train_batch_size": 32,
    },
}
"""What is learnt by each; `COMMON` holds where nothing else is said."""

COMMON: dict[str, Any] = {
    "model.model_name_or_path": "demo",
    "data.max_samples": 20,
    "data.val_size": 4,
    "data.cutoff_len": 128,
    "train.per_device_train_batch_size": 8,
    "train.per_device_eval_batch_size": 4,
    "train.gradient_accumulation_steps": 1,
    "train.max_steps": 8,
    "train.eval_steps": 8,
    "train.logging_steps": 1,
    "train.warmup_ratio": 0.0,
    "train.precision": "fp32",
}

HERE = [
    *[("pt", method) for method in METHODS],
    *[("sft", method) for method in METHODS],
    ("rm", "lora"),
    ("dpo", "lora"),
    ("kto", "qlora"),
    ("ppo", "qlora"),
]


@dataclass(frozen=True)
class Ran:
    """What a training left."""

    output: Path
    points: list[Point]

    def told(self, name: str) -> list[float]:
        """A measure of the stage, over the run."""
        return [p.more[name] for p in self.points if p.more and name in p.more]

    @property
    def updates(self) -> list[Point]:
        return [p for p in self.points if p.loss is not None]

    @property
    def losses(self) -> list[float]:
        return [p.loss for p in self.points if p.loss is not None]


Trained = Callable[[str, str], Ran]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train a stage with a method: once, however many tests look at it."""
    done: dict[tuple[str, str], Ran] = {}

    def ran(stage: str, method: str) -> Ran:
        if (stage, method) not in done:
            more: dict[str, Any] = {"method.stage": stage}
            if stage == "ppo":
                more["alignment.reward_model"] = str(ran("rm", "lora").output)
            folder = tmp_path_factory.mktemp(f"{stage}-{method}")
            done[stage, method] = run_here(METHODS[method] | COMMON | STAGES[stage] | more, folder)
        return done[stage, method]

    return ran


def run_here(settings: dict[str, Any], folder: Path) -> Ran:
    document: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        document.setdefault(table, {})[name] = value
    save(from_document(document, source="test").as_training(), folder / TRIAL_FILE)
    task = TrialTask(1, 1, "full", 1.0, "cpu", threads=1, save_model=True)
    report = train(folder, task, Requests(), Stopwatch())
    assert report.outcome == "completed", report.error
    return Ran(folder / OUTPUT, read_points(folder / METRICS_FILE))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(("stage", "method"), HERE)
def test_it_learns_and_what_is_saved_reloads_and_answers(
    trained: Trained, stage: str, method: str
) -> None:
    ran = trained(stage, method)
    if stage == "ppo":
        # A round of answers to the same 32 prompts is two updates. Means of two rounds differ by about 0.1 by chance;
        # what is learnt is 0.8 and more, with any seed.
        rewards = ran.told("reward")
        assert mean(rewards[-4:]) > mean(rewards[:4]) + 0.4
    else:
        assert mean(ran.losses[-2:]) < 0.85 * ran.losses[0]
    if stage in ("rm", "dpo", "kto"):
        margins = ran.told("reward_margin")
        assert mean(margins[-2:]) > margins[0] + 0.5
    kind = AutoModelForSequenceClassification if stage == "rm" else AutoModelForCausalLM
    model, before = reloaded(kind, ran.output), base(kind)
    tokenizer = AutoTokenizer.from_pretrained(ran.output)
    asked = tokenizer("A river is", return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        says, said = (m(**asked).logits for m in (model, before))
    assert says.isfinite().all() and not torch.allclose(says, said, atol=1e-2)
    if stage != "rm":
        answer = model.generate(**asked, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        assert tokenizer.decode(answer[0, asked.input_ids.shape[1] :])


def base(kind: Any) -> Any:
    """The shipped model, with one score for stage rm."""
    return load(kind, DEMO_MODEL)


def reloaded(kind: Any, output: Path) -> Any:
    """What was saved, with transformers and peft alone."""
    if (output / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(base(kind), output).eval()
    assert (output / "model.safetensors").is_file()
    return load(kind, output)


def load(kind: Any, folder: Path) -> Any:
    labels = {} if kind is AutoModelForCausalLM else {"num_labels": 1}
    return kind.from_pretrained(folder, dtype=torch.float32, **labels).eval()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_logs_what_tells_whether_it_converges(trained: Trained, stage: str) -> None:
    ran = trained(stage, next(method for name, method in HERE if name == stage))
    for point in ran.updates:
        assert point.grad_norm is not None and 0 < point.grad_norm < math.inf
        assert point.tokens_per_s is not None and point.tokens_per_s > 0
        assert point.mem_allocated and point.mem_peak and point.mem_peak >= point.mem_allocated
        assert point.utilisation is not None and 0 <= point.utilisation <= 1
    assert [p.loss_smoothed for p in ran.updates] == smooth(ran.losses)
    for name in STAGE_LOGS[stage]:
        assert ran.told(name), name
        assert all(map(math.isfinite, ran.told(name))), name
    if stage != "ppo":
        assert ran.points[-1].eval_loss is not None
