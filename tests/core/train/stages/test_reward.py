"""Reward models: the same losses as TRL's, whatever trains, and a result that anyone can load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
    set_seed,
)

from core.train.data.order import epoch_order

Run = Callable[..., Any]

METHODS = [
    {"finetuning_type": "full"},
    {"finetuning_type": "lora"},
    {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    {"finetuning_type": "lora", "quantization_bit": 4},
]
NAMES = ["full", "lora", "freeze", "qlora"]


@pytest.fixture
def run_rm(run_trial: Run, pairs: Path) -> Run:
    def run(name: str = "trial", **settings: Any) -> Any:
        ran = run_trial(name, **({"stage": "rm", "dataset": str(pairs)} | settings))
        assert ran.report.outcome in ("completed", "paused"), ran.report
        return ran

    return run


def load(output: Path, base: Path) -> Any:
    """What was saved, with transformers and peft alone."""
    if not (output / "adapter_config.json").is_file():
        return AutoModelForSequenceClassification.from_pretrained(output, num_labels=1)
    config = json.loads((output / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and "score" in config["modules_to_save"]
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    return PeftModel.from_pretrained(model, output)


def tokens(folder: Path, prompt: str, answer: str) -> list[int]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=False)
    return list(AutoTokenizer.from_pretrained(folder)(text.rstrip()).input_ids)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_it_learns_to_score_the_better_answer_higher_and_what_is_saved_does_so(
    run_rm: Run, model_dir: Path, pairs: Path, method: dict[str, Any]
) -> None:
    ran = run_rm(
        task={"save_model": True}, **method, max_steps=16, val_size=4, eval_steps=8,
        learning_rate=5e-3, per_device_train_batch_size=4,
    )  # fmt: skip
    losses = [p.loss for p in ran.points if p.loss is not None]
    assert losses[0] == pytest.approx(0.69, abs=0.2) and losses[-1] < 0.2
    told = [p.more for p in ran.points if p.loss is not None]
    assert set(told[0]) == {"reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected"}
    assert told[-1]["reward_accuracy"] == 1.0
    assert told[-1]["reward_margin"] == pytest.approx(
        told[-1]["reward_chosen"] - told[-1]["reward_rejected"], abs=1e-5
    )
    last = [p for p in ran.points if p.eval_loss is not None][-1]
    assert last.more["eval_reward_accuracy"] == 1.0 and last.more["eval_reward_margin"] > 1
    output = ran.folder / "output"
    model = load(output, model_dir).eval()
    row = json.loads(pairs.read_text().splitlines()[3])
    asked = row["instruction"].strip()
    scores = [
        float(model(torch.tensor([tokens(output, asked, row[name].strip())])).logits)
        for name in ("chosen", "rejected")
    ]
    assert scores[0] > scores[1] + 1


def rows_of(folder: Path, file: Path) -> list[dict[str, list[int]]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        {
            f"{name}_ids": tokens(folder, row["instruction"], row[name])
            for name in ("chosen", "rejected")
        }
        for row in rows
    ]


class InOrder(trl.RewardTrainer):  # type: ignore[misc]
    """TRL's own, which takes the rows as they come."""

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def _send_telemetry(self) -> None:
        pass


@pytest.fixture(scope="session")
def begun(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that has its head already."""
    folder = tmp_path_factory.mktemp("begun")
    torch.manual_seed(1)
    model = LlamaForSequenceClassification.from_pretrained(model_dir, num_labels=1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["full", "lora"])
def test_losses_are_those_of_a_plain_script_with_trl_step_for_step(
    run_rm: Run, begun: Path, pairs: Path, tmp_path: Path, method: str
) -> None:
    settings = {
        "learning_rate": 2e-3, "max_steps": 6, "weight_decay": 0.01, "lr_scheduler_type": "linear",
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    ran = run_rm(
        **settings, finetuning_type=method, model_name_or_path=str(begun), warmup_ratio=0.0,
        val_size=0,
    )  # fmt: skip
    rows = rows_of(begun, pairs)
    order = [i for epoch in range(2) for i in epoch_order(len(rows), 42, epoch)]
    args = trl.RewardConfig(
        output_dir=str(tmp_path / "plain"), **settings, logging_steps=1, bf16=False, use_cpu=True,
        report_to="none", disable_tqdm=True, gradient_checkpointing=False, save_strategy="no",
    )  # fmt: skip
    set_seed(42)
    model = LlamaForSequenceClassification.from_pretrained(begun, num_labels=1)
    if method == "lora":
        config = LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules="all-linear",
            modules_to_save=["score"],
        )  # fmt: skip
        model = get_peft_model(model, config)
    plain = InOrder(
        model, args, train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=AutoTokenizer.from_pretrained(begun),
    )  # fmt: skip
    plain.train()
    logs = [log for log in plain.state.log_history if "loss" in log]
    found = [p for p in ran.points if p.loss is not None]
    assert len(found) == len(logs) == 6
    assert [p.loss for p in found] == pytest.approx([log["loss"] for log in logs], abs=1e-6)
    assert [p.grad_norm for p in found] == pytest.approx(
        [float(log["grad_norm"]) for log in logs], rel=1e-4
    )
    for own, theirs in (("reward_accuracy", "accuracy"), ("reward_margin", "margin")):
        told = [log[theirs] for log in logs]
        assert [p.more[own] for p in found] == pytest.approx(told, abs=1e-5)


def test_the_last_smaller_batch_of_an_epoch_does_not_weigh_more(run_rm: Run) -> None:
    """22 pairs: the third update has a batch of four pairs and one of two."""
    settings = {"val_size": 2, "max_steps": 6, "learning_rate": 1e-3}
    parts = run_rm(
        "parts", **settings, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    whole = run_rm(
        "whole", **settings, per_device_train_batch_size=8, gradient_accumulation_steps=1
    )
    assert [loss for _, loss in parts.losses] == pytest.approx(
        [loss for _, loss in whole.losses], abs=1e-6
    )
    told = [[p.more for p in ran.points if p.more] for ran in (parts, whole)]
    for one, other in zip(*told, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_evaluations_do_not_depend_on_their_batches(run_rm: Run) -> None:
    settings = {"val_size": 7, "max_steps": 2, "eval_steps": 1}
    found = [
        [(p.eval_loss, p.more) for p in ran.points if p.eval_loss is not None]
        for ran in (run_rm(f"{n}", **settings, per_device_eval_batch_size=n) for n in (7, 3))
    ]
    for (loss, more), (same, too) in zip(*found, strict=True):
        assert loss == pytest.approx(same, abs=1e-6) and more == pytest.approx(too, abs=1e-6)


@pytest.mark.parametrize("method", METHODS[:2], ids=NAMES[:2])
def test_a_pause_changes_nothing(run_rm: Run, method: dict[str, Any]) -> None:
    given = {**method, "max_steps": 6, "val_size": 4, "eval_steps": 3, "logging_steps": 2}
    whole = run_rm("whole", **given)
    paused = run_rm("paused", ask=("paused", 3), **given)
    assert paused.report.outcome == "paused"
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    resumed = run_rm("paused", task=task, **given)
    found = [(p.step, p.loss, p.eval_loss, p.grad_norm, p.more) for p in resumed.points]
    # What the pause itself has told stands between.
    assert all((p.step, p.loss, p.eval_loss, p.grad_norm, p.more) in found for p in whole.points)


def test_the_result_knows_where_a_row_ends(run_rm: Run, model_dir: Path) -> None:
    """A row scores the same beside a longer one, for whoever loads it."""
    ran = run_rm(task={"save_model": True}, finetuning_type="full", max_steps=1)
    model = load(ran.folder / "output", model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(ran.folder / "output")
    alone, longer = tokenizer("Say hello", return_tensors="pt"), "Say hello please friend 1 2 3"
    both = tokenizer(["Say hello", longer], return_tensors="pt", padding=True)
    with torch.no_grad():
        assert model(**both).logits[0].item() == pytest.approx(
            model(**alone).logits.item(), abs=1e-5
        )


def test_ppo_learns_from_what_it_has_saved(run_rm: Run, run_trial: Run, dataset: Path) -> None:
    """An adapter on the very base that trains: it takes no memory for that a second time."""
    judge = run_rm("judge", task={"save_model": True}, max_steps=4, learning_rate=1e-3)
    ran = run_trial(
        "policy", stage="ppo", reward_model=str(judge.folder / "output"), dataset=str(dataset),
        max_steps=2, ppo_epochs=1, max_new_tokens=4,
    )  # fmt: skip
    assert ran.report.outcome == "completed", ran.report
    told = [p.more for p in ran.points if p.loss is not None]
    assert all(abs(more["reward"]) < 10 for more in told)
