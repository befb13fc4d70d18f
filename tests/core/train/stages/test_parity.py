"""The losses of a trial are those of a plain script on transformers, peft and TRL, step for step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from core.train.data.batches import epoch_order

Run = Callable[..., Any]

SETTINGS: dict[str, Any] = {
    "max_steps": 6, "val_size": 0.0, "learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 2,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "weight_decay": 0.1,
}  # fmt: skip
LORA = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")


def arguments(folder: Path, batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
    """What a script says; the rows are laid out in the order in which a trial draws them."""
    return {
        "output_dir": str(folder), "max_steps": 6, "learning_rate": 2e-3, "lr_scheduler_type": "cosine",
        "warmup_steps": 2, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
        "weight_decay": 0.1, "logging_steps": 1, "seed": 42, "use_cpu": True, "bf16": False, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
    } | more  # fmt: skip


def drawn(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [rows[i] for i in epoch_order(len(rows), 42, 0)]


def asked(row: dict[str, Any]) -> str:
    # As the template of the tests' tokenizer, which knows nothing but turns.
    return f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n"


def ending(model_dir: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    # Where an answer ends; TRL adds an end of its own where this is not it.
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def history(trainer: Any, *names: str) -> list[list[float]]:
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return [[float(log[name]) for log in logs] for name in names]


def figures(ran: Any, *names: str) -> list[list[float]]:
    assert ran.report.outcome == "completed", ran.report
    points = [p for p in ran.points if p.loss is not None]
    return [[getattr(p, n) if hasattr(p, n) else (p.more or {})[n] for p in points] for n in names]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge"])
def test_dpo_has_the_losses_of_trl(
    run_trial: Run, model_dir: Path, pairs: Path, tmp_path: Path, loss: str, method: str
) -> None:
    batch, accumulation = (4, 1) if loss == "sigmoid" else (2, 2)
    beta = 1.0 if loss == "hinge" else 0.3
    ours = run_trial(
        stage="dpo", dataset=str(pairs), finetuning_type=method, pref_loss=loss, pref_beta=beta,
        **SETTINGS | {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation},
    )  # fmt: skip
    rows = [
        {
            "prompt": asked(row),
            "chosen": f"{row['chosen']}<|im_end|>",
            "rejected": f"{row['rejected']}<|im_end|>",
        }
        for row in drawn(pairs)
    ]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=DPOConfig(**arguments(tmp_path, batch, accumulation, loss_type=loss, beta=beta)),
        train_dataset=Dataset.from_list(rows),
        processing_class=ending(model_dir),
        peft_config=LORA if method == "lora" else None,
    )
    trainer.train()
    theirs = history(trainer, "loss", "grad_norm", "rewards/margins", "rewards/accuracies")
    own = figures(ours, "loss", "grad_norm", "reward_margin", "reward_accuracy")
    assert own[0] == pytest.approx(theirs[0], rel=1e-5)
    assert own[1] == pytest.approx(theirs[1], rel=1e-4)
    assert own[2] == pytest.approx(theirs[2], rel=1e-3, abs=1e-5)
    assert own[3] == pytest.approx(theirs[3])
    assert len(own[0]) == 6 and own[0][-1] < own[0][0]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_kto_has_the_losses_of_trl(
    run_trial: Run, model_dir: Path, tags: Path, tmp_path: Path, method: str
) -> None:
    ours = run_trial(
        stage="kto", dataset=str(tags), finetuning_type=method, kto_rejected_weight=1.5, pref_beta=0.5, **SETTINGS
    )  # fmt: skip
    rows = [
        {
            "prompt": asked(row),
            "completion": f"{row['output']}<|im_end|>",
            "label": row["kto_tag"],
        }
        for row in drawn(tags)
    ]
    own_args = arguments(tmp_path, 4, 1, beta=0.5, undesirable_weight=1.5)
    trainer = KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=KTOConfig(**own_args),
        train_dataset=Dataset.from_list(rows),
        processing_class=ending(model_dir),
        peft_config=LORA if method == "lora" else None,
    )
    trainer.train()
    theirs = history(trainer, "loss", "grad_norm", "kl", "rewards/chosen")
    own = figures(ours, "loss", "grad_norm", "kl", "reward_chosen")
    assert own[0] == pytest.approx(theirs[0], rel=1e-5)
    assert own[1] == pytest.approx(theirs[1], rel=1e-4)
    assert own[2] == pytest.approx(theirs[2], rel=1e-3, abs=1e-4)
    assert own[3] == pytest.approx(theirs[3], rel=1e-3, abs=1e-5)
    assert len(own[0]) == 6 and max(own[2]) > 0


def plain(model_dir: Path, rows: list[Any], method: str, options: dict[str, Any]) -> Trainer:
    """A script on transformers and peft alone. Rows are token ids and labels."""
    set_seed(42)
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    if method == "lora":
        model = get_peft_model(model, LORA)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**options),
        train_dataset=Dataset.from_list([{"input_ids": i, "labels": labels} for i, labels in rows]),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("method", "optim", "accumulation"),
    [
        ("lora", "adamw_torch", 2),
        ("full", "adamw_torch", 1),
        ("full", "sgd", 2),
        ("lora", "sgd", 1),
    ],
)
def test_sft_has_the_losses_of_transformers(
    run_trial: Run, model_dir: Path, dataset: Path, tmp_path: Path, method: str, optim: str, accumulation: int
) -> None:  # fmt: skip
    ours = run_trial(
        dataset=str(dataset), finetuning_type=method, optim=optim,
        **SETTINGS | {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation},
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = []
    for row in drawn(dataset):
        prompt = tokenizer(asked(row))["input_ids"]
        answer = tokenizer(f"{row['output']}<|im_end|>")["input_ids"]
        rows.append(([*prompt, *answer], [-100] * len(prompt) + answer))
    options = arguments(tmp_path, 4 // accumulation, accumulation, optim=optim)
    theirs = history(plain(model_dir, rows, method, options), "loss", "grad_norm", "learning_rate")
    own = figures(ours, "loss", "grad_norm")
    assert own[0] == pytest.approx(theirs[0], rel=1e-5)
    assert own[1] == pytest.approx(theirs[1], rel=1e-4)
    assert len(own[0]) == 6 and own[0][-1] < own[0][0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_pt_has_the_losses_of_transformers(
    run_trial: Run, model_dir: Path, tmp_path: Path, method: str
) -> None:
    texts = [f"Text {n}: " + "the sky is blue and " * (3 + 2 * n % 7) + "over." for n in range(24)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    ours = run_trial(
        stage="pt", dataset=str(file), finetuning_type=method, cutoff_len=32, neat_packing=False, **SETTINGS
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    ids = [i for text in texts for i in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    blocks = [ids[start : start + 32] for start in range(0, len(ids), 32)]
    order = epoch_order(len(blocks), 42, 0)
    assert len(blocks) >= 24
    rows = [(blocks[i], blocks[i]) for i in order]
    theirs = history(plain(model_dir, rows, method, arguments(tmp_path, 4, 1)), "loss", "grad_norm")
    own = figures(ours, "loss", "grad_norm")
    assert own[0] == pytest.approx(theirs[0], rel=1e-5)
    assert own[1] == pytest.approx(theirs[1], rel=1e-4)
    assert len(own[0]) == 6 and own[0][-1] < own[0][0]


def test_pt_tells_the_perplexity_of_its_evaluations(run_trial: Run, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    texts = ["the sky is blue and " * (2 + n % 7) for n in range(24)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    ran = run_trial(
        stage="pt", dataset=str(file), max_steps=4, val_size=6, eval_steps=2, cutoff_len=32
    )
    found = [(p.eval_loss, p.more) for p in ran.points if p.eval_loss is not None]
    assert len(found) == 2
    for loss, more in found:
        assert more["eval_perplexity"] == pytest.approx(torch.tensor(loss).exp().item())
        assert 0 <= more["eval_accuracy"] <= 1
