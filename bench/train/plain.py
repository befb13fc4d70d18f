"""What everybody would write: a Trainer of transformers and an adapter of peft on padded batches.

A process of its own: `python -m bench.train.plain SETTINGS.json RESULT.json`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Clock(TrainerCallback):  # type: ignore[misc]
    """Remembers when training began and when its last update ended."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = _now()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


class InOrder(Trainer):  # type: ignore[misc]
    """Takes the rows as they come: in the order in which the other arms have them."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Train on settings' rows (input_ids and labels); returns the seconds from the beginning of the first update to the
    end of the last, how many there were and how the evaluation rows fare."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["dtype"])
    adapter = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    clock = Clock()
    trainer = InOrder(
        model=get_peft_model(model, adapter),
        args=TrainingArguments(
            output_dir=settings["out"],
            per_device_train_batch_size=settings["batch"],
            per_device_eval_batch_size=settings["batch"],
            num_train_epochs=1,
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=settings["device"] == "cpu",
            bf16=settings["device"] == "cuda",
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        train_dataset=settings["train"],
        callbacks=[clock],
    )
    trainer.train()
    return {
        "seconds": clock.ended - clock.began,
        "updates": trainer.state.global_step,
        "eval_loss": evaluate(trainer, settings["evaluation"], settings["batch"]),
    }


def evaluate(trainer: Any, rows: list[dict[str, Any]], batch: int) -> float:
    """The mean loss of a learnt token, nats."""
    total, tokens = 0.0, 0
    trainer.model.eval()
    for start in range(0, len(rows), batch):
        inputs = trainer._prepare_inputs(trainer.data_collator(rows[start : start + batch]))
        learnt = int((inputs["labels"][:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(trainer.model(**inputs).loss) * learnt
        tokens += learnt
    return total / tokens


if __name__ == "__main__":
    given, result = sys.argv[1:3]
    Path(result).write_text(json.dumps(run(json.loads(Path(given).read_text()))))
