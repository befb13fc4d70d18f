"""The losses of each method are those of a plain script of transformers and peft, step for step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Trainer,
    TrainingArguments,
    set_seed,
)

Run = Callable[..., Any]
STEPS = 4

METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full", "learning_rate": 1e-3},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 1e-3},
    "lora": {"lora_rank": 4, "lora_target": "q_proj,up_proj"},
    "qlora": {"lora_rank": 4, "lora_target": "q_proj,up_proj", "quantization_bit": 4},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw_torch": {},
    "sgd": {"optim_args": "momentum=0.9"},
}


def plain_model(folder: Path, settings: dict[str, Any]) -> Any:
    options: dict[str, Any] = {}
    if "quantization_bit" in settings:
        options = {
            "device_map": {"": "cpu"},
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
            ),
        }  # fmt: skip
    set_seed(42)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if settings.get("finetuning_type") == "freeze":
        for name, weight in model.named_parameters():
            weight.requires_grad_("layers.1." in name)
    if "lora_rank" in settings:
        targets = settings["lora_target"].split(",")
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    return model


def plain_rows(folder: Path, dataset: Path) -> list[dict[str, list[int]]]:
    """The prompt by the tokenizer's own template, of which nothing is learnt, and the answer with its end."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for line in dataset.read_text().splitlines():
        row = json.loads(line)
        turns = [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
        prompt = tokenizer.apply_chat_template(
            turns[:1], tokenize=False, add_generation_prompt=True
        )
        # The answer ends with its end token; the line break after it is the template's.
        whole = tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
        given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert ids[: len(given)] == given
        rows.append({"input_ids": ids, "labels": [-100] * len(given) + ids[len(given) :]})
    return rows


def collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> Any:
        return torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])

    ids = padded("input_ids", 0)
    mask = [[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in rows]
    return {
        "input_ids": ids,
        "labels": padded("labels", -100),
        "attention_mask": torch.tensor(mask),
    }


class InOrder(Trainer):  # type: ignore[misc]
    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_a_plain_script_s(
    run_trial: Run, model_dir: Path, dataset: Path, tmp_path: Path, name: str, optim: str,
) -> None:  # fmt: skip
    from core.train.data.batches import epoch_order

    settings = METHODS[name] | OPTIMIZERS[optim]
    if optim == "sgd":
        settings = settings | {"learning_rate": 0.05}
    ours = run_trial(optim=optim, max_steps=STEPS, val_size=0.0, **settings)
    assert ours.report.outcome == "completed", ours.report.error
    rows = plain_rows(model_dir, dataset)
    order = epoch_order(len(rows), 42, 0)
    trainer = InOrder(
        model=plain_model(model_dir, settings),
        args=TrainingArguments(
            output_dir=str(tmp_path / "plain"), max_steps=STEPS, per_device_train_batch_size=2,
            gradient_accumulation_steps=2, learning_rate=settings.get("learning_rate", 0.01), optim=optim,
            optim_args=settings.get("optim_args"), weight_decay=0.01, lr_scheduler_type="cosine", warmup_steps=1,
            logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        ),
        train_dataset=[rows[i] for i in order],
        data_collator=collate,
    )  # fmt: skip
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    # Both compute the same numbers in the same order; what logs round is the script's affair.
    assert [loss for _, loss in ours.losses] == pytest.approx(
        [float(entry["loss"]) for entry in theirs], rel=1e-6
    )
    assert [p.grad_norm for p in ours.points if p.loss is not None] == pytest.approx(
        [float(entry["grad_norm"]) for entry in theirs], rel=1e-4
    )
